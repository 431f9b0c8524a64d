"""The points of a space, resolved, and the controls beside them."""

import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from sweeper.errors import SpecError
from sweeper.spec import (
    Axis,
    BemaAverage,
    EmaAverage,
    FeedbackAverage,
    InterpolateAverage,
    SweepSpec,
)
from sweeper.spec.space import ADAPTER_AXES, DATA_AXES
from sweeper.task import (
    ADAMW,
    FULL_TUNING,
    Average,
    Bema,
    DataSettings,
    Feedback,
    ModelSource,
    OptimizerSettings,
    Template,
    Tuning,
    as_written,
)
from sweeper.task.fields import stated_fields

Role = Literal[
    "candidate",
    "base",
    "default",
    "unaveraged_control",
    "interpolation_control",
    "learning_rate_control",
]

CANDIDATE: Role = "candidate"

MAX_CONFIGURATIONS = 100_000
"""A grid beyond this is refused before it is expanded."""

MAX_READOUTS = 1_000_000
"""The same limit for points times seeds."""

DEFAULT_LEARNING_RATE = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}

DEFAULT_BATCH_SIZE = 8
"""The defaults of TRL and transformers, which the `default` control uses."""

NEGLIGIBLE_WEIGHT = 1e-3
"""Below this weight on theta_0, the interpolation control is practically the raw control."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of the space with every hyperparameter resolved.

    `values` is flat and JSON-able. `settings` are those of the optimizer, `average` says how weights are
    read after `step` optimizer steps.
    """

    config_id: str
    role: Role
    values: Mapping[str, Any]
    tuning: Tuning
    data: DataSettings
    settings: OptimizerSettings
    step: int
    average: Average


