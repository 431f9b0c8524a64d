"""What a sweep will cost, and what it has cost. Pure: standard library and numpy, no torch."""

from sweeper.cost.estimate import (
    Estimate,
    duration_text,
    estimate,
    makespan,
    memory_facts,
    peak_memory,
    spread,
)
from sweeper.cost.memory import GIB, MemoryFacts, MemoryParts, activation_bytes, memory
from sweeper.cost.published import (
    ROWS,
    SHAPES,
    SUITES,
    PromptFigures,
    RowFigures,
    published_prompts,
    published_rows,
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
from sweeper.cost.shape import ModelShape, read_shape, shape_of
from sweeper.cost.spent import Spent, spent

__all__ = [
    "GIB",
    "GPUS",
    "ROWS",
    "SHAPES",
    "SUITES",
    "WORKER_START_SECONDS",
    "Device",
    "Estimate",
    "MemoryFacts",
    "MemoryParts",
    "ModelShape",
    "PromptFigures",
    "Rates",
    "RowFigures",
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
    "published_prompts",
    "published_rows",
    "read_shape",
    "shape_of",
    "spent",
    "spread",
    "train_flops",
    "two_rates",
]
