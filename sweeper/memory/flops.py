"""FLOP per trained token, and the peak FLOP/s of known GPUs."""

import re
from typing import NamedTuple

from sweeper.memory.shape import ModelShape
from sweeper.task import Tuning


class PeakFlops(NamedTuple):
    """FLOP/s of one GPU by its data sheet (NVIDIA), dense; fp32 without TF32, which torch leaves off."""

    fp32: float
    bf16: float


PEAK_FLOPS = {
    "A10": PeakFlops(31.2e12, 125e12),
    "A100": PeakFlops(19.5e12, 312e12),
    "H100": PeakFlops(67e12, 989e12),
    "H200": PeakFlops(67e12, 989e12),
}
"""The chip as it appears in a device name -> its peaks. H100 and H200 mean the SXM versions."""


def peak_flops(device_name: str, dtype: str) -> float | None:
    """The peak FLOP/s of a GPU with a `model.dtype`; None for an unknown GPU.

    Args:
        device_name: The CUDA device name, for example `NVIDIA A100-SXM4-80GB`.
        dtype: `float32`, `mixed_bf16` or `pure_bf16`.
    """
    words = set(re.findall(r"[A-Za-z0-9]+", device_name))
    chips = words & PEAK_FLOPS.keys()
    if not chips or (words & {"PCIe", "NVL", "MIG"} and chips & {"H100", "H200"}):
        return None
    peaks = PEAK_FLOPS[chips.pop()]
    return peaks.fp32 if dtype == "float32" else peaks.bf16


def train_flops(shape: ModelShape, tuning: Tuning) -> float:
    """FLOP per trained token: 2 per weight in the forward pass; 4 in the backward pass, 2 if frozen.

    A frozen weight propagates the gradient (2 FLOP) but needs no weight gradient (2 FLOP); an
    adapter weight takes all 6 (arXiv 2001.08361, section 2.1).
    Attention scores (4 % at 1024 tokens, 7B) are ignored.
    """
    if tuning.method == "full":
        return 6.0 * shape.matmul_parameters
    return 4.0 * shape.matmul_parameters + 6.0 * shape.trainable(tuning)
