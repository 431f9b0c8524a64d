"""Arithmetic of training: what a token costs, and what known GPUs can do at most."""

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
"""A chip, as it stands in the name of a device, -> its peaks. H100 and H200 are those on SXM boards."""


def peak_flops(device_name: str, dtype: str) -> float | None:
    """The FLOP/s that a GPU reaches at most under a `model.dtype`; None of one that is not known.

    Args:
        device_name: As CUDA names it, for example `NVIDIA A100-SXM4-80GB`.
        dtype: `float32`, `mixed_bf16` or `pure_bf16`.
    """
    words = set(re.findall(r"[A-Za-z0-9]+", device_name))
    chips = words & PEAK_FLOPS.keys()
    if not chips or (words & {"PCIe", "NVL", "MIG"} and chips & {"H100", "H200"}):
        return None
    peaks = PEAK_FLOPS[chips.pop()]
    return peaks.fp32 if dtype == "float32" else peaks.bf16


def train_flops(shape: ModelShape, tuning: Tuning) -> float:
    """FLOP per trained token: 2 per weight forward; backward 4, or 2 where weights are frozen.

    A frozen weight passes the gradient on (2) and gets none of its own (2); an adapter has all 6
    (arXiv 2001.08361, section 2.1). The attention scores, 4 % at 1024 tokens and 7B, are left out.
    """
    if tuning.method == "full":
        return 6.0 * shape.matmul_parameters
    return 4.0 * shape.matmul_parameters + 6.0 * shape.trainable(tuning)
