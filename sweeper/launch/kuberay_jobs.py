"""The RayJob of a run on Kubernetes: its state, and how to stop it."""

from typing import NamedTuple

from sweeper.launch.kuberay import ENDED
from sweeper.launch.tools import answer

WAITING = ("", "Initializing", "Waiting", "Suspended")
"""`status.jobDeploymentStatus` of a RayJob whose sweep has not begun."""

KIND = "rayjobs.ray.io"


class KubeRayJob(NamedTuple):
    """The name of a RayJob and its namespace; None for that of kubectl's context."""

    name: str
    namespace: str | None

    @property
    def title(self) -> str:
        """What it is called for people."""
        return f"RayJob {self.name}"

    @property
    def log(self) -> str:
        """The command that prints what its driver prints."""
        return " ".join(("kubectl", "logs", "-l", f"job-name={self.name}", *self._where))

    @property
    def _where(self) -> tuple[str, ...]:
        return () if self.namespace is None else ("-n", self.namespace)

    def _status(self) -> str | None:
        path = "jsonpath={.status.jobDeploymentStatus}"
        return answer("kubectl", "get", KIND, self.name, "-o", path, *self._where)

    def state(self) -> str | None:
        """Such as `Running`; None once it is deleted, or without an answer of `kubectl`."""
        found = self._status()
        return "starting" if found == "" else found

    def stop(self) -> bool:
        """Delete it unless it has ended: its pods are terminated, and its sweep ends like after Ctrl-C."""
        found = self._status()
        return found is not None and found not in ENDED and self._delete()

    def cancel(self, *, only_waiting: bool) -> bool:
        """Delete it if it waits, or runs; whether it did."""
        found = self._status()
        if found is None or found in ENDED or (only_waiting and found not in WAITING):
            return False
        return self._delete()

    def _delete(self) -> bool:
        return (
            answer("kubectl", "delete", KIND, self.name, "--wait=false", *self._where) is not None
        )
