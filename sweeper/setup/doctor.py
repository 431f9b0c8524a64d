"""Whether this machine can run a sweep: packages, devices, folders, the hub, a Ray cluster."""

import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from sweeper.errors import SweeperError
from sweeper.estimate.inputs import Machine, this_machine
from sweeper.memory import GIB, hub_cache
from sweeper.store.folder import cache_root

State = Literal["ok", "note", "problem"]


class Check(NamedTuple):
    """One thing looked at: what was found, and unless it is `ok`, what was expected and what to do."""

    name: str
    state: State
    found: str
    expected: str = ""
    remedy: str = ""


class Package(NamedTuple):
    """The version of a package that was tested, the oldest one allowed, and the extra it comes with."""

    tested: str
    least: str
    extra: str = ""


PACKAGES = {
    "numpy": Package("2.4.6", "2.0"),
    "pydantic": Package("2.14.3", "2.11"),
    "pyyaml": Package("6.0.3", "6.0"),
    "rich": Package("15.0.0", "14"),
    "typer": Package("0.29.2", "0.16"),
    "torch": Package("2.13.0", "2.8", "train"),
    "transformers": Package("5.23.0", "5.20", "train"),
    "peft": Package("0.21.2", "0.18", "train"),
    "safetensors": Package("0.8.0", "0.6", "train"),
    "tokenizers": Package("0.23.3", "0.22", "train"),
    "accelerate": Package("1.15.0", "1.10", "train"),
    "rouge-score": Package("0.1.2", "0.1.2", "train"),
    "ray": Package("2.60.0", "2.50", "cluster"),
    "optuna": Package("5.0.0", "5.0"),
    "scipy": Package("1.17.1", "1.14"),
    "datasets": Package("5.2.0", "4.0", "train"),
    "packaging": Package("26.3", "24"),
    "tenacity": Package("9.2.1", "9"),
    "openai": Package("3.57.0", "2.0", "eval"),
    "lm-eval": Package("0.4.13", "0.4.9", "eval"),
    "pandas": Package("3.1.1", "2.2"),
    "plotly": Package("7.1.0", "6.0"),
    "jinja2": Package("3.1.6", "3.1"),
    "starlette": Package("1.10.0", "1.0", "serve"),
    "uvicorn": Package("0.54.0", "0.40", "serve"),
    "tensorboardx": Package("2.6.5", "2.6", "trackers"),
    "mlflow-skinny": Package("3.17.2", "3.5", "trackers"),
    "wandb": Package("0.31.0", "0.25", "trackers"),
}
"""The dependencies of pyproject.toml, with the versions of constraints.txt; a test holds them together."""

NEEDED = ("", "train", "cluster")
"""The extras without which no sweep runs; the others are for some sweeps, or for reading results."""

LEAST_FREE_BYTES = GIB

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")

CONNECT_SECONDS = 5.0


def examine(out: Path, address: str | None = None) -> list[Check]:
    """Look at everything. Nothing is started, fetched or left behind.

    Args:
        out: Where runs are to be written.
        address: A Ray cluster to join for a moment; None joins none.
    """
    found = [_python(), *_packages(), *_devices(this_machine()), _token()]
    offline = _offline_flags()
    found.append(_offline(offline))
    hub = hub_cache()
    found.append(_folder("hub cache", hub, "HF_HOME or HF_HUB_CACHE", writes=not offline))
    found.append(_folder("own cache", cache_root(), "SWEEPER_CACHE"))
    found.append(_folder("runs", out, "--out"))
    found.append(_cluster(address))
    return found


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", "ok", version)


def _packages() -> Iterator[Check]:
    for name, package in PACKAGES.items():
        try:
            yield _package(name, package, metadata.version(name))
        except metadata.PackageNotFoundError:
            needed = package.extra in NEEDED
            yield Check(
                name,
                "problem" if needed else "note",
                "not installed",
                f"{package.tested} (tested)" + ("" if needed else f", for `{package.extra}` alone"),
                _install(package),
            )


def _package(name: str, package: Package, version: str) -> Check:
    if _numbers(version) < _numbers(package.least):
        return Check(name, "problem", version, f"at least {package.least}", _install(package))
    if _numbers(version) != _numbers(package.tested):
        expected = f"{package.tested} (tested)"
        return Check(name, "note", version, expected, "use constraints.txt if something fails")
    return Check(name, "ok", version)


