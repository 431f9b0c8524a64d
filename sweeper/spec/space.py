"""The dimensions of a sweep: optimizer fields, steps, averages, searched fields of tuning and data."""

from collections.abc import Iterator
from dataclasses import MISSING
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, create_model, model_validator

from sweeper.spec.axes import Axis, SpecModel
from sweeper.task import DataSettings, OptimizerSettings, Tuning
from sweeper.task.fields import (
    Before,
    Count,
    Doc,
    NonNegative,
    Positive,
    Searched,
    Stated,
    UnitFloat,
    annotations_of,
    metadata,
    stated_fields,
)


class RawAverage(SpecModel):
    """The weights as the optimizer left them."""

    kind: Annotated[Literal["raw"], Doc("May be written as the bare word `raw`.")] = "raw"

    @property
    def label(self) -> str:
        """`raw`."""
        return "raw"


class EmaAverage(SpecModel):
    """An EMA of the weights, given by `decay`, or by `retention` = decay^steps, the weight of theta_0."""

    kind: Annotated[Literal["ema"], Doc("An EMA of the weights, updated after every step.")]
    decay: Annotated[UnitFloat | None, Doc("Its decay per step; or `retention`.")] = None
    retention: Annotated[
        UnitFloat | None, Doc("Remaining weight of the initial weights, `decay^steps`; or `decay`.")
    ] = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.decay is None) == (self.retention is None):
            raise ValueError("give `decay` or `retention`, one of the two")
        return self

    @property
    def label(self) -> str:
        """`ema(0.99)` or `ema(retention=0.5)`."""
        given = f"retention={self.retention:.12g}" if self.decay is None else f"{self.decay:.12g}"
        return f"ema({given})"


class InterpolateAverage(SpecModel):
    """(1 - weight) * theta + weight * theta_0 (WiSE-FT)."""

    kind: Annotated[Literal["interpolate"], Doc("Mixed with the initial weights (WiSE-FT).")]
    weight: Annotated[UnitFloat, Doc("Weight of the initial weights.")]

    @property
    def label(self) -> str:
        """`interpolate(0.5)`."""
        return f"interpolate({self.weight:.12g})"


class BemaAverage(SpecModel):
    """A bias-corrected EMA, as TRL's BEMACallback (arXiv 2508.00180); every update_freq-th step counts."""

    kind: Annotated[Literal["bema"], Doc("A bias-corrected EMA; may be written as `bema`.")]
    update_freq: Annotated[Count, Doc("Steps between two updates; it divides `max_steps`.")] = 1
    ema_power: Annotated[NonNegative, Doc("Power of the weight of the newest weights.")] = 0.5
    bias_power: Annotated[NonNegative, Doc("Power of the bias correction.")] = 0.2
    lag: Annotated[Count, Doc("Age of the average at step 0.")] = 10
    multiplier: Annotated[NonNegative, Doc("Age per step.")] = 1.0

    @property
    def label(self) -> str:
        """`bema`, or `bema(lag=20)`: the settings that are not the default."""
        fields = type(self).model_fields
        given = [f"{n}={v:.12g}" for n, v in self if n != "kind" and v != fields[n].default]
        return f"bema({', '.join(given)})" if given else "bema"


class FeedbackAverage(SpecModel):
    """Lookahead-style: every `every` steps the weights are replaced by their EMA.

    It needs its own path.
    """

    kind: Annotated[Literal["feedback"], Doc("Weights replaced by their EMA, Lookahead-style.")]
    decay: Annotated[UnitFloat, Doc("Decay of the EMA per step.")]
    every: Annotated[Count, Doc("Steps between two replacements.")] = 1

    @property
    def label(self) -> str:
        """`feedback(0.9, every=4)`."""
        return f"feedback({self.decay:.12g}, every={self.every})"


def _average(raw: Any) -> Any:
    """Read the bare words `raw` and `bema` as averages."""
    return {"kind": raw} if raw in ("raw", "bema") else raw


AVERAGES = (RawAverage, EmaAverage, InterpolateAverage, BemaAverage, FeedbackAverage)

AverageSpec = Annotated[
    Annotated[
        RawAverage | EmaAverage | InterpolateAverage | BemaAverage | FeedbackAverage,
        Field(discriminator="kind"),
    ],
    Before(_average),
]


class Space(SpecModel):
    """The dimensions that every sweep states, and `average`. Those of `SpaceSpec` follow them."""

    learning_rate: Axis[float]
    batch_size: Axis[int]
    max_steps: Annotated[
        Axis[Count] | None, Doc("Optimizer steps after which a path is read; or `num_epochs`.")
    ] = None
    num_epochs: Annotated[
        Axis[Positive] | None,
        Doc("Epochs instead of `max_steps`: rows x epochs / batch size steps, rounded up."),
    ] = None
    average: Annotated[
        Axis[AverageSpec],
        Doc("How weights are read: `raw`, `ema`, `interpolate`, `bema`, `feedback`."),
    ] = Axis[AverageSpec](values=(RawAverage(),))

    @model_validator(mode="after")
    def _length(self) -> Self:
        if (self.max_steps is None) == (self.num_epochs is None):
            found = "neither" if self.max_steps is None else "both"
            raise ValueError(f"give `max_steps` or `num_epochs`, one of the two, but got {found}")
        return self


def _optimizer_axes() -> Iterator[tuple[str, Any]]:
    """An axis for each field of the optimizer, with its range and default; none for planned fields."""
    hints = annotations_of(OptimizerSettings)
    for item in stated_fields(OptimizerSettings):
        kind, default = hints[item.name], item.default
        if (stated := metadata(kind, Stated)) is not None:
            kind, default = stated.type, stated.default
        axis = Axis[kind]  # type: ignore[valid-type]
        described = Annotated[axis, metadata(hints[item.name], Doc)]
        yield item.name, (described, ... if default is MISSING else axis(values=(default,)))


def _searched_axes(block: type) -> Iterator[tuple[str, Any]]:
    """An axis for each searched field of `tuning` or `data`; its default is the value stated there."""
    for name, kind in annotations_of(block).items():
        if metadata(kind, Searched) is not None:
            axis = Axis[kind] | None  # type: ignore[valid-type]
            yield name, (Annotated[axis, metadata(kind, Doc)], None)


ADAPTER_AXES = tuple(name for name, _ in _searched_axes(Tuning))
"""The dimensions that only `tuning.method: lora` has."""

DATA_AXES = tuple(name for name, _ in _searched_axes(DataSettings))
"""The dimensions of the data."""

if TYPE_CHECKING:
    SpaceSpec = Space
else:
    SpaceSpec = create_model(
        "SpaceSpec",
        __base__=Space,
        __doc__="The dimensions of the sweep. Each is a constant, a list, or a range.",
        **dict(_optimizer_axes()),
        **dict(_searched_axes(Tuning)),
        **dict(_searched_axes(DataSettings)),
    )
