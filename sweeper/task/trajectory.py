"""What one trial is asked to do: `TrajectoryTask` and the values it is made of.

Frozen dataclasses on the standard library alone: trials run where the driver's packages are missing. A
task is complete: two workers given the same task and the same files write the same records.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from sweeper.errors import SweeperError
from sweeper.task.stop_rules import StopRules

TASK_VERSION = 1

Item = TypeVar("Item")

AverageKind = Literal["raw", "ema", "interpolate"]


@dataclass(frozen=True, slots=True)
class Average:
    """How weights are read from a path: as they are, as a shadow EMA, or mixed with theta_0.

    `decay` in (0, 1) belongs to `ema`: e <- decay * e + (1 - decay) * theta after each optimizer step,
    e_0 = theta_0. `weight` in [0, 1] belongs to `interpolate`: (1 - weight) * theta + weight * theta_0.
    """

    kind: AverageKind = "raw"
    decay: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if (self.kind == "ema") != (self.decay is not None):
            raise SweeperError(f"`decay` belongs to `ema` alone, but got {self}")
        if (self.kind == "interpolate") != (self.weight is not None):
            raise SweeperError(f"`weight` belongs to `interpolate` alone, but got {self}")

    @property
    def label(self) -> str:
        """The average as people write it: `raw`, `ema(0.99)`, `interpolate(0.5)`."""
        value = self.decay if self.kind == "ema" else self.weight
        return "raw" if value is None else f"{self.kind}({value:.6g})"


@dataclass(frozen=True, slots=True)
class Feedback:
    """Fed-back EMA: after every `every` steps the weights are replaced by their running EMA."""

    decay: float
    every: int


@dataclass(frozen=True, slots=True)
class Readout:
    """One configuration read from a trajectory at `step` (0 = the untouched base model).

    `segment` is the index of the task's segment that `step` lies on.
    """

    config_id: str
    role: str
    segment: int
    step: int
    average: Average
    config: dict[str, Any] = field(compare=False, hash=False)

    def described(self) -> dict[str, Any]:
        """The readout as a record states it."""
        return {
            "step": self.step,
            "kind": self.average.kind,
            "decay": self.average.decay,
            "weight": self.average.weight,
            "label": self.average.label,
        }


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of optimizer steps `start + 1 ... stop` under one schedule.

    The trunk starts at 0. A decay tail of `warmup_stable_decay` branches from the trunk at `start` and
    does not continue it. `total_steps` is the length the schedule believes in, `decay_steps` the length
    of its decay; a trunk's decay begins after its last step.
    """

    start: int
    stop: int
    total_steps: int
    decay_steps: int = 0


@dataclass(frozen=True, slots=True)
class DataSource:
    """Rows of a local file or a hub data set: how its columns are named, and which rows are taken.

    `subset`, `split` and `revision` belong to hub data sets. `rows` takes the first so many, or with
    `sample_seed` a random draw. `suite` names a published suite whose columns are known;
    `prompt_split` keeps the `search` or the `confirm` half of its prompts, divided by hash.
    """

    name: str
    path: str
    format: str = "prompt_completion"
    columns: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)
    rows: int | None = None
    sample_seed: int | None = None
    subset: str | None = None
    split: str | None = None
    revision: str | None = None
    suite: str | None = None
    prompt_split: str = "all"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A local folder or hub id. `name` is what the spec says, `path` what is opened.

    `dtype` is `mixed_bf16` (trained weights in fp32, arithmetic in bf16 by autocast, frozen weights in
    bf16), `float32`, or `pure_bf16`. `attention` is transformers' `attn_implementation`.
    """

    name: str
    path: str
    revision: str | None = None
    dtype: str = "float32"
    attention: str = "sdpa"


ALL_LINEAR = "all-linear"
"""peft's word for every linear layer but the output layer."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Which weights are trained. The other fields are peft's and matter for `lora` only.

    `lora_target_modules` of `("all-linear",)` means every linear layer but the output layer.
    """

    method: Literal["lora", "full"]
    lora_r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    lora_target_modules: tuple[str, ...] = ()
    use_rslora: bool = False
    use_dora: bool = False


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """Everything that changes a gradient step. Names are those of `transformers.TrainingArguments`.

    `batch_size` is the effective batch in rows. `warmup_steps` and `decay_steps` are counted steps
    here: the planner has already resolved ratios.
    """

    learning_rate: float
    batch_size: int
    lr_scheduler_type: str = "constant"
    warmup_steps: int = 0
    decay_steps: int = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a prompt is written: `chat` (the model's own template), `llama2`, `alpaca`; its system prompt."""

    name: str
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """The dialogue of training rows, and that of everything that is scored."""

    train: ChatFormat
    test: ChatFormat


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Training and held-out rows. Without a `heldout` source, `heldout_rows` are split off `train`.

    `filter_safety_rows` leaves out training rows whose completion sounds like safety training.
    """

    train: DataSource
    heldout: DataSource | None
    heldout_rows: int | None
    template: Template
    max_length: int
    overlong_prompts: Literal["error", "drop"] = "error"
    filter_safety_rows: bool = False


@dataclass(frozen=True, slots=True)
class HarnessSettings:
    """Tasks of lm-evaluation-harness to run on every readout; `include_path` holds YAML tasks."""

    tasks: tuple[str, ...]
    include_path: str | None = None
    num_fewshot: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is measured at every readout, and the decoding it is measured with."""

    harmful: tuple[DataSource, ...]
    harmless: tuple[DataSource, ...]
    keyword_lists: tuple[str, ...]
    utility_metrics: tuple[str, ...]
    max_new_tokens: int
    batch_size: int
    stop_generation_early: bool = True
    answer_extractor: str = "none"
    lm_eval: HarnessSettings | None = None


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """How a trial uses its device. `checkpoint_every` and micro-batches never change the result.

    Without progress for `stall_timeout_seconds` it is ended. It has `processes` GPUs, or
    `gpu_share` of one. `keep_weights` leaves the weights of a readout in its storage, beside
    the record.
    """

    device: str = "auto"
    num_threads: int = 1
    micro_batch_size: int | None = None
    deterministic: bool = True
    checkpoint_every: int = 100
    stall_timeout_seconds: float = 3600.0
    logging_steps: int = 10
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    processes: int = 1
    gpu_share: float = 1.0
    keep_weights: bool = False