def _install(package: Package) -> str:
    extra = f"[{package.extra}]" if package.extra else ""
    return f"pip install 'sweeper-llm{extra}'"


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version, without what follows it: 2.13.0+cpu -> 2, 13; no zeros at its end."""
    release = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in release.group().split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _devices(machine: Machine) -> Iterator[Check]:
    yield Check("CPUs", "ok", f"{machine.cpus} cores")
    listed = ", ".join(
        f"{gpu.name} {(gpu.memory_bytes or 0) / GIB:.0f} GiB" for gpu in machine.gpus
    )
    try:
        from sweeper.model.gpu_memory import seen_gpus
    except ModuleNotFoundError:
        yield Check("GPUs", "ok", f"{listed or 'none'} (nvidia-smi)")
        return
    seen = seen_gpus()
    if len(machine.gpus) > seen.number:
        yield Check(
            "GPUs",
            "problem",
            f"{listed} (nvidia-smi), but torch sees {seen.number}",
            f"a build of torch for these GPUs, not {seen.build}",
            "install a CUDA build of torch that the driver can run; look at CUDA_VISIBLE_DEVICES",
        )
        return
    yield Check("GPUs", "ok", f"{listed or seen.number or 'none'} ({seen.build})")


def _token() -> Check:
    """Whether there is a token. It is never read further than that."""
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return Check("hub token", "ok", "present (environment)")
    home = os.environ.get("HF_HOME")
    default = Path(home) / "token" if home else hub_cache().parent / "token"
    path = Path(os.environ.get("HF_TOKEN_PATH") or default)
    if path.is_file() and path.stat().st_size:
        return Check("hub token", "ok", "present (hf auth login)")
    remedy = "run `hf auth login` or set HF_TOKEN if a model or data set is gated"
    return Check("hub token", "note", "none", "one, for gated repositories alone", remedy)


def _offline_flags() -> dict[str, str]:
    given = {name: os.environ.get(name, "") for name in OFFLINE_FLAGS}
    return {name: value for name, value in given.items() if value.upper() in _TRUE}


_TRUE = ("1", "ON", "YES", "TRUE")


def _offline(flags: Mapping[str, str]) -> Check:
    if not flags:
        return Check("offline mode", "ok", "off")
    found = ", ".join(f"{name}={value}" for name, value in flags.items())
    remedy = "run `sweeper prefetch SPEC` where there is a network"
    return Check("offline mode", "note", found, "all models and data in the cache", remedy)


def _folder(name: str, folder: Path, setting: str, *, writes: bool = True) -> Check:
    """Whether a folder, or the nearest one above it that exists, can be written and has room."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
        free = shutil.disk_usage(place).free
    except OSError as error:
        if not writes:
            return Check(name, "ok", f"{folder}, read only")
        found = f"{folder} cannot be written: {error.strerror or error}"
        return Check(name, "problem", found, "a writable folder", f"set {setting} to one")
    found = f"{folder}, {free / GIB:.1f} GiB free"
    if free < LEAST_FREE_BYTES and writes:
        least = f"at least {LEAST_FREE_BYTES / GIB:.0f} GiB"
        return Check(name, "problem", found, least, f"free some, or set {setting} to another disk")
    return Check(name, "ok", found)


def _cluster(address: str | None) -> Check:
    if address is None:
        return Check("Ray cluster", "ok", "none asked for; a sweep starts a local one")
    expected = "a Ray cluster"
    remedy = "start one (`ray start --head`), or correct --address"
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            found = f"nothing answers at {address}: {error.strerror or error}"
            return Check("Ray cluster", "problem", found, expected, remedy)
    try:
        from sweeper.sweep.driver import cluster_resources

        resources = cluster_resources(address)
    except ModuleNotFoundError as error:
        found = f"{error.name} is not installed"
        return Check(
            "Ray cluster", "problem", found, expected, "pip install 'sweeper-llm[cluster]'"
        )
    except SweeperError as error:
        return Check("Ray cluster", "problem", str(error), expected, remedy)
    counted = ", ".join(f"{resources.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
    return Check("Ray cluster", "ok", f"{address}: {counted}")
