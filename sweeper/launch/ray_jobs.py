"""Ray's job client: one job of a run at a time, with predictable names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import requests
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from sweeper.errors import ClusterTokenError, LaunchError

MOST_JOBS = 1000

ENDED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED})


class RayJob(NamedTuple):
    """A job: its name, and whether it was submitted now, after `before` that ended as it says, or found."""

    submission_id: str
    state: Literal["submitted", "running"]
    before: str | None


def submit_ray_job(address: str, submission_id: str, entrypoint: str, runtime_env: Path) -> RayJob:
    """Submit a job unless one of the same run is waiting or running.

    The first is called `submission_id`, the next ones `submission_id`-2, -3 and so on: Ray never accepts a
    name twice, and a finished job is continued under the next one.

    Raises:
        ClusterTokenError: the cluster asks for a token that this process does not have.
        LaunchError: the cluster cannot be reached, or refuses.
    """
    with _asking(address) as client:
        known = {job.submission_id: job.status for job in client.list_jobs()}
        before = None
        for count in range(1, MOST_JOBS):
            name = submission_id if count == 1 else f"{submission_id}-{count}"
            if name not in known:
                environment = yaml.safe_load(runtime_env.read_text(encoding="utf-8"))
                client.submit_job(
                    entrypoint=entrypoint, submission_id=name, runtime_env=environment
                )
                return RayJob(name, "submitted", before)
            if known[name] not in ENDED:
                return RayJob(name, "running", before)
            before = f"{name} ({known[name].value.lower()})"
    raise LaunchError(
        f"there are already {MOST_JOBS} jobs called {submission_id}-N; choose another --out",
        code="launch.too_many_jobs",
    )


def job_state(address: str, submission_id: str) -> str | None:
    """The state of a job, such as `RUNNING`; None if the cluster does not know it.

    Raises:
        ClusterTokenError, LaunchError: as of `submit_ray_job`.
    """
    with _asking(address) as client:
        known = {job.submission_id: job.status.value for job in client.list_jobs()}
        return known.get(submission_id)


def stop_job(address: str, submission_id: str) -> bool:
    """Ask a running job to end, without waiting for it; False if it has ended.

    Raises:
        ClusterTokenError, LaunchError: as of `submit_ray_job`.
    """
    with _asking(address) as client:
        return bool(client.stop_job(submission_id))


@contextmanager
def _asking(address: str) -> Iterator[JobSubmissionClient]:
    """Raises ClusterTokenError or LaunchError where the cluster cannot be asked, or refuses."""
    try:
        yield JobSubmissionClient(address)
    except AuthenticationError as error:
        raise ClusterTokenError(address, str(error)) from None
    except (ConnectionError, RuntimeError, ValueError, requests.RequestException) as error:
        first = str(error).strip().splitlines()[0]
        if "401" in str(error) or "403" in str(error):
            raise ClusterTokenError(address, first) from None
        raise LaunchError(
            f"cannot ask Ray at {address} for jobs: {first}; give the address of the dashboard "
            "(--address http://HEAD:8265), and start the cluster with ray[default] installed",
            code="launch.ray_address",
            address=address,
        ) from None
