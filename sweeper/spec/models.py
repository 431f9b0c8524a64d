"""The sweep file, version 1, as frozen pydantic models. Field names are those of their consumers."""

import difflib
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sweeper.metrics import (
    METRICS,
    SAFETY_METRICS,
    UTILITY_METRICS,
    Direction,
    direction_of,
    is_harness,
    is_utility,
)
from sweeper.spec.axes import Axis, SpecModel
from sweeper.spec.data import DataSpec, Suites
from sweeper.spec.fields import (
    Count,
    Dropout,
    MirrorUrl,
    NonNegative,
    Number,
    Positive,
    Seed,
    Share,
    Steps,
    listed,
    whole_or_share,
)
from sweeper.spec.references import ReferenceSpec
from sweeper.spec.stop import StopSpec

SPEC_VERSION = 1


class RawAverage(SpecModel):
    """The weights as the optimizer left them."""

    kind: Literal["raw"] = "raw"

    @property
    def label(self) -> str:
        """`raw`."""
        return "raw"


class EmaAverage(SpecModel):
    """A shadow EMA, given by its `decay` or by `retention` = decay^steps, what is left of theta_0."""

    kind: Literal["ema"]
    decay: Share | None = None
    retention: Share | None = None

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

    kind: Literal["interpolate"]
    weight: Share

    @property
    def label(self) -> str:
        """`interpolate(0.5)`."""
        return f"interpolate({self.weight:.12g})"


class FeedbackAverage(SpecModel):
    """The EMA is fed back into the weights every `every` steps: an optimizer path of its own."""

    kind: Literal["feedback"]
    decay: Share
    every: Count = 1

    @property
    def label(self) -> str:
        """`feedback(0.9, every=4)`."""
        return f"feedback({self.decay:.12g}, every={self.every})"


def _average(raw: Any) -> Any:
    """Read the bare word `raw` as an average."""
    return {"kind": "raw"} if raw == "raw" else raw


AverageSpec = Annotated[
    Annotated[
        RawAverage | EmaAverage | InterpolateAverage | FeedbackAverage, Field(discriminator="kind")
    ],
    BeforeValidator(_average),
]

Scheduler = Annotated[
    Literal[
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
        "linear",
        "cosine",
    ],
    BeforeValidator(lambda raw: "warmup_stable_decay" if raw == "wsd" else raw),
]


class ModelSpec(SpecModel):
    """The model to fine-tune: a hub id, a local folder, or `builtin:miniature/model`."""

    path: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    dtype: Literal["mixed_bf16", "float32", "pure_bf16"] = "mixed_bf16"
    attention: Literal["sdpa", "eager"] = "sdpa"


class TuningSpec(SpecModel):
    """`full` trains every weight; `lora` trains an adapter with peft's LoraConfig fields."""

    method: Literal["lora", "full"]
    lora_r: Count = 8
    lora_alpha: Positive = 16.0
    lora_dropout: Dropout = 0.0
    lora_target_modules: Annotated[
        tuple[str, ...], Field(min_length=1), BeforeValidator(listed)
    ] = ("q_proj", "v_proj")
    use_rslora: bool = False
    use_dora: bool = False


class SpaceSpec(SpecModel):
    """The dimensions of the sweep. Every one is a constant, a list, or a range."""

    learning_rate: Axis[Positive]
    batch_size: Axis[Count]
    max_steps: Axis[Count]
    average: Axis[AverageSpec] = Axis[AverageSpec](values=(RawAverage(),))
    lr_scheduler_type: Axis[Scheduler] = Axis[Scheduler](values=("constant",))
    warmup_steps: Axis[Steps] = Axis[Steps](values=(0.0,))
    decay_steps: Axis[Steps] = Axis[Steps](values=(0.1,))
    weight_decay: Axis[NonNegative] = Axis[NonNegative](values=(0.0,))
    adam_beta1: Axis[Share] = Axis[Share](values=(0.9,))
    adam_beta2: Axis[Share] = Axis[Share](values=(0.999,))
    adam_epsilon: Axis[Positive] = Axis[Positive](values=(1e-8,))
    max_grad_norm: Axis[NonNegative] = Axis[NonNegative](values=(1.0,))
    lora_r: Axis[Count] | None = None
    lora_alpha: Axis[Positive] | None = None
    lora_dropout: Axis[Dropout] | None = None


