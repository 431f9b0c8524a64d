"""Analytic rates: known devices, and the rates that follow from their peaks."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from sweeper.memory import PEAK_FLOPS, ModelShape, base_bytes, bytes_per_weight, train_flops
from sweeper.task import Tuning

UTILISATION = {"float32": 0.6, "mixed_bf16": 0.3, "pure_bf16": 0.3}
"""Fraction of a device's peak that training sustains. bf16: the published range of tuned training code is
0.21 to 0.46 (PaLM, arXiv 2204.02311, table 3), uncompiled transformers is in its lower half. fp32 without
tensor cores is easier to feed: the peak is a sixteenth, the memory traffic only twice."""

BANDWIDTH_SHARE = 0.7
"""Share of the peak memory bandwidth that reading all weights once per decoding step sustains."""

LAYER_SECONDS = 3.5e-4
"""Host time of one layer's forward pass in uncompiled transformers, however small the layer: about 30
operators of 10 microseconds. Measured: 340 microseconds of processor time per decoding step and layer of a
Llama of width 16 (transformers 5.23, torch 2.13, one core); forward and backward take 3 to 4 times
that."""

ADAPTER_LAYER_SECONDS = 9e-5
"""Host time a LoRA adapter adds to the forward pass of its linear layer; measured likewise, peft 0.21."""

LOAD_BYTES_PER_SECOND = 1e9
"""Reading safetensors from a local disk and placing them."""

WORKER_START_SECONDS = 12.0
"""A fresh Ray actor and its imports of torch, transformers and peft, once per worker."""


@dataclass(frozen=True, slots=True)
class Device:
    """Published peaks of one GPU, or of one CPU core.

    FLOP/s are dense, without sparsity; fp32 is without TF32, which torch leaves off. Bandwidth is in
    bytes per second. `memory_bytes` is None for a CPU. `link` is bytes per second in one direction to the
    other GPUs of a trial: NVLink where the device has it, else PCIe.
    """

    name: str
    kind: Literal["cpu", "cuda"]
    memory_bytes: int | None
    fp32_flops: float
    bf16_flops: float
    bandwidth: float
    link: float = 2.5e10

    def sustained_flops(self, dtype: str) -> float:
        """FLOP/s that training sustains: the peak times `UTILISATION`."""
        peak = self.fp32_flops if dtype == "float32" else self.bf16_flops
        return peak * UTILISATION[dtype]


GPUS = (
    Device("A10 24 GB", "cuda", 24 * 10**9, *PEAK_FLOPS["A10"], 0.6e12),
    Device("A100 40 GB", "cuda", 40 * 10**9, *PEAK_FLOPS["A100"], 1.555e12, 3e11),
    Device("H100 80 GB", "cuda", 80 * 10**9, *PEAK_FLOPS["H100"], 3.35e12, 4.5e11),
    Device("H200 141 GB", "cuda", 141 * 10**9, *PEAK_FLOPS["H200"], 4.8e12, 4.5e11),
)
"""One GPU for each usual size, with the peaks of its data sheet (NVIDIA). Sizes are decimal gigabytes, a
few percent below what the larger ones have: that is the margin for fragmentation."""

CPU_CORE = Device("CPU core", "cpu", None, 1e11, 1e11, 1.5e10)
"""One core: two 256-bit fused multiply-adds per cycle at 3 GHz; bandwidth of one thread, measured here."""


def cpu(cores: int) -> Device:
    """A CPU device of some cores; bandwidth is shared and does not grow."""
    flops = cores * CPU_CORE.fp32_flops
    name = f"CPU, {cores} core{'' if cores == 1 else 's'}"
    return Device(name, "cpu", None, flops, flops, CPU_CORE.bandwidth)


class Tokens(NamedTuple):
    """How many tokens a sweep handles.

    `per_row` is the mean of a training row, `longest_row` and `longest_prompt` bound memory.
    The others are sums over one readout: prompts answered, their tokens, the tokens generated for
    them, and the tokens of held-out rows read for the loss. `source` says how it was determined. `rows`
    counts the rows that are trained on, held out and left out; see `trial.split.Split`.
    """

    per_row: float
    longest_row: int
    prompts: int
    prompt_tokens: float
    longest_prompt: int
    generated: float
    heldout_tokens: float
    source: str
    rows: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of each operation of one worker.

    `step_seconds` is the part of an optimizer step that does not grow with its tokens, `load_seconds`
    is per trajectory, `readout_seconds` the part of a readout that does not grow with the tokens
    generated, `startup_seconds` once per worker.
    """

    train_token_seconds: float
    step_seconds: float
    generate_token_seconds: float
    readout_seconds: float
    load_seconds: float
    startup_seconds: float
    source: Literal["analytic", "calibrated"]
    device: str

    def to_data(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def analytic_rates(
    shape: ModelShape,
    tuning: Tuning,
    dtype: str,
    device: Device,
    tokens: Tokens,
    evaluation_rows: int,
    processes: int = 1,
) -> Rates:
    """Rates from the sizes of model and device.

    Args:
        shape: The model.
        tuning: Which weights are trained.
        dtype: `model.dtype`.
        device: What one trial runs on.
        tokens: Of one readout.
        evaluation_rows: Prompts answered in one batch.
        processes: GPUs that share a trial: they divide arithmetic and batches, and gather the weights in
            every pass.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    flops = device.sustained_flops(dtype) * processes
    forward = 2.0 * shape.matmul_parameters / flops
    host = shape.layers * LAYER_SECONDS
    adapters = len(shape.targets(tuning)) if tuning.has_adapter else 0
    host += shape.layers * adapters * ADAPTER_LAYER_SECONDS
    held = bytes_per_weight(tuning, dtype)
    weight_bytes = base_bytes(shape, tuning, held)
    # Weights in 4 bits are written out in full and read again, in every pass.
    expanding = 2 * (shape.matmul_parameters * held if tuning.quantized else 0)
    expanding_seconds = expanding / (device.bandwidth * BANDWIDTH_SHARE)
    rows = min(evaluation_rows, max(1, tokens.prompts))
    gather = weight_bytes * (processes - 1) / processes / (device.link * BANDWIDTH_SHARE)
    decode = weight_bytes / (device.bandwidth * BANDWIDTH_SHARE) + host + gather
    decode += expanding_seconds
    side_by_side = min(processes, -(-max(1, tokens.prompts) // rows))
    return Rates(
        train_token_seconds=train_flops(shape, tuning) / flops,
        step_seconds=3 * (host + gather) + 2 * expanding_seconds,
        generate_token_seconds=forward + decode / (rows * side_by_side),
        readout_seconds=forward * (tokens.prompt_tokens + tokens.heldout_tokens),
        load_seconds=shape.parameters * held / LOAD_BYTES_PER_SECOND,
        startup_seconds=WORKER_START_SECONDS,
        source="analytic",
        device=device.name,
    )
