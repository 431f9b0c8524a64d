"""What one machine of a cluster has; it runs there by value, also where no sweeper is installed.

Standard library alone, and nothing of this package.
"""

import hashlib
import os
import platform
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_HEAD_BYTES = 2**20

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*|[A-Za-z0-9][\w-]*")
"""A repository of the Hub, with its owner or, as old ones, without."""


def call(function: Callable[[], Any]) -> Any:
    """The result of a function: what a task of Ray runs."""
    return function()


def probe(
    packages: Sequence[str], folder: str, inputs: Mapping[str, str], mark: str
) -> dict[str, Any]:
    """Versions, whether a folder can be written, and what is to be seen of some inputs.

    Args:
        packages: Distribution names.
        folder: Where runs are to be written. An empty file named `mark` is left in it, or in the nearest
            folder above that exists, until `remove` is called.
        inputs: A local path or a hub id, by what it is.
        mark: A file name that nobody else uses.
    """
    place, error = nearest(folder), ""
    try:
        (place / mark).touch()
    except OSError as failure:
        error = failure.strerror or str(failure)
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "code": _code_hash("sweeper"),
        "folder": str(place),
        "error": error,
        "offline": os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
        "inputs": {name: fingerprint(path) for name, path in inputs.items()},
    }


def nearest(folder: str) -> Path:
    """A folder, or the nearest one above it that exists."""
    place = Path(folder).absolute()
    while not place.is_dir():
        place = place.parent
    return place


def visible(folder: str, marks: Sequence[str]) -> list[str]:
    """Which of the marks are to be seen from here."""
    place = nearest(folder)
    return [mark for mark in marks if (place / mark).exists()]


def remove(folder: str, marks: Sequence[str]) -> None:
    """Delete the marks that are to be seen from here."""
    place = nearest(folder)
    for mark in marks:
        with suppress(OSError):
            (place / mark).unlink(missing_ok=True)


def fingerprint(path: str) -> str:
    """What is to be seen of an input, the same text for the same contents.

    A file: its size and the hash of its first MiB. A folder: names and sizes. A hub id: `cached` or
    `not cached`; a path that does not exist: `missing`.
    """
    place = Path(path)
    if place.is_file():
        with place.open("rb") as file:
            digest = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()[:8]
        return f"{place.stat().st_size} bytes, {digest}"
    if place.is_dir():
        found = sorted(p for p in place.rglob("*") if p.is_file())
        listed = "".join(f"{p.relative_to(place)} {p.stat().st_size}\n" for p in found)
        return f"{len(found)} files, {hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    if place.is_absolute() or HUB_ID.fullmatch(path) is None:
        return "missing"
    return "cached" if any(_hub_folders(path)) else "not cached"


def _hub_folders(name: str) -> list[Path]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    kinds = (cache / f"{kind}--{name.replace('/', '--')}" for kind in ("models", "datasets"))
    return [folder for folder in kinds if any(folder.glob("snapshots/*/*"))]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _code_hash(package: str) -> str | None:
    """The hash of a package's Python files; None where it cannot be imported."""
    found = find_spec(package)
    if found is None or found.origin is None:
        return None
    root, digest = Path(found.origin).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
