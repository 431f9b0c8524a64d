"""The `--json` output of commands about plans, judges and the machine, and all JSON schemas."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter

from sweeper.keywords.evaluation import Evaluation
from sweeper.runs.fields import Ends, Model, Output, Text, Values, encodable
from sweeper.runs.listing import RunLine
from sweeper.runs.outputs import CompareOutput, FrontOutput, ShowOutput
from sweeper.runs.recommend_output import RecommendOutput
from sweeper.runs.status import RunStatus


class RunModel(Model):
    """One run of a folder; unknown fields of an unreadable run are null."""

    path: Annotated[str, BeforeValidator(lambda path: encodable(str(path)))]
    name: Text | None = Field(description="Name of the sweep.")
    state: Literal["running", "finished", "stopped", "unreadable"]
    records: int | None = Field(description="Written so far.")
    planned: int | None = Field(description="By the plan, without further seeds.")
    failed: int | None = Field(description="Failed records.")
    front: int | None = Field(description="Configurations on it, by their estimates.")
    recommended: Text | None = Field(description="The id.")
    best: dict[str, float] = Field(description="Its objectives by metric.")
    written: str | None = Field(description="When records last changed: UTC, ISO 8601.")
    size_bytes: int = Field(description="Of all files.")
    problem: Text | None = Field(description="Why the run cannot be read.")


class LsOutput(Output):
    """`sweeper ls`: the runs of a folder."""

    folder: Text
    runs: tuple[RunModel, ...]

    @classmethod
    def of(cls, found: Iterable[RunLine], root: Path) -> "LsOutput":
        """From a listing."""
        return cls(folder=str(root), runs=tuple(map(RunModel.model_validate, found)))


class CountsModel(Model):
    """Records of a part of a run."""

    records: int = Field(description="Written so far.")
    planned: int
    failed: int = Field(description="Among those written.")


class TrialModel(Model):
    """A running trial."""

    trial: Text = Field(description="The id of its trajectory.")
    name: Text = Field(description="Its settings in words.")
    stage: Text
    step: int = Field(description="Optimizer steps done.")
    steps: int = Field(description="Of these.")
    silent_seconds: float = Field(description="Since its last update.")


class StatusOutput(Output):
    """`sweeper status`: what a run is doing."""

    path: Annotated[str, BeforeValidator(lambda path: encodable(str(path)))]
    state: Literal["running", "finished", "stopped"]
    left: Text = Field(description="What a stopped run goes on with if resumed; else empty.")
    process: int | None = Field(description="Of the driver; null without one.")
    host: Text | None = Field(description="Of the driver.")
    search: CountsModel
    decision: CountsModel | None = Field(description="Null before it begins.")
    seconds_left: float | None = Field(description="Null while nothing is known.")
    worker_seconds: float | None = Field(description="Of the search so far, while it runs.")
    estimated_worker_seconds: float | None = Field(description="Of the whole search.")
    trials: tuple[TrialModel, ...]

    @classmethod
    def of(cls, found: RunStatus) -> "StatusOutput":
        """From a status."""
        cost = found.cost
        return cls(
            path=str(found.path),
            state=found.state,  # type: ignore[arg-type]  # Validated.
            left=found.left,
            process=found.process,
            host=found.host,
            search=CountsModel.model_validate(found.search),
            decision=None if found.decision is None else CountsModel.model_validate(found.decision),
            seconds_left=found.seconds_left,
            worker_seconds=None if cost is None else cost.seconds,
            estimated_worker_seconds=None if cost is None else cost.estimated_seconds,
            trials=tuple(map(TrialModel.model_validate, found.trials)),
        )


class JudgedRate(Model):
    """How much of a run a judge has judged, for one rate."""

    judge: Text
    about: Text = Field(description="Configuration of the judge.")
    digest: Text = Field(description="Hash of everything its verdicts depend on.")
    rate: Text = Field(description="The metric it gives.")
    responses: int = Field(description="Of the run.")
    judged: int = Field(description="Of the responses.")
    coverage: float = Field(description="Judged / responses.")
    cut: int = Field(description="Responses cut short, which are not judged.")
    same: int = Field(description="Verdicts that agree with the keyword list.")


class JudgesOutput(Output):
    """`sweeper rescore` without `--judge`: the judges of the run."""

    judges: tuple[JudgedRate, ...]


class JudgedConfiguration(Model):
    """One configuration under one seed, by the keyword list and by the judge."""

    config_id: Text
    seed: int
    rate: Text = Field(description="The metric.")
    list_k: int | None = Field(description="Counted by the keyword list.")
    list_n: int | None = Field(description="Prompts of the keyword list's rate.")
    k: int = Field(description="Counted by the judge: its yes answers, and what it did not answer.")
    n: int = Field(description="Prompts.")
    unanswered: int = Field(description="Of k: without an answer.")
    coverage: float = Field(description="Answered / prompts.")
    cut: int = Field(description="Of the unanswered: responses cut short, which are not judged.")
    same: int = Field(description="Verdicts that agree with the keyword list.")


class RescoreOutput(Output):
    """`sweeper rescore --judge`: the judge's rates of every configuration."""

    judge: Text
    digest: Text = Field(description="Hash of everything its verdicts depend on.")
    configurations: tuple[JudgedConfiguration, ...]


