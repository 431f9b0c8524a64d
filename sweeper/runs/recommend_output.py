"""What `sweeper recommend` prints with `--json`: the choice, claims about it, its confirmation."""

from collections.abc import Sequence

from pydantic import Field

from sweeper.analysis import Recommendation, multiplicity
from sweeper.runs.fields import Model, Output, Text
from sweeper.runs.outputs import (
    CandidateModel,
    ControlModel,
    DifferenceModel,
    control_model,
    optional_model,
)
from sweeper.stats import Interval
from sweeper.sweep.confirm import HOLDS, Confirmation, Shrinkage


class PolicyModel(Model):
    """The policy of a recommendation."""

    name: Text
    limit: float | None = Field(description="Limit of the unsafe rate.")
    utility: float | None = Field(description="Utility to reach.")


class ConfirmedModel(Model):
    """One configuration in the search and in the confirmation."""

    name: Text
    config_id: Text
    search: CandidateModel
    confirmation: CandidateModel | None = Field(validation_alias="again")
    unsafe_rate: DifferenceModel | None = Field(
        validation_alias="unsafe", description="Confirmation minus search."
    )
    utility: DifferenceModel | None = Field(description="Under new seeds minus search.")
    verdict: Text


class ConfirmationModel(Model):
    """The result of a confirmation."""

    run: Text = Field(description="The run folder of the confirmation.")
    new_prompts: bool = Field(description="Whether there were unused prompts.")
    seeds: tuple[int, ...]
    notes: tuple[Text, ...]
    confirmed: bool = Field(description="Whether the recommendation holds.")
    configurations: tuple[ConfirmedModel, ...]

    @classmethod
    def of(cls, found: Sequence[Shrinkage], confirmation: Confirmation) -> "ConfirmationModel":
        """From a confirmation, finished or not."""
        return cls(
            run=str(confirmation.folder.root),
            new_prompts=confirmation.new_prompts,
            seeds=confirmation.spec.seeds,
            notes=confirmation.notes,
            confirmed=bool(found) and found[0].verdict == HOLDS,
            configurations=tuple(map(ConfirmedModel.model_validate, found)),
        )


class ClaimModel(Model):
    """One rate of the recommended configuration against its limit."""

    scope: Text = Field(description="`these weights`, or the configuration `trained again`.")
    metric: Text
    limit: float
    confidence: float = Field(description="Required.")
    probability: float = Field(description="Of metric <= limit, corrected for selection.")
    alone: float = Field(description="The same, as if nothing else had been compared.")
    rate: float = Field(description="Corrected for having been chosen.")
    interval: Interval = Field(description="95 %, corrected likewise.")
    holds: bool


class RecommendOutput(Output):
    """`sweeper recommend`: the recommended configuration and what it was compared with."""

    policy: PolicyModel
    chosen: CandidateModel | None
    reason: Text
    compared: int = Field(description="Complete configurations.")
    claims: tuple[ClaimModel, ...] = Field(
        description="What the search measured of the chosen one; none is `trained again` with one seed."
    )
    multiplicity: Text = Field(description="A caveat on selection bias.")
    caveats: tuple[Text, ...] = Field(description="Reasons to doubt the rates.")
    qualified: tuple[Text, ...] = Field(description="Ids, best first.")
    controls: tuple[ControlModel, ...]
    base: CandidateModel | None = Field(description="The untouched model.")
    default: CandidateModel | None = Field(description="The trainers' defaults.")
    without_averaging: CandidateModel | None = Field(description="The control of the chosen one.")
    nearest: CandidateModel | None = Field(description="Given only when nothing is chosen.")
    confirmation: ConfirmationModel | None = Field(None, description="With --confirm.")

    @classmethod
    def of(
        cls, found: Recommendation, confirmation: ConfirmationModel | None = None
    ) -> "RecommendOutput":
        """From a recommendation, and its confirmation if there is one."""
        return cls(
            policy=PolicyModel.model_validate(found.policy),
            chosen=optional_model(CandidateModel, found.chosen),
            reason=found.reason,
            compared=found.compared,
            claims=tuple(map(ClaimModel.model_validate, found.claims)),
            multiplicity=multiplicity(found),
            caveats=found.caveats,
            qualified=tuple(item.config_id for item in found.ranked),
            controls=tuple(map(control_model, found.contrasts)),
            base=optional_model(CandidateModel, found.base),
            default=optional_model(CandidateModel, found.default),
            without_averaging=optional_model(CandidateModel, found.unaveraged),
            nearest=optional_model(CandidateModel, found.nearest),
            confirmation=confirmation,
        )
