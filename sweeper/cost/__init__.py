"""What a sweep will cost, and what it has cost. Pure: standard library and numpy, no torch."""

from sweeper.cost.estimate import (
    Estimate,
    duration_text,
    estimate,
    makespan,
    memory_facts,
    peak_memory,
)
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
from sweeper.cost.saved import Saved, saved
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
    "Saved",
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
    "saved",
    "shape_of",
    "spent",
    "train_flops",
    "two_rates",
]
