"""Sweeps over fine-tuning hyperparameters that keep a model safe and useful.

    spec = sweeper.load_spec("miniature")
    run = sweeper.run(spec, "runs/first")
    run.front().frame()
    run.recommend()
    run.plot("front")

`load_spec`, `plan`, `run` and `open_run` are the functions to begin with; see `sweeper.Run` for the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeper.errors import SweeperError
    from sweeper.runs.imported import import_run
    from sweeper.runs.plans import Plan, load_spec, plan
    from sweeper.runs.results import Front
    from sweeper.runs.run import Run, open_run
    from sweeper.runs.start import run
    from sweeper.setup.init import init
    from sweeper.spec import SweepSpec

__all__ = [
    "Front",
    "Plan",
    "Run",
    "SweepSpec",
    "SweeperError",
    "__version__",
    "import_run",
    "init",
    "load_spec",
    "open_run",
    "plan",
    "run",
]

__version__ = "0.1.0"

_HOME = {
    "Front": "sweeper.runs.results",
    "Plan": "sweeper.runs.plans",
    "Run": "sweeper.runs.run",
    "SweepSpec": "sweeper.spec",
    "SweeperError": "sweeper.errors",
    "import_run": "sweeper.runs.imported",
    "init": "sweeper.setup.init",
    "load_spec": "sweeper.runs.plans",
    "open_run": "sweeper.runs.run",
    "plan": "sweeper.runs.plans",
    "run": "sweeper.runs.start",
}


def __getattr__(name: str) -> Any:
    """Load the interface at its first use: workers import `sweeper.trial` without pandas or plotly."""
    if name not in _HOME:
        raise AttributeError(f"module 'sweeper' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
