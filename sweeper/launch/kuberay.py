"""KubeRay: names that follow the content, patches of pods, and jobs that are there already."""

import hashlib
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sweeper.errors import LaunchError

RUN_LABEL = "sweeper-run"
"""The label of everything that belongs to one run folder; its value is `run_label`."""

ENDED = ("Complete", "Failed", "ValidationFailed")
"""`status.jobDeploymentStatus` of a RayJob that makes no further attempt."""

PATCHED = ("head", "worker")

KUBECTL_SECONDS = 60


class RayJobName(NamedTuple):
    """The name of a RayJob, the label of its run, and its namespace; None for that of kubectl's context."""

    name: str
    label: str
    namespace: str | None


class Found(NamedTuple):
    """A RayJob of the run that is there, and whether it is over."""

    name: str
    status: str

    @property
    def ended(self) -> bool:
        """Whether it makes no further attempt."""
        return self.status in ENDED


def run_label(out: str) -> str:
    """The value of RUN_LABEL for a run folder on the cluster."""
    return _digest(out)


def named(render: Callable[[str], str], prefix: str) -> tuple[str, str]:
    """A manifest and its name, which is another one wherever anything in the manifest is.

    So that launching again with other settings never changes the objects of a job that runs.

    Args: render: The manifest under a name. prefix: Begins the name, at most 38 characters.
    """
    name = f"{prefix}-{_digest(render('name'))}"
    return name, render(name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def patch_pods(manifest: str, path: Path | None) -> str:
    """A manifest whose pod templates are merged with those of a file of the user.

    The file holds `head` and `worker`, either or both, each part of a PodTemplateSpec. Mappings are merged,
    lists of named items (containers, volumes) by their names, other lists are appended to; null removes.

    Raises:
        LaunchError: the file cannot be read, or is of another form.
    """
    if path is None:
        return manifest
    patch = _read_patch(path)
    documents = list(yaml.safe_load_all(manifest))
    for document in documents:
        if document.get("kind") == "RayJob":
            cluster = document["spec"]["rayClusterSpec"]
            groups = {
                "head": [cluster["headGroupSpec"]],
                "worker": cluster.get("workerGroupSpecs", []),
            }
            for part, change in patch.items():
                for group in groups[part]:
                    group["template"] = merged(group["template"], change)
    # Through JSON, so that no anchor of the template is shared by what is dumped.
    return yaml.safe_dump_all(json.loads(json.dumps(documents)), sort_keys=False)


def _read_patch(path: Path) -> Mapping[str, Any]:
    try:
        patch = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise LaunchError(
            f"--pod-patch: cannot read {path}: {said}", code="launch.option", path=path
        ) from None
    wrong = not isinstance(patch, dict) or not patch or not set(patch) <= set(PATCHED)
    if wrong or not all(isinstance(part, dict) for part in patch.values()):
        found = ", ".join(map(str, patch)) if isinstance(patch, dict) else type(patch).__name__
        raise LaunchError(
            f"--pod-patch: {path} holds {found or 'nothing'}, expected `head` and `worker`, either or "
            "both, each with `metadata` or `spec` of a pod",
            code="launch.option",
            path=path,
        )
    return dict(patch)


def merged(old: Any, new: Any) -> Any:
    """`new` merged into `old`; see `patch_pods`."""
    if isinstance(old, dict) and isinstance(new, dict):
        both = {key: merged(old.get(key), value) for key, value in new.items()}
        kept = {**old, **both}
        return {key: value for key, value in kept.items() if value is not None}
    if isinstance(old, list) and isinstance(new, list):
        return _merged_lists(old, new)
    return new


def _merged_lists(old: list[Any], new: list[Any]) -> list[Any]:
    joined = list(old)
    for item in new:
        name = item.get("name") if isinstance(item, dict) else None
        places = [
            place
            for place, other in enumerate(old)
            if name is not None and isinstance(other, dict) and other.get("name") == name
        ]
        if places:
            joined[places[0]] = merged(old[places[0]], item)
        else:
            joined.append(item)
    return joined


def is_running(job: RayJobName) -> bool:
    """Whether the very same job runs already; if not, it may be created.

    Raises:
        LaunchError: the cluster does not answer, or a job of this run is there that would not be continued.
    """
    where = "" if job.namespace is None else f" -n {job.namespace}"
    for found in _jobs(job):
        same = found.name == job.name
        if same and not found.ended:
            return True
        if same or not found.ended:
            said = (
                f"the RayJob {found.name} of this run has ended ({found.status}) and is still listed"
                if same
                else f"the RayJob {found.name} with other settings writes into the same run folder and has "
                f"not ended ({found.status or 'starting'}); it was left alone"
            )
            raise LaunchError(
                f"{said}; to continue the run, `kubectl delete rayjob {found.name}{where}`, launch again",
                code="launch.job_exists",
                name=found.name,
                status=found.status,
            )
    return False


def _jobs(job: RayJobName) -> list[Found]:
    each = '{range .items[*]}{.metadata.name} {.status.jobDeploymentStatus}{"\\n"}{end}'
    command = ["kubectl", "get", "rayjobs.ray.io", "-l", f"{RUN_LABEL}={job.label}", "-o"]
    command += [f"jsonpath={each}", *(() if job.namespace is None else ("-n", job.namespace))]
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            command, capture_output=True, text=True, check=False, timeout=KUBECTL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(
            f"kubectl did not answer within {KUBECTL_SECONDS} s; look at `kubectl cluster-info`",
            code="launch.timeout",
            tool="kubectl",
        ) from None
    if done.returncode != 0:
        said = " ".join(done.stderr.strip().splitlines()[-3:]) or "no message"
        raise LaunchError(
            f"kubectl cannot list RayJobs: {said}; look at `kubectl cluster-info`, and install the "
            "KubeRay operator 1.2 or newer",
            code="launch.refused",
            tool="kubectl",
            exit_code=done.returncode,
        )
    lines = [line.split(" ", 1) for line in done.stdout.splitlines() if line.strip()]
    return [Found(line[0], line[1].strip() if len(line) > 1 else "") for line in lines]
