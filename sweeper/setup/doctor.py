"""Checks whether this machine can run a sweep: packages, devices, folders, the Hub, a Ray cluster."""

import itertools
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sweeper.errors import SweeperError
from sweeper.estimate.inputs import Machine, this_machine
from sweeper.memory import GIB, hub_cache
from sweeper.store.folder import cache_root

State = Literal["ok", "note", "problem"]


class Check(NamedTuple):
    """One check: what was found, and unless it is `ok`, what was expected and what to do."""

    name: str
    state: State
    found: str
    expected: str = ""
    remedy: str = ""


class Node(NamedTuple):
    """A node of a cluster. What differs is a problem; notes are worth knowing.

    `packages` are versions by name, None where one is not installed; `inputs` what is to be seen of the
    sweep's model and data, as of `node_probe.fingerprint`; `folder` is where runs would be written.
    """

    name: str
    cpus: float
    gpus: float
    python: str = ""
    packages: Mapping[str, str | None] = {}
    folder: str = ""
    inputs: Mapping[str, str] = {}
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


DISTRIBUTION = "sweeper-llm"

BASE = "base"
"""The packages installed without any extra."""

NEEDED = (BASE, "train", "cluster")
"""The extras that every sweep needs; the others are for some sweeps, or for reading results."""

COLLECTIONS = ("all", "dev")
"""Extras that combine the others, or are for developers of sweeper."""

LEAST_FREE_BYTES = GIB

OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")

CONNECT_SECONDS = 5.0


def examine(out: Path, address: str | None = None) -> list[Check]:
    """Run all checks. Nothing is started or downloaded, and no files are left behind.

    Args:
        out: Where runs are to be written.
        address: A Ray cluster to connect to briefly; None skips this check.
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


def requirements() -> dict[str, tuple[Requirement, str]]:
    """What this installation requires: package -> its requirement, and the first extra it comes with.

    Raises:
        importlib.metadata.PackageNotFoundError: sweeper is on the import path but not installed.
    """
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    groups = [BASE, *(extra for extra in extras if extra not in COLLECTIONS)]
    lines = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    found: dict[str, tuple[Requirement, str]] = {}
    for group, line in itertools.product(groups, lines):
        extra = "" if group == BASE else group
        if line.marker is None or line.marker.evaluate({"extra": extra}):
            found.setdefault(line.name, (line, group))
    return found


def pinned_versions() -> dict[str, SpecifierSet]:
    """The versions that were tested together, of constraints.txt, by canonical package name."""
    packaged = Path(str(resources.files("sweeper")))
    shipped = packaged / "constraints.txt"
    path = shipped if shipped.is_file() else packaged.parent / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin.specifier for pin in pins}


def _packages() -> Iterator[Check]:
    try:
        required = requirements()
    except metadata.PackageNotFoundError:
        found, expected = "on the import path, but not installed", "an installed distribution"
        yield Check(DISTRIBUTION, "problem", found, expected, _install(BASE))
        return
    tested = pinned_versions()
    for name, (requirement, extra) in required.items():
        yield _package(requirement, extra, tested.get(canonicalize_name(name), SpecifierSet()))


def _package(requirement: Requirement, extra: str, tested: SpecifierSet) -> Check:
    name = requirement.name
    pin = f"{str(tested).removeprefix('==')} (tested)"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        needed = extra in NEEDED
        expected = pin if needed else f"{pin}, only for the extra `{extra}`"
        state: State = "problem" if needed else "note"
        return Check(name, state, "not installed", expected, _install(extra))
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, "problem", version, str(requirement.specifier), _install(extra))
    if not tested.contains(version, prereleases=True):
        return Check(name, "note", version, pin, "use constraints.txt if something fails")
    return Check(name, "ok", version)


def _install(extra: str) -> str:
    return f"pip install '{DISTRIBUTION}{'' if extra == BASE else f'[{extra}]'}'"


def _devices(machine: Machine) -> Iterator[Check]:
    yield Check("CPUs", "ok", f"{machine.cpus} cores")
    listed = ", ".join(
        f"{gpu.name} {(gpu.memory_bytes or 0) / GIB:.0f} GiB" for gpu in machine.gpus
    )
    try:
        from sweeper.model.gpu_memory import visible_gpus
    except ModuleNotFoundError:
        yield Check("GPUs", "ok", f"{listed or 'none'} (nvidia-smi)")
        return
    seen = visible_gpus()
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
    """Whether there is a token; its value is not used."""
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return Check("hub token", "ok", "present (environment)")
    home = os.environ.get("HF_HOME")
    default = Path(home) / "token" if home else hub_cache().parent / "token"
    path = Path(os.environ.get("HF_TOKEN_PATH") or default)
    if path.is_file() and path.stat().st_size:
        return Check("hub token", "ok", "present (hf auth login)")
    remedy = "run `hf auth login` or set HF_TOKEN if a model or data set is gated"
    return Check("hub token", "note", "none", "one, only for gated repositories", remedy)


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
        return Check("Ray cluster", "ok", "none given; a sweep starts a local one")
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
        from sweeper.sweep.session import cluster_resources

        resources = cluster_resources(address)
    except ModuleNotFoundError as error:
        found = f"{error.name} is not installed"
        return Check("Ray cluster", "problem", found, expected, _install("cluster"))
    except SweeperError as error:
        return Check("Ray cluster", "problem", str(error), expected, remedy)
    counted = ", ".join(f"{resources.get(kind, 0):g} {kind}" for kind in ("CPU", "GPU"))
    return Check("Ray cluster", "ok", f"{address}: {counted}")
