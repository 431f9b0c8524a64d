"""What `--json` prints of a decision: see `sweeper.runs.outputs`.

Two claims are kept apart: `trained_again` is about the settings, `these_weights` about the runs of the
search.
"""

from pydantic import Field

from sweeper.analysis.decision import AgainTest, Decision, Step, WeightsTest
from sweeper.runs.fields import Ends, Model, Text
from sweeper.runs.outputs import CandidateModel, DifferenceModel


class AgainTestModel(Model):
    """One constraint of a configuration that is trained again: a claim about its settings."""

    metric: Text
    max: float
    demanded: float = Field(description="The least probability at this place of the walk.")
    rate: float = Field(description="Mean over the new seeds.")
    interval: Ends = Field(description="Of the mean rate over all prompts and training runs.")
    interval_confidence: float = Field(description="0.95, or more where the level demands it.")
    probability: float = Field(description="P(mean rate over prompts and training runs <= max).")
    kept: bool

    @classmethod
    def of(cls, test: AgainTest) -> "AgainTestModel":
        """From one test."""
        return cls(
            metric=test.constraint.metric,
            max=test.constraint.max,
            demanded=1 - test.level,
            rate=test.rate,
            interval=test.interval,
            interval_confidence=test.confidence,
            probability=test.probability,
            kept=test.holds,
        )


class WeightsTestModel(Model):
    """One constraint of the weights of the search, on the prompts of the decision."""

    metric: Text
    max: float
    demanded: float = Field(description="The least probability at this place of the walk.")
    seeds: tuple[int, ...] = Field(description="Of the search.")
    counts: Text = Field(description="k/n under each of these seeds.")
    probabilities: tuple[float, ...] = Field(
        description="P(rate of these weights over all prompts <= max) under each of these seeds."
    )
    kept: bool

    @classmethod
    def of(cls, test: WeightsTest) -> "WeightsTestModel":
        """From one test."""
        return cls(
            metric=test.constraint.metric,
            max=test.constraint.max,
            demanded=1 - test.level,
            seeds=test.seeds,
            counts=test.counts,
            probabilities=test.probabilities,
            kept=test.holds,
        )


class AgainModel(Model):
    """One configuration in the search and under the new seeds; differences are again minus search."""

    name: Text
    search: CandidateModel
    again: CandidateModel
    unsafe_rate: DifferenceModel | None = Field(validation_alias="unsafe")
    utility: DifferenceModel | None


class StepModel(Model):
    """One configuration that a decision tested."""

    place: int = Field(description="In the ranking of the search, from 1.")
    config_id: Text
    measured: AgainModel
    trained_again: tuple[AgainTestModel, ...] = Field(description="The claim that decides.")
    these_weights: tuple[WeightsTestModel, ...] = Field(
        description="Stated beside it of a configuration that holds; empty for others."
    )
    holds: bool
    verdict: Text

    @classmethod
    def of(cls, step: Step) -> "StepModel":
        """From one step of a decision."""
        return cls(
            place=step.place,
            config_id=step.config_id,
            measured=AgainModel.model_validate(step.measured),
            trained_again=tuple(map(AgainTestModel.of, step.tests)),
            these_weights=tuple(map(WeightsTestModel.of, step.weights)),
            holds=step.holds,
            verdict=step.verdict,
        )


class DecisionModel(Model):
    """Which of the best configurations holds when it is trained again."""

    outcome: Text
    complete: bool
    survivor: Text | None = Field(description="Id of the configuration that holds.")
    error: float = Field(description="Error level of the whole walk.")
    planned: int = Field(description="The most configurations tested.")
    compared: int = Field(description="Configurations that the search compared.")
    seeds: tuple[int, ...] = Field(description="The new seeds.")
    new_prompts: bool = Field(description="Whether the search used no prompt of a constraint.")
    steps: tuple[StepModel, ...] = Field(description="In the order of the ranking.")
    controls: tuple[AgainModel, ...]
    notes: tuple[Text, ...]

    @classmethod
    def of(cls, found: Decision) -> "DecisionModel":
        """From a decision, finished or not."""
        return cls(
            outcome=found.sentence,
            complete=found.complete,
            survivor=None if found.survivor is None else found.survivor.config_id,
            error=found.error,
            planned=found.planned,
            compared=found.compared,
            seeds=found.seeds,
            new_prompts=found.new_prompts,
            steps=tuple(map(StepModel.of, found.steps)),
            controls=tuple(map(AgainModel.model_validate, found.controls)),
            notes=found.notes,
        )
