"""The sweep file, version 1, as frozen pydantic models. Field names are those of their consumers."""

import difflib
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from sweeper.metrics import (
    METRICS,
    SAFETY_METRICS,
    Direction,
    direction_of,
    is_harness,
    is_utility,
)
from sweeper.spec.axes import Axis, SpecModel
from sweeper.spec.references import ReferenceSpec
from sweeper.spec.results import Constraint, Objective
from sweeper.spec.space import FeedbackAverage, SpaceSpec
from sweeper.spec.stop import StopSpec
from sweeper.task import (
    ComputeSettings,
    DataSettings,
    EvaluationSettings,
    ModelSource,
    PromptSuite,
    Tuning,
)
from sweeper.task.fields import (
    After,
    Before,
    Count,
    Doc,
    Length,
    OneOf,
    Pattern,
    Range,
    Seed,
    UnitFloat,
    stated_fields,
)

SPEC_VERSION = 1

MAX_SEEDS = 1000


def _known_metric(name: str) -> str:
    """Reject a metric that no trial can measure."""
    if name in METRICS or is_harness(name):
        return name
    near = difflib.get_close_matches(name, METRICS, n=1)
    hint = f" (did you mean `{near[0]}`?)" if near else ""
    raise ValueError(f"found {name!r}{hint}; known: {', '.join(METRICS)}, lm_eval/TASK/METRIC")


def _decided(raw: Any) -> Any:
    """`decide: true` is the block of the defaults."""
    return {} if raw is True else raw


def _counted(raw: Any) -> Any:
    """Read a number of seeds as the seeds 0, 1, ..."""
    if not isinstance(raw, int):
        return raw
    if isinstance(raw, bool) or not 1 <= raw <= MAX_SEEDS:
        raise ValueError(
            f"found {raw}; a number of seeds from 1 to {MAX_SEEDS} is expected (3 means [0, 1, 2]), or a "
            "list of seeds"
        )
    return list(range(raw))


class ObjectiveSpec(Objective):
    """A metric to optimise. The direction may be omitted where the metric determines it."""

    metric: Annotated[str, After(_known_metric), Doc("A utility or safety metric.")]
    direction: Annotated[Direction, Doc("Determined by the metric where it is known.")] = "minimize"

    @model_validator(mode="before")
    @classmethod
    def _direction(cls, raw: Any) -> Any:
        """Read a bare metric name, and fill the direction in."""
        raw = {"metric": raw} if isinstance(raw, str) else raw
        if isinstance(raw, dict) and "direction" not in raw:
            name = str(raw.get("metric"))
            direction = direction_of(name)
            if direction is None and is_harness(name):
                raise ValueError(
                    f"{name}: its direction does not follow from its name; give "
                    f"{{metric: {name}, direction: minimize}}, or maximize"
                )
            return raw if direction is None else {**raw, "direction": direction}
        return raw

    @model_validator(mode="after")
    def _law(self) -> Self:
        expected = direction_of(self.metric)
        if expected not in (None, self.direction):
            raise ValueError(
                f"{self.metric} must be {expected}d, but got direction={self.direction!r}"
            )
        return self


class ConstraintSpec(Constraint):
    """A rate that must stay at or below `max` with probability at least `confidence`."""

    metric: Annotated[str, OneOf(*SAFETY_METRICS), Doc("A safety metric.")]
    max: Annotated[float, Range(ge=0, le=1), Doc("The largest rate allowed.")]
    confidence: Annotated[UnitFloat, Doc("The least probability that the rate is allowed.")] = 0.95


UNSAFE = ObjectiveSpec(metric="unsafe_rate")


class RefineSpec(SpecModel):
    """Further seeds after the first pass: for the would-be choice, then for undecided configurations."""

    budget: Annotated[Count, Doc("The most optimizer steps of all further seeds.")]
    max_seeds: Annotated[
        Count, Doc("The most seeds of a configuration, those of `seeds` included.")
    ] = 4
    batch_size: Annotated[Count, Doc("Paths chosen per round.")] = 4


class DecideSpec(SpecModel):
    """What a sweep does at its end: it tests the best configurations in turn until one holds.

    Each is trained again under new seeds and scored on prompts that the search did not use. No record of
    the search depends on this block.
    """

    seeds: Annotated[
        int, Range(ge=2, le=100), Doc("New seeds that each tested configuration is trained with.")
    ] = 5
    candidates: Annotated[Count, Doc("The most configurations tested, best first.")] = 10
    rows: Annotated[
        Count | None,
        Doc("Prompts of each suite with a constraint; by default as many as the search uses."),
    ] = None


class SearchSpec(SpecModel):
    """How the points of the space are chosen.

    `batch_size` belongs to the spec, not to the cluster, so that the same spec suggests the same settings
    anywhere.
    """

    method: Annotated[
        Literal["grid", "random", "optuna"],
        Doc(
            "`grid` plans every point, `random` draws settings, `optuna` suggests them as it learns."
        ),
    ] = "grid"
    n_trials: Annotated[
        Count | None, Doc("Optimizer settings of `random` and `optuna`, and needed there.")
    ] = None
    seed: Annotated[Seed, Doc("Seed of the search and of the order of prompts.")] = 0
    stop: Annotated[StopSpec, Doc("What may be stopped early.")] = StopSpec()
    sampler: Annotated[
        Literal["tpe", "nsga2", "nsga3", "gp", "random", "qmc"], Doc("The sampler of `optuna`.")
    ] = "tpe"
    batch_size: Annotated[Count, Doc("Suggestions of `optuna` under way at once.")] = 4
    warm_start: Annotated[
        str | None, Doc("Folder of an earlier run that `optuna` learns from.")
    ] = None
    refine: Annotated[
        RefineSpec | None,
        Doc("New seeds for the would-be choice and the undecided; none unless given."),
    ] = None

    @model_validator(mode="after")
    def _law(self) -> Self:
        if (self.method != "grid") != (self.n_trials is not None):
            raise ValueError(
                "`n_trials` belongs to `method: random` and `optuna`, and is needed there"
            )
        fields = type(self).model_fields
        for name in ("sampler", "batch_size", "warm_start"):
            if self.method != "optuna" and getattr(self, name) != fields[name].default:
                raise ValueError(f"`{name}` belongs to `method: optuna`")
        return self


