"""Launches a sweep on a cluster: renders a template of `jobs/`, and submits it."""

from sweeper.launch.options import TARGETS, Options, Target, options_of
from sweeper.launch.prepare import Prepared, Step, prepare, write
from sweeper.launch.submit import Submitted, submit

__all__ = [
    "TARGETS",
    "Options",
    "Prepared",
    "Step",
    "Submitted",
    "Target",
    "options_of",
    "prepare",
    "submit",
    "write",
]
