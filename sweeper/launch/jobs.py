"""The cluster job of a run folder: what it does now, and how to stop it.

`launch` notes the job that it submitted last in RUN/launch/job.json. A run folder may come from anybody, so
names in that file are of a plain form, and none can be an option of a tool.
"""

import json
import re
from pathlib import Path
from typing import Any, Protocol

from sweeper.launch.kuberay_jobs import KubeRayJob
from sweeper.launch.ray_cluster_jobs import RayClusterJob
from sweeper.launch.slurm_jobs import SlurmJob
from sweeper.store.folder import write_atomic

NOTE = "job.json"

_NUMBER = re.compile(r"[0-9]{1,20}")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_.]{0,127}")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]/_-]{1,200}")


class ClusterJob(Protocol):
    """A job that was submitted for a run."""

    @property
    def title(self) -> str:
        """What it is called for people."""

    @property
    def log(self) -> str:
        """The file of what it prints, or the command that shows it."""

    def state(self) -> str | None:
        """The state in the words of its cluster, or why it is not known; None if the job is gone."""

    def stop(self) -> bool:
        """Let the sweep that runs end like Ctrl-C; False if none does."""

    def cancel(self, *, only_waiting: bool) -> bool:
        """Take it off the cluster, where `only_waiting` unless it runs; whether it was there."""


def note_job(launch: Path, job: ClusterJob) -> None:
    """Keep which job was submitted last."""
    fields: dict[str, str | None]
    if isinstance(job, SlurmJob):
        fields = {"kind": "slurm", "id": job.id}
    elif isinstance(job, RayClusterJob):
        fields = {"kind": "ray", "id": job.id, "address": job.address}
    else:
        assert isinstance(job, KubeRayJob)
        fields = {"kind": "kuberay", "id": job.name, "namespace": job.namespace}
    write_atomic(launch / NOTE, json.dumps(fields))


def last_job(launch: Path) -> ClusterJob | None:
    """The job that was last submitted for a run; None if there is none, or its note is damaged."""
    try:
        found = json.loads((launch / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    kind, namespace = found.get("kind"), found.get("namespace")
    if kind == "slurm" and (name := _plain(_NUMBER, found, "id")):
        return SlurmJob(name, launch)
    if kind == "ray" and (name := _plain(_ID, found, "id")):
        address = _plain(_ADDRESS, found, "address")
        return None if address is None else RayClusterJob(name, address)
    if kind == "kuberay" and (name := _plain(_LABEL, found, "id")):
        known = namespace is None or _plain(_LABEL, found, "namespace")
        return KubeRayJob(name, namespace) if known else None
    return None


def _plain(pattern: re.Pattern[str], found: dict[str, Any], key: str) -> str | None:
    """A value that has the form of its pattern; None for any other."""
    value = found.get(key)
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
