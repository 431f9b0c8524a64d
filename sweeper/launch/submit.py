"""Submits a prepared launch with the target's own tool."""

import shlex
import shutil
import subprocess
from importlib.util import find_spec
from typing import NamedTuple

from sweeper.errors import LaunchError
from sweeper.launch.jobs import note_job
from sweeper.launch.kuberay import is_running
from sweeper.launch.kuberay_jobs import KubeRayJob
from sweeper.launch.prepare import Prepared, Step
from sweeper.launch.ray_cluster_jobs import RayClusterJob
from sweeper.launch.slurm_jobs import SlurmJob, submitted_id
from sweeper.store.folder import RunFolder

PATIENCE_SECONDS = 600


class Submitted(NamedTuple):
    """The output of the tool."""

    text: str


def submit(prepared: Prepared) -> Submitted:
    """Submit a launch whose files are written.

    Raises:
        LaunchError: the tool is not installed, or it failed.
    """
    step = prepared.step
    if step.submission_id is not None:
        return _ray(prepared, step, step.submission_id)
    if shutil.which(step.tool) is None:
        raise LaunchError(missing(prepared), code="launch.missing_tool")
    launch = RunFolder(prepared.run).launch
    if step.rayjob is not None and is_running(step.rayjob):
        note_job(launch, KubeRayJob(step.rayjob.name, step.rayjob.namespace))
        return Submitted(
            f"RayJob {step.rayjob.name} already exists and has not finished: nothing to submit"
        )
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            step.command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(
            f"{step.tool} did not finish within {PATIENCE_SECONDS} s",
            code="launch.timeout",
            tool=step.tool,
        ) from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise LaunchError(
            f"{step.tool} failed with code {done.returncode}: {' '.join(said) or 'no message'}; the "
            f"command was: {shlex.join(step.command)}",
            code="launch.refused",
            tool=step.tool,
            exit_code=done.returncode,
        )
    if step.rayjob is not None:
        note_job(launch, KubeRayJob(step.rayjob.name, step.rayjob.namespace))
    elif prepared.target == "slurm" and (number := submitted_id(done.stdout)) is not None:
        note_job(launch, SlurmJob(number, launch))
    return Submitted(done.stdout.strip())


def missing(prepared: Prepared) -> str:
    """The message where the tool of the target is not installed."""
    return (
        f"`{prepared.step.tool}` is not installed on this machine, so nothing was submitted; the files "
        f"are in "
        f"{prepared.run / 'launch'}. On a machine with it, run: {shlex.join(prepared.step.command)}"
    )


def _ray(prepared: Prepared, step: Step, submission_id: str) -> Submitted:
    if find_spec("ray") is None or find_spec("requests") is None:
        raise LaunchError(missing(prepared), code="launch.missing_tool")
    from sweeper.launch.ray_jobs import submit_ray_job

    assert step.address is not None
    launch = RunFolder(prepared.run).launch
    job = submit_ray_job(step.address, submission_id, prepared.entrypoint, launch / "ray.yaml")
    note_job(launch, RayClusterJob(job.submission_id, step.address))
    if job.state == "running":
        return Submitted(
            f"job {job.submission_id} already exists and has not finished: nothing to submit"
        )
    after = f", which continues {job.before}" if job.before else ""
    return Submitted(f"submitted job {job.submission_id}{after}")