class HarnessSpec(SpecModel):
    """Tasks of lm-evaluation-harness, run on every readout; `include_path` is a folder of YAML tasks."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(listed)]
    include_path: str | None = None
    num_fewshot: Annotated[int, Number, Field(ge=0)] | None = None
    limit: Count | None = None


class EvaluationSpec(SpecModel):
    """What every readout is scored on. The first keyword list gives the `unsafe_rate`."""

    harmful: Annotated[Suites, Field(min_length=1)]
    harmless: Suites = ()
    keyword_lists: Annotated[tuple[str, ...], Field(min_length=1)] = ("sweeper",)
    utility_metrics: Annotated[
        tuple[Literal[UTILITY_METRICS], ...],  # type: ignore[valid-type]
        Field(min_length=1),
    ] = ("heldout_loss", "rouge_l", "exact_match")
    max_new_tokens: Count = 128
    batch_size: Count = 32
    stop_generation_early: bool = True
    answer_extractor: Literal["none", "gsm8k"] = "none"
    lm_eval: HarnessSpec | None = None


def _known_metric(name: str) -> str:
    """Refuse what no trial can measure."""
    if name in METRICS or is_harness(name):
        return name
    near = difflib.get_close_matches(name, METRICS, n=1)
    hint = f" (did you mean `{near[0]}`?)" if near else ""
    raise ValueError(f"found {name!r}{hint}; known: {', '.join(METRICS)}, lm_eval/TASK/METRIC")


class ObjectiveSpec(SpecModel):
    """A metric to optimise. The direction may be left out where it follows from the metric."""

    metric: Annotated[str, AfterValidator(_known_metric)]
    direction: Direction = "minimize"

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
                    f"{name}: its name does not say where it is to go; give "
                    f"{{metric: {name}, direction: minimize}}, or maximize"
                )
            return raw if direction is None else {**raw, "direction": direction}
        return raw

    @model_validator(mode="after")
    def _law(self) -> Self:
        due = direction_of(self.metric)
        if due not in (None, self.direction):
            raise ValueError(f"{self.metric} is to {due}, but got direction={self.direction!r}")
        return self


class ConstraintSpec(SpecModel):
    """A rate that must stay at or below `max` with probability at least `confidence`."""

    metric: Literal[SAFETY_METRICS]  # type: ignore[valid-type]
    max: Annotated[float, Number, Field(ge=0, le=1)]
    confidence: Share = 0.95


class RefineSpec(SpecModel):
    """Further seeds for undecided configurations after the first pass, `budget` optimizer steps at most.

    No configuration gets more than `max_seeds` seeds, those of the spec included; `batch_size` paths are
    chosen at a time.
    """

    budget: Count
    max_seeds: Count = 4
    batch_size: Count = 4


class SearchSpec(SpecModel):
    """`grid` plans every point, `random` draws optimizer settings, `optuna` asks for them as it learns.

    `batch_size` settings are suggested at a time: a number of the spec and not of the cluster, so that
    the same spec asks for the same settings anywhere. `warm_start` is the folder of an earlier run to
    learn from.
    """

    method: Literal["grid", "random", "optuna"] = "grid"
    n_trials: Count | None = None
    seed: Seed = 0
    stop: StopSpec = StopSpec()
    sampler: Literal["tpe", "nsga2", "nsga3", "gp", "random", "qmc"] = "tpe"
    batch_size: Count = 4
    warm_start: str | None = None
    refine: RefineSpec | None = None

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


class ComputeSpec(SpecModel):
    """What one trial may use. None of it is a hyperparameter of the result."""

    cpus_per_trial: Count = 1
    gpus_per_trial: (
        Literal["auto"] | Annotated[float, AfterValidator(whole_or_share), Field(ge=0)]
    ) = "auto"
    max_concurrent_trials: Count | None = None
    micro_batch_size: Count | None = None
    deterministic: bool = True
    checkpoint_every: Count = 100
    stall_timeout_minutes: Positive = 60.0
    logging_steps: Count = 10
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    adapters_per_trial: Literal["auto"] | Count = "auto"
    ray_address: str | None = None
    keep_weights: Literal["front", "all", "none"] = "none"
    disk_quota_gib: Positive | None = None
    mirror: MirrorUrl | None = None
    trackers: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...], BeforeValidator(listed)
    ] = ()

    @property
    def processes(self) -> int:
        """How many processes one trial runs in: one for each of its GPUs where it has several."""
        asked = self.gpus_per_trial
        return 1 if asked == "auto" else max(1, int(asked))

    @property
    def gpu_share(self) -> float:
        """The part of each of its GPUs that one trial has."""
        asked = self.gpus_per_trial
        return 1.0 if asked == "auto" or not 0 < asked < 1 else asked


class SweepSpec(SpecModel):
    """A whole sweep file."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    description: str = ""
    model: ModelSpec
    tuning: TuningSpec
    data: DataSpec
    space: SpaceSpec
    evaluation: EvaluationSpec
    objectives: Annotated[tuple[ObjectiveSpec, ...], Field(min_length=2)] = (
        ObjectiveSpec(metric="rouge_l", direction="maximize"),
        ObjectiveSpec(metric="unsafe_rate"),
    )
    constraints: tuple[ConstraintSpec, ...] = (ConstraintSpec(metric="unsafe_rate", max=0.05),)
    search: SearchSpec = SearchSpec()
    compute: ComputeSpec = ComputeSpec()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1000)] = (0,)
    references: tuple[ReferenceSpec, ...] = ()

    @property
    def utility(self) -> ObjectiveSpec:
        """The first objective that is a utility metric: the one the `no gain` gate looks at."""
        return next(item for item in self.objectives if is_utility(item.metric))
