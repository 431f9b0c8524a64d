"""What a sweep will cost, and what it has cost. Pure: standard library and numpy, no torch."""

from sweeper.estimate.disk import CHECKPOINT_COPIES, DiskNeed, disk_data, disk_need, expected_front
from sweeper.estimate.estimate import (
    Estimate,
    duration_text,
    estimate,
    makespan,
    memory_facts,
    peak_memory,
)
from sweeper.estimate.published import (
    ROWS,
    SHAPES,
    SUITES,
    PromptFigures,
    RowFigures,
    published_prompts,
    published_rows,
)
from sweeper.estimate.rates import (
    GPUS,
    WORKER_START_SECONDS,
    Device,
    Rates,
    Tokens,
    analytic_rates,
    cpu,
    two_rates,
)
from sweeper.estimate.saved import Saved, saved
from sweeper.estimate.spent import Spent, spent
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
    "CHECKPOINT_COPIES",
    "GIB",
    "GPUS",
    "ROWS",
    "SHAPES",
    "SUITES",
    "WORKER_START_SECONDS",
    "Device",
    "DiskNeed",
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
    "disk_data",
    "disk_need",
    "duration_text",
    "estimate",
    "expected_front",
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
    "two_rates",
]