def short_hash(content: Any) -> str:
    """Ten hex digits of the SHA-256 of canonical JSON (sorted keys, no spaces)."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:10]


Point = Mapping[str, Any]
"""Values of some or all axes of a space, as in the spec."""

READOUT_AXES = ("max_steps", "num_epochs", "average")
"""Axes that need no extra path: one path is read at every step, with every average."""


def configurations_of(
    spec: SweepSpec,
    drawn: Sequence[Point] | None = None,
    only: Collection[str] | None = None,
) -> tuple[Configuration, ...]:
    """The candidates of a space, then their controls, without duplicates.

    Args:
        spec: The space.
        drawn: The optimizer settings of a search that is no grid; drawn at random where not given.
        only: The ids to keep; all where not given.

    Raises:
        SpecError: the space is larger than MAX_CONFIGURATIONS, a warmup or decay does not fit, or an id
            of `only` is not among them.
    """
    configurations: dict[str, Configuration] = {}
    for item in itertools.chain(_candidates(spec, drawn), _controls_alone(spec)):
        configurations.setdefault(item.config_id, item)
    for item in [item for item in configurations.values() if item.role == "candidate"]:
        for control in _average_controls(spec, item):
            configurations.setdefault(control.config_id, control)
    return tuple(configurations.values()) if only is None else _only(configurations, only)


def _only(planned: Mapping[str, Configuration], ids: Collection[str]) -> tuple[Configuration, ...]:
    unknown = sorted(set(ids) - planned.keys())
    if unknown:
        problem = (
            f"configurations {', '.join(unknown)} are not among the {len(planned)} of this sweep"
        )
        raise SpecError("space", (problem,))
    return tuple(item for identity, item in planned.items() if identity in ids)


def points_of(spec: SweepSpec, drawn: Sequence[Point] | None = None) -> dict[str, Point]:
    """The points of the space by the id of their configuration; arguments as of `configurations_of`."""
    points: dict[str, Point] = {}
    for point in _points(spec, drawn):
        points.setdefault(_configuration(spec, point, CANDIDATE).config_id, point)
    return points


def _candidates(spec: SweepSpec, drawn: Sequence[Point] | None) -> Iterator[Configuration]:
    """The points of the space itself."""
    for point in _points(spec, drawn):
        yield _configuration(spec, point, CANDIDATE)


def _points(spec: SweepSpec, drawn: Sequence[Point] | None) -> Iterator[Point]:
    """Grid: the product of all axes. Otherwise: sampled optimizer settings x every readout axis."""
    read = readout_axes(spec)
    if spec.search.method == "grid":
        axes = {**trajectory_axes(spec), **read}
        axes = {name: axes[name] for name in type(spec.space).model_fields if name in axes}
        grids = {name: axis.grid() for name, axis in axes.items()}
        _check_size(spec, "grid", math.prod(len(grid) for grid in grids.values()))
        for values in itertools.product(*grids.values()):
            yield dict(zip(grids, values, strict=True))
        return
    grids = {name: axis.grid() for name, axis in read.items()}
    per_path = math.prod(len(grid) for grid in grids.values())
    _check_size(spec, f"{spec.search.method} search", per_path * (spec.search.n_trials or 0))
    pairs = tuple(itertools.product(*grids.values()))
    drawn = drawn_points(spec) if drawn is None else drawn
    for point in drawn:
        for pair in pairs:
            yield {**point, **dict(zip(read, pair, strict=True))}


def trajectory_axes(spec: SweepSpec) -> dict[str, Axis[Any]]:
    """The axes whose every value needs an optimizer path of its own, in the order of the spec."""
    fields = [name for name in type(spec.space).model_fields if name not in READOUT_AXES]
    return {name: axis for name in fields if (axis := _axis(spec, name))}


def readout_axes(spec: SweepSpec) -> dict[str, Axis[Any]]:
    """The axes that one path is read along, as lists.

    Steps without `num` are read at the largest value only.
    """
    name, length = _length_axis(spec)
    values = length.values or (length.grid() if length.num else (length.high,))
    return {name: Axis[Any](values=values), "average": spec.space.average}


def _length_axis(spec: SweepSpec) -> tuple[str, Axis[Any]]:
    """The axis that says how long to train, in steps or in epochs, and its name."""
    space = spec.space
    if space.max_steps is not None:
        return "max_steps", space.max_steps
    assert space.num_epochs is not None
    return "num_epochs", space.num_epochs


def steps_of(spec: SweepSpec, point: Mapping[str, Any]) -> int:
    """The optimizer steps of a point: its `max_steps`, or those that its `num_epochs` take.

    An epoch is `rows_per_epoch` rows; the last batch may begin the next epoch.

    Raises:
        SpecError: the rows of an epoch are not counted; `estimate.epochs.count_epoch_rows` does.
    """
    if "max_steps" in point:
        return int(point["max_steps"])
    if spec.rows_per_epoch is None:
        raise SpecError(
            "space.num_epochs",
            ("the rows of an epoch are not counted yet; `sweeper plan` counts them",),
        )
    seen = spec.rows_per_epoch * float(point["num_epochs"])
    return max(1, math.ceil(round(seen / int(point["batch_size"]), 9)))


def drawn_points(spec: SweepSpec) -> list[Point]:
    """`search.n_trials` optimizer settings, uniform on the scale of each axis, from `search.seed`."""
    assert spec.search.n_trials is not None
    axes = trajectory_axes(spec)
    rng = np.random.default_rng(spec.search.seed)
    draws = [rng.random(len(axes)) for _ in range(spec.search.n_trials)]
    return [
        {name: axes[name].at(float(u)) for name, u in zip(axes, draw, strict=True)}
        for draw in draws
    ]


def _check_size(spec: SweepSpec, what: str, count: int) -> None:
    if count > MAX_CONFIGURATIONS:
        problem = f"the {what} has {count} points, at most {MAX_CONFIGURATIONS} are allowed"
        raise SpecError("space", (problem,))
    if count * len(spec.seeds) > MAX_READOUTS:
        problem = (
            f"the {what} has {count} points under {len(spec.seeds)} seeds, at most {MAX_READOUTS} "
            "records are allowed"
        )
        raise SpecError("space", (problem,))


def _axis(spec: SweepSpec, name: str) -> Axis[Any] | None:
    axis: Axis[Any] | None = getattr(spec.space, name)
    return axis


def _controls_alone(spec: SweepSpec) -> Iterator[Configuration]:
    """The base model, and the trainers' defaults trained for the largest step count."""
    yield _configuration(spec, {"max_steps": 0, "average": {"kind": "raw"}}, "base")
    yield default_control(spec)


