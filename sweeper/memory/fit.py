"""How much a trial computes at once: rows of a micro-batch, and readouts scored together.

Neither is a hyperparameter. On a CPU both follow from fixed bounds; on a GPU from what the estimate says
fits into its whole memory, never from what happens to be free: no layout may depend on that.
"""

from dataclasses import replace
from functools import lru_cache

from sweeper.memory.parts import MemoryFacts, memory

MICRO_BATCH_TOKENS = 16_384
"""Without an explicit micro-batch size, a micro-batch holds at most this many tokens."""

USABLE_SHARE = 0.9
"""The share of a GPU that an estimate may fill: the rest is for fragmentation, and for its errors."""

KV_SHARE = 4
"""Keys and values take at most one part in so many of what the model leaves of a GPU."""


def micro_batch_rows(batch_size: int, max_length: int, explicit: int | None, paths: int = 1) -> int:
    """Rows per path and micro-batch: the explicit number, else as many as MICRO_BATCH_TOKENS allow.

    Paths that train together share them, so that several adapters keep to the same bound as one; every path
    has at least one row.
    """
    fitting = MICRO_BATCH_TOKENS // max_length if explicit is None else explicit
    return max(1, min(batch_size, fitting // paths))


@lru_cache(maxsize=256)
def fitting_rows(facts: MemoryFacts, most: int, paths: int, memory_bytes: int) -> int:
    """Rows per path and micro-batch on a GPU: `most` where they fit, else the largest power of two.

    Args:
        facts: Of the trial; its `train_rows` do not matter.
        most: The bound without a GPU; see `micro_batch_rows`.
        paths: How many share the micro-batch.
        memory_bytes: Of the GPU, or of the trial's share of it.

    Returns:
        At least 1, whether or not one row fits.
    """
    rows = most
    while rows > 1 and not _fits(replace(facts, train_rows=rows * paths), ("train",), memory_bytes):
        rows = 1 << ((rows - 1).bit_length() - 1)
    return rows


@lru_cache(maxsize=256)
def fitting_readouts(facts: MemoryFacts, most: int, memory_bytes: int) -> int:
    """How many of `most` readouts can be scored together on a GPU, at least 1.

    Their keys and values keep to one part in KV_SHARE of what the model leaves, too.
    """
    one = memory(facts)
    most = min(most, (memory_bytes - one.weights) // KV_SHARE // one.kv_cache)
    phases = ("generate", "held-out loss")
    while most > 1 and not _fits(replace(facts, readouts=most), phases, memory_bytes):
        most -= 1
    return max(1, most)


def _fits(facts: MemoryFacts, phases: tuple[str, ...], memory_bytes: int) -> bool:
    parts = memory(facts)
    return max(parts.phase_bytes(name) for name in phases) <= USABLE_SHARE * memory_bytes
