"""What reading results needs to know of a run: of a sweep, or of what other tools measured."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import model_validator

from sweeper.metrics import Direction
from sweeper.spec.axes import SpecModel
from sweeper.spec.references import ReferenceSpec
from sweeper.spec.space import FeedbackAverage
from sweeper.task.fields import Count, Doc, Length, Range, Seed, UnitFloat


class Objective(SpecModel):
    """A metric to optimise, by any name."""

    metric: Annotated[str, Doc("Its name in the records.")]
    direction: Annotated[Direction, Doc("Whether less or more of it is better.")] = "minimize"


class Constraint(SpecModel):
    """A rate, by any name, that must stay at or below `max` with probability at least `confidence`."""

    metric: Annotated[str, Doc("Its name in the records.")]
    max: Annotated[float, Range(ge=0, le=1), Doc("The largest rate allowed.")]
    confidence: Annotated[UnitFloat, Doc("The least probability that the rate is allowed.")] = 0.95


class ResultsSpec(Protocol):
    """The question that results answer."""

    @property
    def name(self) -> str:
        """Of the run."""
        ...

    @property
    def description(self) -> str:
        """Shown in the report."""
        ...

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Two or more."""
        ...

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Rate limits of a feasible configuration."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every configuration must have each."""
        ...

    @property
    def references(self) -> tuple[ReferenceSpec, ...]:
        """Published figures to show beside."""
        ...

    @property
    def utility(self) -> Objective:
        """The objective that a gain over the untouched model is shown by."""
        ...

    @property
    def safety(self) -> Objective:
        """The objective that utility is traded for."""
        ...

    @property
    def needs_gain(self) -> bool:
        """Whether a gain over the untouched model must be shown."""
        ...

    @property
    def keyword_lists(self) -> tuple[str, ...]:
        """The refusal lists; the first gives `unsafe_rate`."""
        ...

    @property
    def utility_metrics(self) -> tuple[str, ...]:
        """What was measured on held-out rows, in the order of display."""
        ...

    @property
    def harness_tasks(self) -> tuple[str, ...]:
        """Tasks of lm-evaluation-harness."""
        ...

    @property
    def subject(self) -> str:
        """What the question of the report is about, such as `way of fine-tuning MODEL`."""
        ...

    @property
    def feedbacks(self) -> tuple[FeedbackAverage, ...]:
        """Averages that were fed back into training."""
        ...

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """The same with some fields replaced."""
        ...


class ImportedSpec(SpecModel):
    """The question about a run that was imported: there is nothing to train."""

    version: Annotated[Literal[1], Doc("Of the file.")] = 1
    imported: Annotated[str, Doc("The kind of source that the records are from.")]
    name: Annotated[str, Doc("Of the run.")]
    description: Annotated[str, Doc("Shown in the report.")] = ""
    objectives: Annotated[
        tuple[Objective, ...], Length(2), Doc("Any number; the first is the utility.")
    ]
    constraints: Annotated[tuple[Constraint, ...], Doc("Rate limits.")] = ()
    seeds: Annotated[tuple[Seed, ...], Doc("Every configuration must have each.")] = ()
    metrics: Annotated[tuple[str, ...], Doc("All that was measured.")] = ()
    keyword_lists: Annotated[tuple[str, ...], Doc("Refusal lists that judged responses here.")] = ()
    needs_gain: Annotated[bool, Doc("Whether a gain over the untouched model must be shown.")] = (
        True
    )
    rows: Annotated[Count | None, Doc("Rows read from the source.")] = None
    references: Annotated[tuple[ReferenceSpec, ...], Doc("Published figures.")] = ()

    @model_validator(mode="after")
    def _law(self) -> Self:
        names = [item.metric for item in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"each objective once is expected, but got {', '.join(names)}")
        return self

    @property
    def utility(self) -> Objective:
        """The first objective."""
        return self.objectives[0]

    @property
    def safety(self) -> Objective:
        """The first constrained objective; without one the second objective."""
        limited = {item.metric for item in self.constraints}
        others = self.objectives[1:]
        return next((item for item in others if item.metric in limited), others[0])

    @property
    def utility_metrics(self) -> tuple[str, ...]:
        """Every metric, in the order of the source."""
        return self.metrics

    @property
    def harness_tasks(self) -> tuple[str, ...]:
        """None: what the harness measured elsewhere is a metric like others."""
        return ()

    @property
    def subject(self) -> str:
        """What the question of the report is about."""
        return f"configuration of {self.name}"

    @property
    def feedbacks(self) -> tuple[FeedbackAverage, ...]:
        """None."""
        return ()