def default_control(spec: SweepSpec) -> Configuration:
    """Fine-tuning with the trainers' defaults; it may be a point of the space as well."""
    name, axis = _length_axis(spec)
    default = {
        "learning_rate": DEFAULT_LEARNING_RATE[spec.tuning.method],
        "batch_size": DEFAULT_BATCH_SIZE,
        name: axis.high if axis.values is None else max(axis.values),
        "lr_scheduler_type": "linear",
        "average": {"kind": "raw"},
    }
    return _configuration(spec, default, "default")


def _average_controls(spec: SweepSpec, configuration: Configuration) -> Iterator[Configuration]:
    """The controls that an averaged configuration is compared with."""
    point = dict(configuration.values)
    if configuration.settings.feedback is not None:
        rate = configuration.settings.learning_rate * (1 - configuration.settings.feedback.decay)
        twin = {**point, "learning_rate": float(f"{rate:.12g}"), "average": "raw"}
        yield _configuration(spec, twin, "learning_rate_control", configuration)
    if configuration.values["average"] != "raw":
        raw = {**point, "average": "raw"}
        yield _configuration(spec, raw, "unaveraged_control", configuration)
    if configuration.average.kind == "ema":
        assert configuration.average.decay is not None
        weight = float(f"{configuration.average.decay**configuration.step:.6g}")
        if NEGLIGIBLE_WEIGHT <= weight < 1:
            average = {"kind": "interpolate", "weight": weight}
            mixed = {**point, "average": average}
            yield _configuration(spec, mixed, "interpolation_control", configuration)


_AVERAGES = {
    "ema": EmaAverage,
    "interpolate": InterpolateAverage,
    "bema": BemaAverage,
    "feedback": FeedbackAverage,
}

_STATED = {item.name: item for item in stated_fields(OptimizerSettings)}

_FIXED: dict[str, Any] = {
    **{name: item.default for name, item in _STATED.items()},
    "learning_rate": 0.0,
    "batch_size": DEFAULT_BATCH_SIZE,
}
"""Values of the fields that a control does not set: the trainers' defaults."""


def _configuration(
    spec: SweepSpec, point: Mapping[str, Any], role: Role, of: Configuration | None = None
) -> Configuration:
    """Resolve one point: ratios to steps, retention to decay, missing fields to defaults.

    `of` is the configuration that a control belongs to; both have the same adapter and data.
    """
    given = {**_FIXED, **point}
    step = steps_of(spec, given)
    scheduler = given["lr_scheduler_type"]
    warmup = _whole_steps(given["warmup_steps"], step) if scheduler != "constant" else 0
    decay = _whole_steps(given["decay_steps"], step) if scheduler == "warmup_stable_decay" else 0
    if warmup + decay > step:
        raise SpecError(
            "space",
            (f"warmup_steps {warmup} + decay_steps {decay} exceed max_steps {step}",),
        )
    average, feedback, label = _read_average(given["average"], step)
    resolved = {name: given[name] for name in _STATED}
    resolved |= {"warmup_steps": warmup, "decay_steps": decay}
    settings = OptimizerSettings(**resolved, feedback=feedback)
    tuning = _tuning(spec, given) if of is None else of.tuning
    data = replace(spec.data, **_searched(DATA_AXES, given)) if of is None else of.data
    fixed = _fixed_values(spec, tuning, data)
    values = {**resolved, "max_steps": step, "average": label, **fixed}
    identity = short_hash(without_later(values))
    if spec.optimizers == (ADAMW,):
        values = without_later(values)
    return Configuration(identity, role, values, tuning, data, settings, step, average)