class TokensModel(Model):
    """Token counts of the data."""

    per_row: float = Field(description="Mean of a training row.")
    longest_row: float
    prompts: int = Field(description="Of all suites.")
    prompt_tokens: float = Field(description="Mean of a prompt.")
    longest_prompt: float
    generated: float = Field(description="Of a response.")
    heldout_tokens: float
    source: Text = Field(description="How they were determined.")
    rows: dict[str, int] | None


class EstimateModel(Model):
    """The cost of a sweep."""

    source: Text = Field(description="`analytic`, or measured.")
    device: Text = Field(description="Of a trial.")
    workers: int = Field(description="Trials at once.")
    wall_seconds: float
    worker_seconds: float = Field(description="Of all workers together.")
    train_seconds: float
    evaluate_seconds: float
    load_seconds: float
    startup_seconds: float
    gpu_hours: float
    cpu_core_hours: float
    peak_memory_bytes: int = Field(description="Of a trial.")
    measured_memory_bytes: int | None = Field(description="With --calibrate.")
    memory: dict[str, Any] = Field(description="Bytes by part.")
    rates: dict[str, Any] = Field(description="Seconds per token, step, readout and start.")
    tokens: TokensModel


class DiskModel(Model):
    """Disk a run needs at its fullest moment."""

    total_bytes: int
    checkpoints: int = Field(description="Of the trajectories that run at once.")
    weights: int = Field(description="That compute.keep_weights keeps.")
    responses: int
    records: int
    other: int = Field(description="Training curves and Ray's own files.")
    free_bytes: int | None = Field(description="Where runs are written.")


class PlannedConfiguration(Model):
    """One configuration read from a trajectory."""

    config_id: Text
    role: Text
    config: Values = Field(validation_alias="values")


class TrajectoryModel(Model):
    """One training run."""

    trajectory_id: Text
    seed: int
    optimizer_steps: int = Field(validation_alias="steps")
    configurations: tuple[PlannedConfiguration, ...]


class WalkCostModel(Model):
    """What a walk of a decision costs, beside the search."""

    steps: int = Field(description="Optimizer steps.")
    readouts: int
    seconds: float | None = Field(description="Null without an estimate.")


class DecisionCostModel(Model):
    """What the decision at the end costs."""

    first: WalkCostModel = Field(description="If the best configuration holds.")
    longest: WalkCostModel = Field(description="If only the last of `decide.candidates` does.")


class StartModel(Model):
    """A pack of trajectories that train together, in the order of their start."""

    begins_seconds: float = Field(description="After the start of the run.")
    ends_seconds: float
    completed: bool = Field(description="False where the budget stops it.")
    trajectory_ids: tuple[Text, ...]


class ReserveModel(Model):
    """What a budget keeps back for the decision."""

    worker_seconds: float = Field(description="Of all trials together.")
    wall_seconds: float = Field(description="On the clock.")
    start_seconds: float = Field(description="The start of a worker, beside both.")


class BudgetEndModel(Model):
    """What a budget leaves undone."""

    stage: Literal["search", "decision"]
    paths: int = Field(description="Trajectories not trained to their end.")
    worker_seconds: float = Field(description="Of trials, that they need.")
    next_paths: int = Field(description="Of these: trained by another hour.")
    next_settings: Text = Field(description="What varies among those.")


class BudgetModel(Model):
    """The search under `compute.budget`, by the estimate."""

    order: tuple[StartModel, ...]
    reserve: ReserveModel
    left: BudgetEndModel | None = Field(description="Null where all of it fits.")


class PlanOutput(Output):
    """`sweeper plan`: what a sweep trains and what it costs."""

    configurations: int = Field(description="Of the space.")
    controls: int
    trajectories: int = Field(description="To train.")
    readouts: int = Field(description="To score.")
    steps_alone: int = Field(description="Optimizer steps if every configuration trained alone.")
    steps_planned: int = Field(description="Optimizer steps planned, controls included.")
    ratio: float
    notes: tuple[Text, ...]
    rows: dict[str, int] | None = Field(description="Null where the data cannot be read.")
    unread: tuple[Text, ...] = Field(description="Sources with data files that are not read.")
    estimate: EstimateModel | None
    estimate_missing: Text | None = Field(description="Why there is no estimate.")
    decision: DecisionCostModel | None = Field(description="Null where nothing is decided.")
    budget: BudgetModel | None = Field(description="Null without `compute.budget`.")
    disk: DiskModel | None
    trajectory_list: tuple[TrajectoryModel, ...]


