"""Peak memory of one trial, by named parts. The documentation of costs gives the source of each formula."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeper.memory.shape import ModelShape
from sweeper.task import Tuning

GIB = 2**30

TRAINED_BYTES = {"float32": 4, "mixed_bf16": 4, "pure_bf16": 2}
"""Bytes of one trained weight of the model, by `model.dtype`."""

FROZEN_BYTES = {**TRAINED_BYTES, "mixed_bf16": 2}
"""Bytes of one frozen weight, by `model.dtype`; tests compare both with `model.load`."""

ARITHMETIC_BYTES = {"float32": 4, "mixed_bf16": 2, "pure_bf16": 2}
"""Bytes of one activation, by `model.dtype`."""

ADAPTER_BYTES = 4
"""peft keeps LoRA factors in fp32 whatever the base model's dtype is."""

LOGIT_BYTES = 12
"""Bytes per token and vocabulary entry at the peak of the loss: three fp32 copies (the logits, their
logarithmic softmax, and one of the two's gradients)."""

LOGIT_ROWS = 4096
"""Outside of training, logits are made for at most this many positions at a time."""

HELDOUT_TOKENS = 8_192
"""Held-out rows go through the model for as many adapters at once as keep to this many tokens."""

TILE = 16
"""Prompts are answered in blocks of so many rows: below, BLAS libraries switch to kernels that round
differently."""

RUNTIME_BYTES = {"cuda": 1 * GIB, "cpu": GIB * 6 // 10}
"""What a process holds before any weight: CUDA context and cuBLAS workspaces (0.5 to 1 GiB), or the
interpreter with torch, transformers and peft (0.6 GiB resident, measured here)."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What the memory of a trial depends on. Lengths are in tokens, padding included.

    `paths` counts the LoRA trajectories of a pack: each has adapter, moments and shadows of its own.
    `train_rows` are those of all paths in one micro-batch of one process. `shadows` counts fp32 shadow
    EMAs, a fed-back one among them. `interpolates`: some readout mixes with theta_0. `forks`: a decay tail
    keeps the trunk's state beside its own. `heldout_length` is 0 where no held-out loss is asked for.
    `target_length` bounds the trained tokens of a row where that is known. `readouts` are scored together.
    `processes` share the trial, one GPU each; `gradient_checkpointing` computes activations twice.
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
    target_length: int | None = None
    readouts: int = 1
    processes: int = 1
    gradient_checkpointing: bool = False


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes by part, of one process. The first seven are held throughout, the others in some phases.

    `gathered` are sharded weights that are whole for a while, `gathered_gradients` likewise. `average`
    are the fp32 copies of bf16 weights that an update of a shadow makes.
    """

    weights: int
    gradients: int
    moments: int
    shadows: int
    theta_0: int
    fork: int
    runtime: int
    activations: int
    logits: int
    gathered: int
    gathered_gradients: int
    average_copies: int
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
        reading = {
            "readout_copies": self.readout_copies,
            "gathered": self.gathered,
            "forward": self.forward,
        }
        return {
            "train": {
                "activations": self.activations,
                "logits": self.logits,
                "gathered": self.gathered,
                "gathered_gradients": self.gathered_gradients,
            },
            "average": {"average_copies": self.average_copies},
            "generate": {**reading, "kv_cache": self.kv_cache},
            "held-out loss": {**reading, "heldout_logits": self.heldout_logits},
            "checkpoint": {"checkpoint_copies": self.checkpoint_copies},
        }

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=self.phase_bytes)

    @property
    def peak_bytes(self) -> int:
        """What is held, and the phase that needs most."""
        return self.phase_bytes(self.peak_phase)

    def phase_bytes(self, name: str) -> int:
        """What is held, and what a phase needs beside it."""
        return self.resident_bytes + sum(self.phases[name].values())

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
    """The parts of the peak memory of one process of a trial, in bytes.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    shape, size, full = facts.shape, ARITHMETIC_BYTES[facts.dtype], facts.tuning.method == "full"
    held = bytes_per_weight(facts.tuning, facts.dtype)
    alone = -(-shape.trainable(facts.tuning) // (facts.processes if full else 1))
    trainable = alone * facts.paths
    own = held if full else ADAPTER_BYTES
    adapter = 0 if full else trainable * ADAPTER_BYTES
    copies = shape.matmul_parameters * size if held > size else 0
    shadows = 4 * facts.shadows * trainable
    state = 3 * own * trainable + shadows
    gathered = _gathered(facts) * held
    rows = -(-facts.evaluation_rows // TILE) * TILE * facts.readouts
    generated = rows * facts.generation_length
    read = facts.evaluation_rows * facts.heldout_length
    together = min(read * facts.readouts, max(read, HELDOUT_TOKENS))
    targets = facts.train_rows * (facts.target_length or facts.train_length)
    per_token = activation_bytes(shape, facts.tuning, facts.dtype, facts.gradient_checkpointing)
    return MemoryParts(
        weights=-(-shape.parameters // facts.processes) * held + adapter,
        gradients=trainable * own,
        moments=2 * trainable * own,
        shadows=shadows,
        theta_0=trainable * own,
        fork=state if facts.forks else 0,
        runtime=RUNTIME_BYTES[facts.device],
        activations=facts.train_rows * facts.train_length * per_token + copies,
        logits=targets * shape.vocabulary * LOGIT_BYTES,
        gathered=gathered,
        gathered_gradients=gathered if full else 0,
        average_copies=4 * trainable if facts.shadows and own < 4 else 0,
        readout_copies=facts.readouts * alone * _copied(facts, own),
        forward=max(generated, together) * 3 * (shape.hidden + shape.intermediate) * size + copies,
        kv_cache=generated * shape.layers * shape.key_width * (held + size),
        heldout_logits=min(together, LOGIT_ROWS) * shape.vocabulary * LOGIT_BYTES,
        checkpoint_copies=state if facts.device == "cpu" else 0,
    )


def weights_bytes(shape: ModelShape, tuning: Tuning, dtype: str) -> int:
    """Bytes of the weights that are trained.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    own = bytes_per_weight(tuning, dtype) if tuning.method == "full" else ADAPTER_BYTES
    return own * shape.trainable(tuning)


