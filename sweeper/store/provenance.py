"""The provenance of results: versions, commit, device, hashes of data and weights files."""

import hashlib
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "sweeper",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "tokenizers",
    "ray",
    "optuna",
    "rouge-score",
    "sacrebleu",
    "lm_eval",
)
"""The packages that results depend on. On PyPI `sweeper` is another program: ours is `sweeper-llm`."""


def package_versions() -> dict[str, str]:
    """The versions of the installed packages that results depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version("sweeper-llm" if name == "sweeper" else name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """The commit of the source tree this package runs from (with `-dirty`), or None outside git."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip() or None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def folder_hash(folder: Path) -> str:
    """SHA-256 over the sorted names and contents of a folder's files; computed once per process.

    `__pycache__` folders are skipped.
    """
    digest = hashlib.sha256()
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    for path in sorted(path for path in paths if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{file_hash(path)}\n".encode())
    return digest.hexdigest()


def source_hash(path: str) -> str | None:
    """The hash of a local file or folder; None for anything else, such as a hub id."""
    place = Path(path)
    if place.is_file():
        return file_hash(place)
    return folder_hash(place) if place.is_dir() else None


def hardware(device_name: str) -> dict[str, Any]:
    """The device, machine and Python version that results were computed with."""
    return {
        "device": device_name,
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
