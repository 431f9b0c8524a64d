"""Launches a sweep on a cluster: renders a template of `jobs/`, and submits it."""

from sweeper.launch.options import TARGETS, Options, Target, options_of
from sweeper.launch.prepare import Prepared, Step, prepare, write
from sweeper.launch.slurm_jobs import SlurmJob, last_job
from sweeper.launch.submit import Submitted, submit

__all__ = [
    "TARGETS",
    "Options",
    "Prepared",
    "SlurmJob",
    "Step",
    "Submitted",
    "Target",
    "last_job",
    "options_of",
    "prepare",
    "submit",
    "write",
]
