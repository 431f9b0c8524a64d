"""Validation of launch options: no value can inject syntax into a script or a manifest."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from sweeper.errors import LaunchError

Target = Literal["ray", "slurm", "kuberay", "skypilot"]

TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True)
class Options:
    """The options of a launch; None where the target does not need it or has a default.

    `storage` and `out` are folders on the cluster; `memory` is a Kubernetes quantity; `time` is
    `[days-]hours:minutes:seconds`; `retries` counts restarts after the first start; `sbatch` are further
    options of sbatch, `--name` or `--name=value`; `shared` leaves the rest of each node to other jobs.
    """

    address: str | None = None
    storage: str | None = None
    working_dir: str | None = None
    nodes: int = 1
    gpus_per_node: int = 1
    cpus_per_node: int | None = None
    memory: str | None = None
    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    sbatch: tuple[str, ...] = ()
    shared: bool = False
    image: str | None = None
    namespace: str | None = None
    claim: str | None = None
    token_secret: str | None = None
    queue: str | None = None
    pod_patch: str | None = None
    accelerators: str | None = None
    bucket: str | None = None
    volume: str | None = None
    package: str | None = None
    spot: bool = True
    retries: int | None = None


_MEANT_FOR: Mapping[str, tuple[Target, ...]] = {
    "address": ("ray",),
    "storage": ("ray", "kuberay", "skypilot"),
    "working_dir": ("ray",),
    "nodes": ("slurm", "kuberay", "skypilot"),
    "gpus_per_node": ("slurm", "kuberay"),
    "cpus_per_node": ("slurm", "kuberay"),
    "memory": ("slurm", "kuberay"),
    "time": ("slurm",),
    "partition": ("slurm",),
    "account": ("slurm",),
    "sbatch": ("slurm",),
    "shared": ("slurm",),
    "image": ("kuberay",),
    "namespace": ("kuberay",),
    "claim": ("kuberay",),
    "token_secret": ("kuberay",),
    "queue": ("kuberay",),
    "pod_patch": ("kuberay",),
    "accelerators": ("skypilot",),
    "bucket": ("skypilot",),
    "volume": ("skypilot",),
    "package": ("skypilot",),
    "spot": ("skypilot",),
    "retries": ("slurm", "kuberay", "skypilot"),
}

_NEEDED: Mapping[Target, tuple[str, ...]] = {
    "ray": (),
    "slurm": (),
    "kuberay": ("image", "claim"),
    "skypilot": ("accelerators",),
}

_DNS = (r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "lower case letters, digits and hyphens")
_WORD = (r"[A-Za-z0-9][A-Za-z0-9_.,+-]{0,127}", "letters, digits and _ . , + -")

_SHAPES: Mapping[str, tuple[str, str]] = {
    "address": (
        r"(https?://)?([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?/?",
        "an address such as http://HEAD:8265",
    ),
    "memory": (r"[1-9][0-9]*(Mi|Gi|Ti)", "a quantity such as 64Gi"),
    "time": (r"([0-9]{1,3}-)?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]", "[days-]hours:minutes:seconds"),
    "partition": _WORD,
    "account": _WORD,
    "image": (
        r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,254}(@sha256:[0-9a-f]{64})?",
        "an image name, with tag or digest",
    ),
    "namespace": _DNS,
    "claim": _DNS,
    "token_secret": _DNS,
    "queue": _DNS,
    "accelerators": (r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(:[1-9][0-9]{0,2})?", "such as H100:8"),
    "bucket": (r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "3 to 63 of a-z, 0-9, hyphen and dot"),
    "volume": _WORD,
    "package": (r"[^\s\x00-\x1f]{1,400}", "what pip installs, without blanks"),
}

LEAST_SECONDS = 300
"""The shortest walltime in which a sweep starts, trains and stops."""

_OWN_SBATCH = {
    "nodes": "--nodes",
    "gpus-per-node": "--gpus-per-node",
    "cpus-per-task": "--cpus-per-node",
    "mem": "--memory",
    "exclusive": "--shared to turn it off",
    "partition": "--partition",
    "account": "--account",
    "time": "--time",
}
"""Options of sbatch -> the one of `launch`."""

_FIXED_SBATCH = frozenset(
    (
        "array",
        "chdir",
        "dependency",
        "hold",
        "job-name",
        "no-requeue",
        "ntasks",
        "ntasks-per-node",
        "open-mode",
        "output",
        "parsable",
        "requeue",
        "signal",
        "test-only",
        "wait",
        "wrap",
    )
)
"""Options of sbatch that the job itself depends on."""

_LEAST: Mapping[str, int] = {"nodes": 1, "gpus_per_node": 0, "cpus_per_node": 1, "retries": 0}

PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+@=,-]*")
"""A path that needs no quoting for sbatch, a shell or a manifest."""


def options_of(target: Target, given: Mapping[str, Any]) -> Options:
    """The validated options of one target; None means not given.

    Raises: LaunchError: an option of another target, a missing one, or an invalid one; all in one message.
    """
    known = {field.name for field in fields(Options)}
    assert known == set(_MEANT_FOR) and set(given) <= known
    given = {name: value for name, value in given.items() if value is not None}
    problems = [
        f"{_flag(name)} belongs to --on {' and '.join(_MEANT_FOR[name])}"
        for name in given
        if target not in _MEANT_FOR[name]
    ]
    problems += [f"{_flag(name)} is needed" for name in _NEEDED[target] if name not in given]
    problems += [text for name, value in given.items() if (text := _problem(name, value))]
    if target == "skypilot":
        problems += _storage_problems(given)
    problems += [text for option in given.get("sbatch", ()) if (text := _sbatch_problem(option))]
    if problems:
        raise LaunchError(
            f"--on {target}: " + "; ".join(problems),
            code="launch.option",
            target=target,
            problems=problems,
        )
    return Options(**given)


def _problem(name: str, value: Any) -> str | None:
    if name in _LEAST and value < _LEAST[name]:
        return f"{_flag(name)}: found {value}, expected at least {_LEAST[name]}"
    if name == "storage" and not _is_folder(value):
        return (
            f"--storage: found {value!r}, expected an absolute path of letters, digits and _ . + @ = , - "
            "without `..`"
        )
    if name in _SHAPES:
        pattern, words = _SHAPES[name]
        if re.fullmatch(pattern, value) is None:
            return f"{_flag(name)}: found {value!r}, expected {words}"
    if name == "time" and walltime_seconds(value) < LEAST_SECONDS:
        return f"--time: found {value!r}, expected at least {LEAST_SECONDS // 60} minutes"
    return None


def walltime_seconds(time: str) -> int:
    """The seconds of a valid `[days-]hours:minutes:seconds`."""
    days, _, clock = time.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _sbatch_problem(option: str) -> str | None:
    """A line of the batch script is read by sbatch, which knows quotes and comments."""
    shape = re.fullmatch(r"--([a-z][a-z0-9-]*)(=[A-Za-z0-9_.,:;+@%/=&|*()\[\]-]+)?", option)
    if shape is None:
        return (
            f"--sbatch: found {option!r}, expected --NAME or --NAME=VALUE without blanks and quotes"
        )
    if (own := _OWN_SBATCH.get(shape[1])) is not None:
        return f"--sbatch: instead of --{shape[1]} use {own}"
    if shape[1] in _FIXED_SBATCH:
        return f"--sbatch: --{shape[1]} is set by the job itself"
    return None


def _is_folder(path: str) -> bool:
    return (
        PLAIN_PATH.fullmatch(path) is not None
        and ".." not in PurePosixPath(path).parts
        and PurePosixPath(path) != PurePosixPath("/")
    )


def _storage_problems(given: Mapping[str, Any]) -> list[str]:
    if ("bucket" in given) == ("volume" in given):
        return ["give --bucket (one machine) or --volume, one of the two"]
    if "volume" in given and "spot" not in given:
        return [
            "--volume: volumes of SkyPilot exist on Kubernetes and RunPod only, which rarely have spot "
            "machines; add --no-spot, or --spot where yours has them"
        ]
    if "bucket" in given and given.get("nodes", 1) > 1:
        return [
            f"a mounted bucket cannot be written by {given['nodes']} machines at once; use --nodes 1 "
            f"with more GPUs, or on Kubernetes --volume with a ReadWriteMany volume"
        ]
    return []


def _flag(name: str) -> str:
    return "--no-spot" if name == "spot" else f"--{name.replace('_', '-')}"