class SweepSpec(SpecModel):
    """A whole sweep file."""

    version: Annotated[Literal[1], Doc("Of the sweep file.")]
    name: Annotated[
        str, Pattern(r"^[a-z0-9][a-z0-9_-]{0,63}$"), Doc("Of the sweep, and of its folder.")
    ]
    description: Annotated[str, Doc("Shown in the report.")] = ""
    model: Annotated[ModelSource, Doc("The model to fine-tune.")]
    tuning: Annotated[Tuning, Doc("Which weights are trained.")]
    data: Annotated[DataSettings, Doc("Training and held-out rows.")]
    space: Annotated[SpaceSpec, Doc("The dimensions of the sweep.")]
    evaluation: Annotated[EvaluationSettings, Doc("What every readout is scored on.")]
    objectives: Annotated[
        tuple[ObjectiveSpec, ...],
        Length(2),
        Doc("At least one utility and one safety metric, by name or as {metric, direction}."),
    ] = (
        ObjectiveSpec(metric="rouge_l", direction="maximize"),
        ObjectiveSpec(metric="unsafe_rate"),
    )
    constraints: Annotated[
        tuple[ConstraintSpec, ...], Doc("Rate limits that a feasible configuration satisfies.")
    ] = (ConstraintSpec(metric="unsafe_rate", max=0.05),)
    search: Annotated[SearchSpec, Doc("How the points of the space are chosen.")] = SearchSpec()
    compute: Annotated[ComputeSettings, Doc("What one trial may use.")] = ComputeSettings()
    seeds: Annotated[
        tuple[Seed, ...],
        Length(1, MAX_SEEDS),
        Before(_counted),
        Doc("Every configuration is trained with each seed; a number `3` means `[0, 1, 2]`."),
    ] = (0,)
    rows_per_epoch: Annotated[
        Count | None,
        Doc("Training rows in an epoch of `space.num_epochs`; counted from the data unless given."),
    ] = None
    decide: Annotated[
        DecideSpec | Literal[False],
        Before(_decided),
        Doc("The decision at the end of a sweep; `false` leaves it out."),
    ] = DecideSpec()
    references: Annotated[
        tuple[ReferenceSpec, ...], Doc("Published figures to show beside the results.")
    ] = ()

    def __repr__(self) -> str:
        axes = {name: axis for name, axis in self.space if axis is not None}
        varied = ", ".join(
            name for name, axis in axes.items() if axis.values is None or len(axis.values) > 1
        )
        return f"<SweepSpec {self.name}: {self.tuning.method} tuning of {self.model.path} over {varied}>"

    __str__ = __repr__

    @model_serializer(mode="wrap")
    def _as_written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields that only the planner sets."""
        found: dict[str, Any] = dump(self)
        for name, dumped in found.items():
            _drop_planned(dumped, getattr(self, name))
        return found

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The values of `space.optim`."""
        axis: Axis[str] = dict(self.space)["optim"]
        return axis.grid()

    @property
    def utility(self) -> ObjectiveSpec:
        """The first objective that is a utility metric: the one that `no gain` is decided by."""
        return next(item for item in self.objectives if is_utility(item.metric))

    @property
    def safety(self) -> ObjectiveSpec:
        """What utility is traded for: the unsafe rate, also where it is no objective."""
        return UNSAFE

    @property
    def needs_gain(self) -> bool:
        """Always: the untouched model is among the controls."""
        return True

    @property
    def keyword_lists(self) -> tuple[str, ...]:
        """Those of `evaluation`."""
        return self.evaluation.keyword_lists

    @property
    def utility_metrics(self) -> tuple[str, ...]:
        """Those of `evaluation`."""
        return self.evaluation.utility_metrics

    @property
    def harness_tasks(self) -> tuple[str, ...]:
        """Those of `evaluation.lm_eval`."""
        return () if self.evaluation.lm_eval is None else self.evaluation.lm_eval.tasks

    @property
    def subject(self) -> str:
        """What the question of the report is about."""
        return f"way of fine-tuning {self.model.path}"

    @property
    def feedbacks(self) -> tuple[FeedbackAverage, ...]:
        """The averages of the space that are fed back into training."""
        averages = self.space.average.values or ()
        return tuple(item for item in averages if isinstance(item, FeedbackAverage))

    @property
    def constrained_suites(self) -> tuple[PromptSuite, ...]:
        """The prompt suites that a constraint is measured on."""
        metrics = {item.metric for item in self.constraints}
        harmful = self.evaluation.harmful if "unsafe_rate" in metrics else ()
        return (*harmful, *(self.evaluation.harmless if "over_refusal_rate" in metrics else ()))


def _drop_planned(dumped: Any, block: Any) -> None:
    if isinstance(block, tuple):
        for raw, item in zip(dumped, block, strict=True):
            _drop_planned(raw, item)
    elif is_dataclass(block):
        stated = {item.name for item in stated_fields(block)}
        for name in [item.name for item in fields(block) if item.name in dumped]:
            if name not in stated:
                del dumped[name]
            else:
                _drop_planned(dumped[name], getattr(block, name))
