"""Launches a sweep on a cluster: renders a template of `jobs/`, and submits it."""

from sweeper.launch.jobs import ClusterJob, last_job
from sweeper.launch.options import TARGETS, Options, Target, options_of
from sweeper.launch.prepare import Prepared, Step, prepare, write
from sweeper.launch.submit import Submitted, submit

__all__ = [
    "TARGETS",
    "ClusterJob",
    "Options",
    "Prepared",
    "Step",
    "Submitted",
    "Target",
    "last_job",
    "options_of",
    "prepare",
    "submit",
    "write",
]