def state_bytes(shape: ModelShape, tuning: Tuning, dtype: str, shadows: int) -> int:
    """Bytes of what the next step depends on, and a checkpoint holds: weights, moments, fp32 shadows.

    Raises:
        ModelError: see `weights_bytes`.
    """
    return 3 * weights_bytes(shape, tuning, dtype) + 4 * shadows * shape.trainable(tuning)


def _gathered(facts: MemoryFacts) -> int:
    """Weights of a sharded model that are whole at once: embeddings, output layer and two blocks.

    The next block is gathered while one is computed with; see `model.sharding`.
    """
    if facts.processes == 1:
        return 0
    shape = facts.shape
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return tables + 2 * (shape.parameters - tables) // shape.layers


def _copied(facts: MemoryFacts, own: int) -> int:
    """Bytes per trained weight that a readout makes: the weights kept aside, and the averaged ones."""
    mixed = (4 if own == 4 else 12) * facts.interpolates
    narrowed = own if own < 4 and (facts.shadows or facts.interpolates) else 0
    return own + narrowed + mixed


def bytes_per_weight(tuning: Tuning, dtype: str) -> int:
    """Bytes of one weight of the model, which is trained in full tuning and frozen under an adapter."""
    return (TRAINED_BYTES if tuning.method == "full" else FROZEN_BYTES)[dtype]


def activation_bytes(
    shape: ModelShape, tuning: Tuning, dtype: str, gradient_checkpointing: bool = False
) -> int:
    """Bytes of activations kept for the backward pass, per token.

    Counted from the operations of `transformers`' Llama block; a test compares with the tensors that
    autograd really saves. Norms compute in fp32; under autocast those that are trained keep what they
    scale in fp32, too, and every trained layer keeps a bf16 copy of its input. A frozen weight needs no
    input kept; an adapter keeps its input, each its own fp32 copy where the model is `pure_bf16`. The bf16
    copies that autocast makes of fp32 weights are not in it, nor what the rescaling of DoRA keeps.

    Args:
        shape: The model.
        tuning: Which weights are trained.
        dtype: `model.dtype`.
        gradient_checkpointing: Only the input of a block is kept, and all of one block at a time.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    size, full = ARITHMETIC_BYTES[dtype], tuning.method == "full"
    h, i = shape.hidden, shape.intermediate
    block = 2 * (shape.query_width + shape.key_width) * size + 2 * 4 * h
    if full:
        block += 4 * i * size + (18 * h if dtype == "mixed_bf16" else 4 * h * size)
    else:
        block += 3 * i * size + _adapter_inputs(shape, tuning, dtype)
        block += 4 * tuning.lora_r * len(shape.targets(tuning))
    top = 4 * h + 2 * h * size
    if gradient_checkpointing:
        return shape.layers * h * bytes_per_weight(tuning, dtype) + block + top
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