class InitOutput(Output):
    """`sweeper init`: the sweep file it wrote, and the plan of its sweep."""

    path: Text
    notes: tuple[Text, ...] = Field(description="What to know about its choices.")
    plan: PlanOutput


class FetchedModel(Model):
    """One item that is now on this machine."""

    what: Text
    name: Text
    place: Text
    commit: str | None = Field(description="On the hub.")
    sha256: str | None = Field(description="Of a local file or folder.")
    size_bytes: int


class LogModel(Model):
    """`sweeper logs`: one event of a trial, one JSON object per line; further fields are the event's."""

    model_config = ConfigDict(extra="allow")

    time: float = Field(description="Seconds since 1970.")
    trial: Text = Field(description="The trajectory id.")
    event: Text


class PrefetchOutput(Output):
    """`sweeper prefetch`: what was fetched and checked."""

    items: tuple[FetchedModel, ...]
    rows: dict[str, int] = Field(description="To train on, held out and left out.")
    unread: tuple[Text, ...] = Field(description="Sources with data files that are not read.")
    run: Text = Field(description="The command for a node without a network.")


class CheckModel(Model):
    """One check."""

    name: Text
    state: Literal["ok", "note", "problem"]
    found: Text
    expected: Text
    remedy: Text


class NodeModel(Model):
    """A node of a cluster; `problems` are differences that matter."""

    name: Text
    cpus: float
    gpus: float
    python: Text
    packages: dict[Text, Text | None]
    folder: Text
    inputs: dict[Text, Text]
    problems: tuple[Text, ...]
    notes: tuple[Text, ...]


class DoctorOutput(Output):
    """`sweeper doctor`: whether this machine, and every node of a cluster, can run a sweep."""

    ok: bool
    checks: tuple[CheckModel, ...]
    nodes: tuple[NodeModel, ...] = ()


class LeftoverModel(Model):
    """Something that can be deleted."""

    what: Text
    files: int
    size_bytes: int
    lost: Text = Field(description="What is lost with it.")


class CleanOutput(Output):
    """`sweeper clean`: the files that can be, or were, deleted."""

    deleted: bool
    items: tuple[LeftoverModel, ...]
    size_bytes: int


class AgreementModel(Model):
    """One keyword list compared with people's labels."""

    name: Text
    agreement: float | None
    agreement_interval: Ends | None
    false_refusals: int = Field(description="Compliances that the list calls refusals.")
    false_refusal_rate: float | None
    false_refusal_interval: Ends | None
    missed_refusals: int = Field(description="Refusals that the list does not find.")
    missed_refusal_rate: float | None
    missed_refusal_interval: Ends | None
    n: int
    compliances: int
    refusals: int
    empty: int = Field(description="Completions counted apart: empty.")
    degenerate: int = Field(description="Completions counted apart: repetitive.")


class CalibrateOutput(Output):
    """`sweeper judges calibrate`: keyword lists compared with people's labels."""

    lists: tuple[AgreementModel, ...]

    @classmethod
    def of(cls, found: Evaluation) -> "CalibrateOutput":
        """Of keyword lists compared with people's labels."""
        return cls(
            lists=tuple(
                AgreementModel(
                    name=item.name,
                    agreement=item.agreement.rate,
                    agreement_interval=item.agreement.interval,
                    false_refusals=item.false_refusals.k,
                    false_refusal_rate=item.false_refusals.rate,
                    false_refusal_interval=item.false_refusals.interval,
                    missed_refusals=item.missed_refusals.k,
                    missed_refusal_rate=item.missed_refusals.rate,
                    missed_refusal_interval=item.missed_refusals.interval,
                    n=item.agreement.n,
                    compliances=item.false_refusals.n,
                    refusals=item.missed_refusals.n,
                    empty=found.empty,
                    degenerate=found.degenerate,
                )
                for item in found.lists
            )
        )


OUTPUTS: Mapping[str, Any] = {
    "clean": CleanOutput,
    "compare": CompareOutput,
    "doctor": DoctorOutput,
    "front": FrontOutput,
    "init": InitOutput,
    "judges calibrate": CalibrateOutput,
    "logs": LogModel,
    "ls": LsOutput,
    "plan": PlanOutput,
    "prefetch": PrefetchOutput,
    "recommend": RecommendOutput,
    "rescore": RescoreOutput | JudgesOutput,
    "show": ShowOutput,
    "status": StatusOutput,
}
"""Command -> the model of what its `--json` prints."""


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of every command's `--json`, by command as it is typed (`judges calibrate`)."""
    return {
        name: TypeAdapter(model).json_schema(mode="serialization")
        for name, model in OUTPUTS.items()
    }
