"""What a sweep will cost, and what it has cost. Pure: standard library and numpy, no torch."""

from sweeper.cost.estimate import (
    Estimate,
    duration_text,
    estimate,
    makespan,
    memory_facts,
    peak_memory,
)
from sweeper.cost.rates import (
    GPUS,
    WORKER_START_SECONDS,
    Device,
    Rates,
    Tokens,
    analytic_rates,
    cpu,
    train_flops,
    two_rates,
)
from sweeper.cost.spent import Spent, spent
from sweeper.memory import (
    GIB,
    MemoryFacts,
    MemoryParts,
    ModelShape,
    activation_bytes,
    memory,
    read_shape,
    shape_of,
)

__all__ = [
    "GIB",
    "GPUS",
    "WORKER_START_SECONDS",
    "Device",
    "Estimate",
    "MemoryFacts",
    "MemoryParts",
    "ModelShape",
    "Rates",
    "Spent",
    "Tokens",
    "activation_bytes",
    "analytic_rates",
    "cpu",
    "duration_text",
    "estimate",
    "makespan",
    "memory",
    "memory_facts",
    "peak_memory",
    "read_shape",
    "shape_of",
    "spent",
    "train_flops",
    "two_rates",
]
