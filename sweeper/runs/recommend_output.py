"""What `sweeper recommend` prints with `--json`: the choice, claims about it, the decision."""

from pydantic import Field

from sweeper.analysis import Recommendation, multiplicity
from sweeper.analysis.decision import Decision
from sweeper.runs.decision_outputs import DecisionModel
from sweeper.runs.fields import Model, Output, Text
from sweeper.runs.outputs import (
    CandidateModel,
    ControlModel,
    control_model,
    optional_model,
)
from sweeper.stats import Interval


class PolicyModel(Model):
    """The policy of a recommendation."""

    name: Text
    limit: float | None = Field(description="Limit of the unsafe rate.")
    utility: float | None = Field(description="Utility to reach.")


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
    caveats: tuple[Text, ...] = Field(description="Reasons to doubt it.")
    qualified: tuple[Text, ...] = Field(description="Ids, best first.")
    controls: tuple[ControlModel, ...]
    base: CandidateModel | None = Field(description="The untouched model.")
    default: CandidateModel | None = Field(description="The trainers' defaults.")
    without_averaging: CandidateModel | None = Field(description="The control of the chosen one.")
    nearest: CandidateModel | None = Field(description="Given only when nothing is chosen.")
    decision: DecisionModel | None = Field(None, description="Null where none has begun.")

    @classmethod
    def of(
        cls, found: Recommendation, decision: Decision | None, caveats: tuple[str, ...]
    ) -> "RecommendOutput":
        """From a recommendation, the decision if there is one, and reasons to doubt it."""
        return cls(
            policy=PolicyModel.model_validate(found.policy),
            chosen=optional_model(CandidateModel, found.chosen),
            reason=found.reason,
            compared=found.compared,
            claims=tuple(map(ClaimModel.model_validate, found.claims)),
            multiplicity=multiplicity(found),
            caveats=caveats,
            qualified=tuple(item.config_id for item in found.ranked),
            controls=tuple(map(control_model, found.contrasts)),
            base=optional_model(CandidateModel, found.base),
            default=optional_model(CandidateModel, found.default),
            without_averaging=optional_model(CandidateModel, found.unaveraged),
            nearest=optional_model(CandidateModel, found.nearest),
            decision=None if decision is None else DecisionModel.of(decision),
        )
