"""Sweeps over fine-tuning hyperparameters that keep a model safe and useful.

`sweeper.open_run(path)` reads a run folder; see `sweeper.runs.run.Run`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.runs.run import Run, open_run

__all__ = ["Run", "__version__", "open_run"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the run interface at its first use: `sweeper.trial` must import where pandas is absent."""
    if name in ("Run", "open_run"):
        from sweeper.runs import run

        return getattr(run, name)
    raise AttributeError(f"module 'sweeper' has no attribute {name!r}")
