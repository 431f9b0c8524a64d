"""The peak memory of one trial, by component. The documentation of costs gives the sources of formulas."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sweeper.memory.quantized import base_bytes, expanded_bytes, moment_bytes
from sweeper.memory.shape import ModelShape
from sweeper.task import ADAMW, Tuning

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
"""Outside of training, logits are computed for at most this many positions at a time."""

HELDOUT_TOKENS = 8_192
"""Held-out batches are evaluated for as many adapters at once as fit into this many tokens."""

TILE = 16
"""Responses are generated in blocks of this many rows: for fewer, BLAS libraries switch to kernels that
round differently."""

RUNTIME_BYTES = {"cuda": 1 * GIB, "cpu": GIB * 6 // 10}
"""Memory of a process before it loads a model: CUDA context and cuBLAS workspaces (0.5 to 1 GiB), or the
interpreter with torch, transformers and peft (0.6 GiB resident, as measured)."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """The inputs of the memory estimate of a trial. Lengths are in tokens, including padding.

    `paths` counts the LoRA trajectories of a pack: each has its own adapter, moments and EMAs.
    `train_rows` counts the rows of all paths in one micro-batch of one process. `shadows` counts fp32 EMAs,
    including one for feedback. `interpolates`: some readout is interpolated with theta_0. `forks`: a decay
    tail keeps a copy of the trunk's state. `heldout_length` is 0 if no held-out loss is computed.
    `target_length` bounds the target tokens of a row, if known. `readouts` are scored together.
    `processes` share the trial, one GPU each; `gradient_checkpointing` recomputes activations.
    `base_weights` are those that readouts are scored on; see `EvaluationSettings`.
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
    optim: str = ADAMW
    base_weights: str = "4bit"


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes by component, for one process. The first seven are always allocated, the others in some phases.

    `gathered` are temporarily unsharded weights, `gathered_gradients` their gradients. `average_copies` are
    the fp32 copies of bf16 weights that an EMA update makes, `checkpoint_copies` what a trial that goes on
    reads; on a CPU, writing a checkpoint copies nothing.
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
        """Memory that is allocated from the first optimizer step on."""
        held = self.weights + self.gradients + self.moments + self.shadows
        return held + self.theta_0 + self.fork + self.runtime

    @property
    def phases(self) -> Mapping[str, Mapping[str, int]]:
        """The additional memory of each phase."""
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
        """The phase with the highest memory use."""
        return max(self.phases, key=self.phase_bytes)

    @property
    def peak_bytes(self) -> int:
        """The memory of the peak phase."""
        return self.phase_bytes(self.peak_phase)

    def phase_bytes(self, name: str) -> int:
        """The total memory during a phase."""
        return self.resident_bytes + sum(self.phases[name].values())

    def at_peak(self) -> dict[str, int]:
        """The non-empty components at the peak; their sum is `peak_bytes`."""
        names = ("weights", "gradients", "moments", "shadows", "theta_0", "fork", "runtime")
        parts = {name: int(getattr(self, name)) for name in names} | dict(
            self.phases[self.peak_phase]
        )
        return {name: value for name, value in parts.items() if value}

    def to_data(self) -> dict[str, Any]:
        """All components, the peak phase and the peak, for JSON."""
        return {**asdict(self), "peak_phase": self.peak_phase, "peak_bytes": self.peak_bytes}


def memory(facts: MemoryFacts) -> MemoryParts:
    """Estimate the peak memory of one process of a trial, in bytes by component.

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
    copies += expanded_bytes(shape, facts.tuning, size)
    shadows = 4 * facts.shadows * trainable
    base = base_bytes(shape, facts.tuning, held)
    base += shape.parameters * held if facts.base_weights == "unquantized" else 0
    paged = facts.device == "cuda"
    moments = moment_bytes(shape, facts.tuning, own, facts.optim, resident=paged)
    moments = -(-moments // (facts.processes if full else 1)) * facts.paths
    state = own * trainable + moments + shadows
    gathered = _gathered(facts) * held
    rows = -(-facts.evaluation_rows // TILE) * TILE * facts.readouts
    generated = rows * facts.generation_length
    read = facts.evaluation_rows * facts.heldout_length
    together = min(read * facts.readouts, max(read, HELDOUT_TOKENS))
    targets = facts.train_rows * (facts.target_length or facts.train_length)
    per_token = activation_bytes(shape, facts.tuning, facts.dtype, facts.gradient_checkpointing)
    return MemoryParts(
        weights=-(-base // facts.processes) + adapter,
        gradients=trainable * own,
        moments=moments,
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
    """Bytes of the trained weights.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    own = bytes_per_weight(tuning, dtype) if tuning.method == "full" else ADAPTER_BYTES
    return own * shape.trainable(tuning)


