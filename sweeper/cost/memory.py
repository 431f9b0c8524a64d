"""Peak memory of one trial, by named parts. See docs/cost.md for where each formula comes from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeper.cost.shape import ModelShape
from sweeper.task import Tuning

GIB = 2**30

TRAINED_BYTES = {"float32": 4, "mixed_bf16": 4, "pure_bf16": 2}
"""Bytes of one trained weight of the model, by `model.dtype`."""

FROZEN_BYTES = {**TRAINED_BYTES, "mixed_bf16": 2}
"""Bytes of one frozen weight, by `model.dtype`; a test holds both together with `trial.model`."""

ARITHMETIC_BYTES = {"float32": 4, "mixed_bf16": 2, "pure_bf16": 2}
"""Bytes of one activation, by `model.dtype`."""

ADAPTER_BYTES = 4
"""peft keeps LoRA factors in fp32 whatever the base model's dtype is."""

MICRO_BATCH_TOKENS = 16_384
"""`trial.train.MICRO_BATCH_TOKENS`; a test holds the two together."""

LOGIT_BYTES = 12
"""Bytes per token and vocabulary entry at the peak of the loss: three fp32 copies (the logits, their
logarithmic softmax, and one of the two's gradients)."""

RUNTIME_BYTES = {"cuda": 1 * GIB, "cpu": GIB * 6 // 10}
"""What a process holds before any weight: CUDA context and cuBLAS workspaces (0.5 to 1 GiB), or the
interpreter with torch, transformers and peft (0.6 GiB resident, measured here)."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What the memory of a trial depends on. Lengths are in tokens, padding included.

    `paths` counts the LoRA trajectories of a pack: each has adapter, moments and shadows of its own.
    `train_rows` are those of all paths in one micro-batch.
    `shadows` counts fp32 shadow EMAs, a fed-back one among them. `interpolates`: some readout mixes
    with theta_0. `forks`: a decay tail keeps the trunk's state beside its own. `heldout_length` is 0
    where no held-out loss is asked for.
    """

    shape: ModelShape
    tuning: Tuning
    paths: int
    dtype: str
    device: Literal["cpu", "cuda"]
    shadows: int
    interpolates: bool
    forks: bool
    train_rows: int
    train_length: int
    evaluation_rows: int
    heldout_length: int
    generation_length: int


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes by part. The first seven are held throughout, the others in one phase only."""

    weights: int
    gradients: int
    moments: int
    shadows: int
    theta_0: int
    fork: int
    runtime: int
    activations: int
    logits: int
    readout_copies: int
    forward: int
    kv_cache: int
    heldout_logits: int
    checkpoint_copies: int

    @property
    def resident_bytes(self) -> int:
        """What is held from the first optimizer step on."""
        held = self.weights + self.gradients + self.moments + self.shadows
        return held + self.theta_0 + self.fork + self.runtime

    @property
    def phases(self) -> Mapping[str, Mapping[str, int]]:
        """What each phase needs beside what is held."""
        reading = {"readout_copies": self.readout_copies, "forward": self.forward}
        return {
            "train": {"activations": self.activations, "logits": self.logits},
            "generate": {**reading, "kv_cache": self.kv_cache},
            "held-out loss": {**reading, "heldout_logits": self.heldout_logits},
            "checkpoint": {"checkpoint_copies": self.checkpoint_copies},
        }

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    @property
    def peak_bytes(self) -> int:
        """What is held, and the phase that needs most."""
        return self.resident_bytes + sum(self.phases[self.peak_phase].values())

    def at_peak(self) -> dict[str, int]:
        """The parts that exist at the peak and are not empty; their sum is `peak_bytes`."""
        names = ("weights", "gradients", "moments", "shadows", "theta_0", "fork", "runtime")
        parts = {name: int(getattr(self, name)) for name in names} | dict(
            self.phases[self.peak_phase]
        )
        return {name: value for name, value in parts.items() if value}

    def to_data(self) -> dict[str, Any]:
        """All parts, the phase of the peak, and the peak, for JSON."""
        return {**asdict(self), "peak_phase": self.peak_phase, "peak_bytes": self.peak_bytes}


def memory(facts: MemoryFacts) -> MemoryParts:
    """The parts of the peak memory of one trial, in bytes.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    shape, size = facts.shape, ARITHMETIC_BYTES[facts.dtype]
    held = held_bytes(facts.tuning, facts.dtype)
    trainable = shape.trainable(facts.tuning) * facts.paths
    own = held if facts.tuning.method == "full" else ADAPTER_BYTES
    adapter = 0 if facts.tuning.method == "full" else trainable * ADAPTER_BYTES
    copies = shape.multiplied * size if held > size else 0
    shadows = 4 * facts.shadows * trainable
    state = 3 * own * trainable + shadows
    prompt = facts.evaluation_rows * max(facts.generation_length, facts.heldout_length)
    read = facts.evaluation_rows * facts.heldout_length
    train = facts.train_rows * facts.train_length
    generated = facts.evaluation_rows * facts.generation_length
    averaged = facts.shadows or facts.interpolates
    return MemoryParts(
        weights=shape.parameters * held + adapter,
        gradients=trainable * own,
        moments=2 * trainable * own,
        shadows=shadows,
        theta_0=trainable * own,
        fork=state if facts.forks else 0,
        runtime=RUNTIME_BYTES[facts.device],
        activations=train * activation_bytes(shape, facts.tuning, facts.dtype) + copies,
        logits=train * shape.vocabulary * LOGIT_BYTES,
        readout_copies=trainable * (own * bool(averaged) + 4 * facts.interpolates),
        forward=prompt * 3 * (shape.hidden + shape.intermediate) * size + copies,
        kv_cache=generated * shape.layers * 2 * shape.key_width * size,
        heldout_logits=read * shape.vocabulary * LOGIT_BYTES,
        checkpoint_copies=state,
    )


def held_bytes(tuning: Tuning, dtype: str) -> int:
    """Bytes of one weight of the model, which is trained in full tuning and frozen under an adapter."""
    return (TRAINED_BYTES if tuning.method == "full" else FROZEN_BYTES)[dtype]


def activation_bytes(shape: ModelShape, tuning: Tuning, dtype: str) -> int:
    """Bytes of activations kept for the backward pass, per token, without gradient checkpointing.

    Counted from the operations of `transformers`' Llama block; a test compares with the tensors that
    autograd really saves. Norms compute in fp32, and under autocast those that are trained keep what they
    scale in fp32, too. A frozen weight needs no input kept; an adapter keeps its input, each its own fp32
    copy where the model is `pure_bf16`. The bf16 copies that autocast makes of fp32 weights are not in it,
    nor what the rescaling of DoRA keeps.

    Args:
        shape: The model.
        tuning: Which weights are trained.
        dtype: `model.dtype`.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    size = ARITHMETIC_BYTES[dtype]
    h, q, i = shape.hidden, shape.query_width, shape.intermediate
    norm_inputs = 2 * 4 * h
    attention = 4 * q * size
    if tuning.method == "full":
        block = norm_inputs + 4 * h * size + attention + 4 * i * size
        block += 8 * h if dtype == "mixed_bf16" else 0
    else:
        block = norm_inputs + attention + 3 * i * size + _adapter_inputs(shape, tuning, dtype)
        block += 4 * tuning.lora_r * len(shape.targets(tuning))
    top = 4 * h + 2 * h * size
    return shape.layers * block + top


def _adapter_inputs(shape: ModelShape, tuning: Tuning, dtype: str) -> int:
    """Bytes per token of the inputs that the adapters of one block keep."""
    size = 2 if dtype == "mixed_bf16" else 4
    if tuning.lora_dropout > 0:  # The dropped input, and its mask in the same type.
        return sum(2 * size * inputs for inputs, _ in shape.adapted(tuning))
    if dtype == "pure_bf16":
        return sum(size * inputs for inputs, _ in shape.adapted(tuning))
    names = set(shape.targets(tuning))
    shared = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention"}
    shared |= {"gate_proj": "mlp", "up_proj": "mlp"}  # The input of o_proj is kept by attention.
    kept = {shared.get(name, name): shape.linear_layers[name][0] for name in names - {"o_proj"}}
    return size * sum(kept.values())


def micro_batch_rows(batch_size: int, max_length: int, asked: int | None, paths: int = 1) -> int:
    """Rows per path and micro-batch, as `trial.train.micro_batch_rows`, which imports torch."""
    fitting = MICRO_BATCH_TOKENS // max_length if asked is None else asked
    return max(1, min(batch_size, fitting // paths))