def without_later(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without the fields at their defaults that are younger than the ids of kept runs."""
    return {name: value for name, value in values.items() if (name, value) != ("optim", ADAMW)}


def _whole_steps(value: float, total: int) -> int:
    """A ratio below 1 is a fraction of the total, rounded up, as in transformers' `warmup_steps`."""
    return math.ceil(value * total) if 0 < value < 1 else int(value)


def _read_average(raw: Any, step: int) -> tuple[Average, Feedback | None, str]:
    """The readout's average, the path's feedback, and the label people see."""
    if isinstance(raw, Mapping):
        raw = _AVERAGES[raw["kind"]](**raw) if raw["kind"] != "raw" else "raw"
    if isinstance(raw, EmaAverage):
        decay = raw.decay if raw.decay is not None else float(raw.retention or 0) ** (1 / step)
        return Average("ema", decay=decay), None, raw.label
    if isinstance(raw, InterpolateAverage):
        return Average("interpolate", weight=raw.weight), None, raw.label
    if isinstance(raw, BemaAverage):
        if step % raw.update_freq:
            problem = (
                f"`{raw.label}` is updated every {raw.update_freq} steps, which does not divide "
            )
            raise SpecError("space", (f"{problem}max_steps {step}",))
        return Average("bema", bema=Bema(**raw.model_dump(exclude={"kind"}))), None, raw.label
    if isinstance(raw, FeedbackAverage):
        return Average(), Feedback(raw.decay, raw.every), raw.label
    return Average(), None, "raw"


def _tuning(spec: SweepSpec, given: Mapping[str, Any]) -> Tuning:
    if not spec.tuning.has_adapter:
        return FULL_TUNING
    return replace(spec.tuning, **_searched(ADAPTER_AXES, given))


def _searched(axes: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in axes if given.get(name) is not None}


_MODEL = tuple(item.name for item in stated_fields(ModelSource) if item.name != "path")

_SEPARATE = (
    *("train", "heldout", "heldout_rows", "template"),
    *("control_tokens", "safety", "safety_share"),
)
"""Fields of `data` that a configuration states in another form, or only where they are used."""

_DATA = tuple(item.name for item in stated_fields(DataSettings) if item.name not in _SEPARATE)

_SOMETIMES = ("control_tokens", "safety", "safety_share")

FIXED_NAMES = ("model", *_MODEL, "train", "heldout", "template", *_DATA, *_SOMETIMES)
"""The values of model and data; the last ones only where they do not have their defaults."""


def _fixed_values(spec: SweepSpec, tuning: Tuning, data: DataSettings) -> dict[str, Any]:
    """The values of adapter, model and data that are part of an id."""
    adapter = as_written(tuning) if tuning.has_adapter else {"method": tuning.method}
    written = as_written(data)
    mixed = {"safety": written["safety"], "safety_share": data.safety_share} if data.safety else {}
    control = {"control_tokens": data.control_tokens} if data.control_tokens != "error" else {}
    return {
        **adapter,
        "model": spec.model.path,
        **{name: getattr(spec.model, name) for name in _MODEL},
        "train": written["train"],
        "heldout": written.get("heldout", {"heldout_rows": data.heldout_rows}),
        "template": _template(data.template),
        **{name: getattr(data, name) for name in _DATA},
        **control,
        **mixed,
    }


def _template(template: Template) -> Any:
    """The template's name if both sides are equal and have no system prompt, else all of it."""
    if template.train == template.test and template.train.system is None:
        return template.train.name
    return as_written(template)
