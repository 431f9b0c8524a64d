"""Estimates the device memory of a trial from tensor sizes. Standard library only: trials use it, too."""

from sweeper.memory.fit import (
    KV_SHARE,
    MICRO_BATCH_TOKENS,
    USABLE_SHARE,
    fitting_readouts,
    fitting_rows,
    micro_batch_rows,
)
from sweeper.memory.flops import PEAK_FLOPS, peak_flops, train_flops
from sweeper.memory.parts import (
    GIB,
    HELDOUT_TOKENS,
    LOGIT_ROWS,
    TILE,
    MemoryFacts,
    MemoryParts,
    activation_bytes,
    bytes_per_weight,
    memory,
    state_bytes,
    weights_bytes,
)
from sweeper.memory.quantized import base_bytes, expanded_bytes, moment_bytes, nf4_bytes
from sweeper.memory.shape import FAMILIES, ModelShape, hub_cache, read_shape, shape_of

__all__ = [
    "FAMILIES",
    "GIB",
    "HELDOUT_TOKENS",
    "KV_SHARE",
    "LOGIT_ROWS",
    "MICRO_BATCH_TOKENS",
    "PEAK_FLOPS",
    "TILE",
    "USABLE_SHARE",
    "MemoryFacts",
    "MemoryParts",
    "ModelShape",
    "activation_bytes",
    "base_bytes",
    "bytes_per_weight",
    "expanded_bytes",
    "fitting_readouts",
    "fitting_rows",
    "hub_cache",
    "memory",
    "micro_batch_rows",
    "moment_bytes",
    "nf4_bytes",
    "peak_flops",
    "read_shape",
    "shape_of",
    "state_bytes",
    "train_flops",
    "weights_bytes",
]
