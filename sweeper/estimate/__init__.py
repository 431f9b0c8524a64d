"""What a sweep will cost, and what it has cost. Standard library and numpy only, no torch."""

from sweeper.estimate.disk import DiskNeed, disk_data, disk_need, expected_front
from sweeper.estimate.estimate import (
    Estimate,
    duration_text,
    estimate,
    makespan,
    memory_facts,
    peak_memory,
)
from sweeper.estimate.published import ROWS, SHAPES, SUITES, published_prompts, published_rows
from sweeper.estimate.rates import GPUS, Device, Rates, Tokens, analytic_rates, cpu
from sweeper.estimate.spent import saved, spent

__all__ = [
    "GPUS",
    "ROWS",
    "SHAPES",
    "SUITES",
    "Device",
    "DiskNeed",
    "Estimate",
    "Rates",
    "Tokens",
    "analytic_rates",
    "cpu",
    "disk_data",
    "disk_need",
    "duration_text",
    "estimate",
    "expected_front",
    "makespan",
    "memory_facts",
    "peak_memory",
    "published_prompts",
    "published_rows",
    "saved",
    "spent",
]
