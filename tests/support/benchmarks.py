"""The programs under `benchmarks`, whose simulations some tests repeat on a small scale."""

import importlib
from typing import Any


def benchmark(name: str) -> Any:
    """A benchmark as a module; it is not typed for the tests."""
    return importlib.import_module(name)
