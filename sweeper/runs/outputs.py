"""What `--json` prints of results, as models from which the JSON schema is generated.

The Python API gives the same data: `Run.front().to_dict()` equals what `sweeper front RUN --json` prints.
Numbers that were not measured are null or absent, never zero. Rates and probabilities are in [0, 1], times
in seconds, sizes in bytes, intervals at 95 % unless a field says otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import Field

from sweeper.analysis import (
    Candidate,
    Certainty,
    Claim,
    Comparison,
    Contrast,
    Front,
    FrontMembership,
    PairedDifference,
    metric_names,
    reason_text,
)
from sweeper.metrics import is_sampled
from sweeper.runs.fields import Ends, Model, Number, Output, Part, Text, Values
from sweeper.spec import ResultsSpec
from sweeper.stats import Interval, wilson_interval
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric


class DiscordantModel(Model):
    """Prompts on which two configurations differ under one seed."""

    first: int = Field(description="Prompts on which only the first is counted.")
    second: int = Field(description="Prompts on which only the second is counted.")
    n: int = Field(description="Prompts compared.")


class DifferenceModel(Model):
    """The difference of two configurations in one metric: first minus second."""

    metric: Text
    first: Number = Field(description="Mean of the first over its seeds.")
    second: Number = Field(description="Mean of the second over its seeds.")
    difference: Number
    interval: Ends | None = Field(description="Null where only two values are known.")
    claim: Claim = Field(
        description="`these weights`: only prompts vary, as one was trained under a single seed; "
        "`trained again`: training runs vary, too."
    )
    paired: bool = Field(description="Whether the same prompts or rows were compared one by one.")
    n: int | None = Field(description="Prompts or rows compared; null where unknown.")
    discordant: tuple[DiscordantModel, ...] = Field(description="One entry per seed; of rates.")
    p_value: float | None = Field(
        description="Two-sided, of rates: McNemar's exact test of these weights, Student's t over prompts "
        "and seeds of configurations trained again; null for other metrics."
    )


class CandidateModel(Model):
    """One configuration over its seeds."""

    config_id: Text
    role: Text = Field(description="`candidate`, or which control.")
    config: Values = Field(description="Every hyperparameter.")
    metrics: Values = Field(
        validation_alias="values", description="Means over seeds of what every seed measured."
    )
    probabilities: tuple[float, ...] = Field(
        description="P(rate <= max) of each constraint, in the order of the sweep file."
    )


class MembershipModel(Model):
    """How likely a configuration is on the front."""

    on_front: bool = Field(description="By the point estimates.")
    p_front: float = Field(
        description="Lower bound of the probability of being on the front: no other one dominates it."
    )
    p_front_upper: float = Field(
        description="Upper bound: the one that most probably dominates it does not."
    )
    claim: Claim = Field(
        description="What both are about: the weights measured, with one seed of every configuration, or "
        "the configuration, trained again."
    )
    p_feasible: float = Field(description="Smallest P(rate <= max) over constraints and seeds.")
    front_membership: Literal["on", "uncertain", "off"] = Field(validation_alias="label")


class SeedModel(Model):
    """One metric under one seed."""

    seed: int
    value: Number
    k: int | None = Field(description="Of a rate: the prompts counted.")
    n: int | None = Field(description="Prompts, rows or tokens; null where unknown.")
    unanswered: int | None = Field(description="Of k: no answer of the judge; null without one.")
    interval: Ends | None = Field(description="Wilson's; null for what is no mean over rows.")


class MetricModel(Model):
    """One metric of a configuration."""

    value: Number = Field(description="Mean over seeds.")
    interval: Ends | None = Field(description="Envelope of the seeds' intervals.")
    seeds: tuple[SeedModel, ...]


class FrontEntry(MembershipModel):
    """One configuration of the front."""

    config_id: Text
    config: Values = Field(description="Every hyperparameter.")
    metrics: Values = Field(description="Means over seeds.")


class CountsModel(Model):
    """How many configurations have which front membership."""

    on: int
    uncertain: int
    off: int


class VolumeModel(Model):
    """Hypervolume of the members of the front."""

    value: float
    interval: Ends = Field(description="The middle 95 % of the Monte Carlo draws.")
    reference: dict[str, float] = Field(description="The reference point by metric.")


class FrontOutput(Output):
    """`sweeper front`: the Pareto front and how certain it is."""

    members: tuple[FrontEntry, ...] = Field(description="On the front by estimates, best first.")
    others: tuple[FrontEntry, ...] = Field(
        description="Not on it by their estimates, but not off with confidence; most probable first."
    )
    claim: Claim = Field(description="What every P(on front) is about; see the entries.")
    membership_counts: CountsModel
    draws: int = Field(description="Monte Carlo draws.")
    hypervolume: VolumeModel | None
    notes: tuple[Text, ...]

    @classmethod
    def of(cls, front: Front, certainty: Certainty) -> "FrontOutput":
        """From a front."""
        counts = {name: certainty.count(name) for name in ("on", "uncertain", "off")}
        return cls(
            members=tuple(_entry(item, certainty) for item in front.members),
            others=tuple(_entry(item, certainty) for item in uncertain_others(front, certainty)),
            claim=certainty.claim,
            membership_counts=CountsModel(**counts),
            draws=certainty.draws,
            hypervolume=optional_model(VolumeModel, certainty.hypervolume),
            notes=certainty.notes,
        )


def uncertain_others(front: Front, certainty: Certainty) -> list[Candidate]:
    """Those not on the front by their estimates, but not off with confidence; most probable first."""
    places = certainty.memberships
    others = [
        item
        for item in front.competing
        if not places[item.config_id].on_front and places[item.config_id].label != "off"
    ]
    return sorted(others, key=lambda item: (-places[item.config_id].p_front, item.config_id))


class ConstraintModel(Model):
    """Whether a configuration satisfies a constraint."""

    metric: Text
    max: float
    confidence: float = Field(description="Required by the sweep file.")
    probability: float | None = Field(
        description="P(rate <= max), the smallest over seeds; null where a seed did not measure it."
    )
    kept: bool


class ControlModel(Model):
    """A configuration compared with one of its controls: configuration minus control."""

    name: Text = Field(description="Which control.")
    config_id: Text = Field(description="Of the control.")
    unsafe_rate: DifferenceModel | None
    utility: DifferenceModel | None


class ReasonModel(Model):
    """Why a record is not complete."""

    seed: int
    status: Text
    reason: Text


class ResponsesModel(Model):
    """Where the responses under one seed are."""

    seed: int
    path: Text
    exists: bool


class ShowOutput(Output):
    """`sweeper show`: one configuration."""

    config_id: Text
    role: Text = Field(description="`candidate`, or which control.")
    status: Text = Field(description="`complete`, or the first status that is not.")
    excluded: Text | None = Field(description="Why it cannot be on the front.")
    seeds: tuple[int, ...] = Field(description="Seeds with a record.")
    config: Values = Field(description="Every hyperparameter.")
    readout: Values = Field(description="Step and average at which the weights were read.")
    metrics: dict[Text, MetricModel]
    front: MembershipModel | None
    constraints: tuple[ConstraintModel, ...]
    gain: bool | None = Field(description="False: not above the base model; null: unknown.")
    gain_evidence: Text
    controls: tuple[ControlModel, ...]
    reasons: tuple[ReasonModel, ...] = Field(description="Of records that are not complete.")
    responses: tuple[ResponsesModel, ...]

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        membership: FrontMembership | None,
        contrasts: Sequence[Contrast],
        folder: RunFolder,
        spec: ResultsSpec,
    ) -> "ShowOutput":
        """From one configuration of a run."""
        return cls(
            config_id=candidate.config_id,
            role=candidate.role,
            status=candidate.status,
            excluded=candidate.excluded,
            seeds=candidate.seeds,
            config=dict(candidate.config),
            readout=dict(candidate.readout),
            metrics={name: _metric(candidate, name) for name in metric_names([candidate], spec)},
            front=optional_model(MembershipModel, membership),
            constraints=tuple(_constraints(candidate, spec)),
            gain=candidate.gain,
            gain_evidence=candidate.gain_evidence,
            controls=tuple(map(control_model, contrasts)),
            reasons=tuple(
                ReasonModel(seed=r.seed, status=r.status, reason=reason_text(r))
                for r in candidate.records
                if r.status != "complete"
            ),
            responses=tuple(_responses(candidate, folder)),
        )


class ComparedModel(Model):
    """One of the compared configurations."""

    config_id: Text
    role: Text
    status: Text
    config: Values
    metrics: dict[Text, MetricModel]
    front: MembershipModel | None


class TestModel(Model):
    """One of the others minus the first."""

    config_id: Text
    against: Text = Field(description="The id of the first.")
    metrics: dict[Text, DifferenceModel | None]


class CompareOutput(Output):
    """`sweeper compare`: configurations side by side."""

    configurations: tuple[ComparedModel, ...] = Field(description="In the order they were named.")
    differing: tuple[Text, ...] = Field(description="Hyperparameters that are not all equal.")
    tests: tuple[TestModel, ...]
    notes: tuple[Text, ...]

    @classmethod
    def of(cls, found: Comparison, certainty: Certainty) -> "CompareOutput":
        """From a comparison."""
        names = [measured.metric for measured in found.metrics]
        first, *others = found.items
        return cls(
            configurations=tuple(
                ComparedModel(
                    config_id=item.config_id,
                    role=item.role,
                    status=item.status,
                    config=dict(item.config),
                    metrics={name: _metric(item, name) for name in names},
                    front=optional_model(
                        MembershipModel, certainty.memberships.get(item.config_id)
                    ),
                )
                for item in found.items
            ),
            differing=tuple(setting.name for setting in found.settings if setting.differs),
            tests=tuple(
                TestModel(
                    config_id=other.config_id,
                    against=first.config_id,
                    metrics={
                        m.metric: difference_model(m.differences[index]) for m in found.metrics
                    },
                )
                for index, other in enumerate(others)
            ),
            notes=found.notes,
        )


def optional_model(model: type[Part], value: object) -> Part | None:
    """A value as a model; None stays None."""
    return None if value is None else model.model_validate(value)


def difference_model(found: PairedDifference | None) -> DifferenceModel | None:
    """A paired difference, if there is one."""
    return optional_model(DifferenceModel, found)


def _entry(candidate: Candidate, certainty: Certainty) -> FrontEntry:
    place = certainty.memberships[candidate.config_id]
    return FrontEntry(
        config_id=candidate.config_id,
        config=dict(candidate.config),
        metrics=dict(candidate.values),
        **MembershipModel.model_validate(place).model_dump(),
    )


def control_model(found: Contrast) -> ControlModel:
    """A configuration minus one of its controls."""
    return ControlModel(
        name=found.name,
        config_id=found.other.config_id,
        unsafe_rate=difference_model(found.unsafe),
        utility=difference_model(found.utility),
    )


def _constraints(candidate: Candidate, spec: ResultsSpec) -> Iterable[ConstraintModel]:
    for constraint, p in zip(spec.constraints, candidate.probabilities, strict=True):
        yield ConstraintModel(
            metric=constraint.metric,
            max=constraint.max,
            confidence=constraint.confidence,
            probability=p if constraint.metric in candidate.values else None,
            kept=p >= constraint.confidence,
        )


def _responses(candidate: Candidate, folder: RunFolder) -> Iterable[ResponsesModel]:
    for record in candidate.records:
        path = folder.trial(record.trajectory_id).generations(record.config_id, record.seed)
        yield ResponsesModel(seed=record.seed, path=str(path), exists=path.exists())


def _metric(candidate: Candidate, name: str) -> MetricModel:
    """Mean and interval over seeds, and the values of each seed."""
    return MetricModel(
        value=candidate.values.get(name),
        interval=candidate.interval(name) if name in candidate.values else None,
        seeds=tuple(
            SeedModel(
                seed=record.seed,
                **asdict(metric),
                unanswered=record.unanswered(name),
                interval=seed_interval(name, metric),
            )
            for record in candidate.records
            if (metric := record.metrics.get(name)) is not None
        ),
    )


def seed_interval(name: str, metric: Metric) -> Interval | None:
    """Wilson's interval under one seed, for a mean over independent prompts or rows."""
    if metric.n is None or not is_sampled(name, counted=metric.k is not None):
        return None
    return wilson_interval(metric.value * metric.n if metric.k is None else metric.k, metric.n)
