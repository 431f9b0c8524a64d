"""Chooses how much a trial computes at once: rows per micro-batch, and readouts scored together.

Neither is a hyperparameter. On a CPU both have fixed bounds; on a GPU they follow from the estimate and the
total memory, never from the free memory, so that batch layouts are reproducible.
"""

from dataclasses import replace
from functools import lru_cache

from sweeper.memory.parts import MemoryFacts, memory

MICRO_BATCH_TOKENS = 16_384
"""Without an explicit micro-batch size, a micro-batch holds at most this many tokens."""

USABLE_SHARE = 0.9
"""The share of GPU memory that an estimate may fill; the rest covers fragmentation and errors."""

KV_SHARE = 4
"""Keys and values may take at most 1/KV_SHARE of the GPU memory that the model leaves."""


def micro_batch_rows(batch_size: int, max_length: int, explicit: int | None, paths: int = 1) -> int:
    """Rows per path and micro-batch: the explicit number, or as many as MICRO_BATCH_TOKENS allow.

    Paths that train together share this bound, so that several adapters need no more than one; every path
    gets at least one row.
    """
    fitting = MICRO_BATCH_TOKENS // max_length if explicit is None else explicit
    return max(1, min(batch_size, fitting // paths))


@lru_cache(maxsize=256)
def fitting_rows(facts: MemoryFacts, most: int, paths: int, memory_bytes: int) -> int:
    """Rows per path and micro-batch on a GPU: `most` if they fit, else the largest fitting power of two.

    Args:
        facts: The inputs of the memory estimate; `train_rows` is ignored.
        most: The upper bound; see `micro_batch_rows`.
        paths: How many paths share the micro-batch.
        memory_bytes: The memory of the GPU, or the trial's share of it.

    Returns:
        At least 1, whether or not one row fits.
    """
    rows = most
    while rows > 1 and not _fits(replace(facts, train_rows=rows * paths), ("train",), memory_bytes):
        rows = 1 << ((rows - 1).bit_length() - 1)
    return rows


@lru_cache(maxsize=256)
def fitting_readouts(facts: MemoryFacts, most: int, memory_bytes: int) -> int:
    """How many readouts can be scored together on a GPU, between 1 and `most`.

    Their keys and values take at most 1/KV_SHARE of the memory that the model leaves.
    """
    single = memory(facts)
    most = min(most, (memory_bytes - single.weights) // KV_SHARE // single.kv_cache)
    phases = ("generate", "held-out loss")
    while most > 1 and not _fits(replace(facts, readouts=most), phases, memory_bytes):
        most -= 1
    return max(1, most)


def _fits(facts: MemoryFacts, phases: tuple[str, ...], memory_bytes: int) -> bool:
    parts = memory(facts)
    return max(parts.phase_bytes(name) for name in phases) <= USABLE_SHARE * memory_bytes