def state_bytes(
    shape: ModelShape, tuning: Tuning, dtype: str, shadows: int, optim: str = ADAMW
) -> int:
    """Bytes of the training state in a checkpoint: weights, moments, fp32 EMAs.

    Raises:
        ModelError: see `weights_bytes`.
    """
    own = bytes_per_weight(tuning, dtype) if tuning.method == "full" else ADAPTER_BYTES
    moments = moment_bytes(shape, tuning, own, optim)
    return weights_bytes(shape, tuning, dtype) + moments + 4 * shadows * shape.trainable(tuning)


def _gathered(facts: MemoryFacts) -> int:
    """Simultaneously unsharded weights of a sharded model: embeddings, output layer and two blocks.

    The next block is gathered while the current one is used; see `model.sharding`.
    """
    if facts.processes == 1:
        return 0
    shape = facts.shape
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return tables + 2 * (shape.parameters - tables) // shape.layers


def _copied(facts: MemoryFacts, own: int) -> int:
    """Bytes per trained weight that a readout allocates: saved weights and averaged weights."""
    mixed = (4 if own == 4 else 12) * facts.interpolates
    narrowed = own if own < 4 and (facts.shadows or facts.interpolates) else 0
    return own + narrowed + mixed


def bytes_per_weight(tuning: Tuning, dtype: str) -> int:
    """Bytes of one model weight: trained with full tuning, frozen with an adapter and not in 4 bits."""
    return (TRAINED_BYTES if tuning.method == "full" else FROZEN_BYTES)[dtype]


def activation_bytes(
    shape: ModelShape, tuning: Tuning, dtype: str, gradient_checkpointing: bool = False
) -> int:
    """Bytes of activations kept for the backward pass, per token.

    Counted from the operations of `transformers`' Llama block; a test compares it with the tensors that
    autograd saves. Norms compute in fp32; under autocast, trained norms also keep their normalized input in
    fp32, and every trained layer keeps a bf16 copy of its input. A frozen weight keeps no input; an adapter
    keeps its input, as its own fp32 copy if the model is `pure_bf16`. Not included: the bf16 copies of fp32
    weights that autocast makes, and what the rescaling of DoRA keeps.

    Args:
        shape: The model.
        tuning: Which weights are trained.
        dtype: `model.dtype`.
        gradient_checkpointing: Only block inputs are kept, plus all activations of one block at a time.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    size, full = ARITHMETIC_BYTES[dtype], tuning.method == "full"
    h, i = shape.hidden, shape.intermediate
    block = 2 * (shape.query_width + shape.key_width) * size + 2 * 4 * h
    block += shape.extra_norms * (4 + size * full)
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
    """Bytes per token of the inputs kept by the adapters of one block."""
    size = 2 if dtype == "mixed_bf16" else 4
    if tuning.lora_dropout > 0:  # The dropped input, and its mask in the same type.
        return sum(2 * size * inputs for inputs, _ in shape.adapted(tuning))
    if dtype == "pure_bf16":
        return sum(size * inputs for inputs, _ in shape.adapted(tuning))
    names = set(shape.targets(tuning))
    shared = {"q_proj": "attention", "k_proj": "attention", "v_proj": "attention"}
    shared |= {"gate_proj": "mlp", "up_proj": "mlp"}  # The input of o_proj is kept by attention.
    widths = {shared.get(name, name): shape.linear_layers[name][0] for name in names - {"o_proj"}}
    return size * sum(widths.values())
