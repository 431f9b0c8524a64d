"""A job on a Ray cluster: its state, and how to stop it."""

import os
import shlex
from importlib.util import find_spec
from typing import NamedTuple
from urllib.parse import urlsplit

from sweeper.errors import ClusterTokenError, LaunchError

LOCAL = ("127.0.0.1", "localhost", "::1")


class RayClusterJob(NamedTuple):
    """The submission id of a job, and the address of the dashboard that took it."""

    id: str
    address: str

    @property
    def title(self) -> str:
        """What it is called for people."""
        return f"Ray job {self.id}"

    @property
    def log(self) -> str:
        """The command that prints what the job prints."""
        return shlex.join(("ray", "job", "logs", "--address", self.address, self.id))

    def state(self) -> str | None:
        """Such as `RUNNING`; None if the cluster does not know it. A text says why it cannot be asked."""
        if not self._is_known:
            known = f"RAY_API_SERVER_ADDRESS={shlex.quote(self.address)}"
            return f"not asked, as its address is only known from the run folder; set {known}"
        if find_spec("ray") is None or find_spec("requests") is None:
            return "not asked, as Ray's job client is not installed here"
        from sweeper.launch.ray_jobs import job_state

        try:
            return job_state(self.address, self.id)
        except (ClusterTokenError, LaunchError) as error:
            return f"no answer: {error}"

    def stop(self) -> bool:
        """Let the job end its sweep like Ctrl-C; False if it does not run."""
        return self._stop("RUNNING")

    def cancel(self, *, only_waiting: bool) -> bool:
        """Stop it if it waits, or runs; whether it did."""
        return self._stop("PENDING") if only_waiting else self._stop("PENDING", "RUNNING")

    @property
    def _is_known(self) -> bool:
        """Whether the user, too, has named this cluster: a token is sent to nobody else.

        A run folder may come from anybody.
        """
        own = os.environ.get("RAY_API_SERVER_ADDRESS")
        return self.address == own or urlsplit(self.address).hostname in LOCAL

    def _stop(self, *states: str) -> bool:
        if self.state() not in states:
            return False
        from sweeper.launch.ray_jobs import stop_job

        return stop_job(self.address, self.id)