def equal_parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut into as few parts of at most `size` as possible, of nearly equal length, in order."""
    parts = -(-len(items) // size)
    bounds = [len(items) * i // max(1, parts) for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class TrajectoryTask:
    """One optimizer path and everything that is read from it."""

    trajectory_id: str
    seed: int
    model: ModelSource
    tuning: Tuning
    data: DataSettings
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    compute: ComputeSettings
    objectives: tuple[str, ...]
    segments: tuple[Segment, ...]
    readouts: tuple[Readout, ...]
    stop: StopRules | None = None
    version: int = TASK_VERSION

    def to_json(self) -> str:
        """The task as one JSON document; floats survive bit for bit."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "TrajectoryTask":
        """Read `to_json` back.

        Raises:
            SweeperError: not JSON, another version, or fields this version does not know.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SweeperError(f"the task is not JSON: {error}; use `sweeper plan`") from None
        found = raw.get("version") if isinstance(raw, dict) else None
        if found != TASK_VERSION:
            raise SweeperError(
                f"task version {found!r} is unknown; this sweeper reads {TASK_VERSION}"
            )
        try:
            return _task_of(raw)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise SweeperError(f"the task does not have the expected fields: {error}") from None

    @classmethod
    def read(cls, path: Path) -> "TrajectoryTask":
        """Read a task file; see `from_json` for what it raises."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SweeperError(f"cannot read the task {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SweeperError(f"the task {path} is not UTF-8 text") from None


def _task_of(raw: dict[str, Any]) -> TrajectoryTask:
    if unknown := sorted(set(raw) - {item.name for item in fields(TrajectoryTask)}):
        raise KeyError(*unknown)
    optimizer = dict(raw["optimizer"])
    feedback = optimizer.pop("feedback", None)
    data = dict(raw["data"], train=DataSource(**raw["data"]["train"]))
    data["heldout"] = None if data["heldout"] is None else DataSource(**data["heldout"])
    data["template"] = Template(
        **{side: ChatFormat(**dialogue) for side, dialogue in data["template"].items()}
    )
    evaluation = dict(raw["evaluation"])
    for name in ("harmful", "harmless"):
        evaluation[name] = tuple(DataSource(**source) for source in evaluation[name])
    for name in ("keyword_lists", "utility_metrics"):
        evaluation[name] = tuple(evaluation[name])
    if (harness := evaluation["lm_eval"]) is not None:
        evaluation["lm_eval"] = HarnessSettings(**{**harness, "tasks": tuple(harness["tasks"])})
    tuning = dict(raw["tuning"])
    tuning["lora_target_modules"] = tuple(tuning["lora_target_modules"])
    readouts = [dict(row, average=Average(**row["average"])) for row in raw["readouts"]]
    return TrajectoryTask(
        **{name: raw[name] for name in ("trajectory_id", "seed", "version")},
        model=ModelSource(**raw["model"]),
        tuning=Tuning(**tuning),
        data=DataSettings(**data),
        optimizer=OptimizerSettings(**optimizer, feedback=feedback and Feedback(**feedback)),
        evaluation=EvaluationSettings(**evaluation),
        compute=ComputeSettings(**raw["compute"]),
        objectives=tuple(raw["objectives"]),
        segments=tuple(Segment(**row) for row in raw["segments"]),
        readouts=tuple(Readout(**row) for row in readouts),
        stop=StopRules.of(raw.get("stop")),
    )
