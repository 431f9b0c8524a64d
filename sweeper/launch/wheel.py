"""Builds a wheel of the running sweeper's source tree for machines without sweeper."""

import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import LaunchError

DISTRIBUTION = "sweeper-llm"

SOURCE = Path(__file__).parents[2]
"""The parent folder of this package: a source tree, or site-packages."""

BUILD_SECONDS = 300


class Wheel(NamedTuple):
    """A wheel that can be built: its source tree and its file name."""

    source: Path
    name: str


def wheel_of_source() -> Wheel | None:
    """The wheel of the source tree this package runs from; None where it was installed from a wheel.

    Raises:
        LaunchError: this is a source tree, but hatchling is not installed.
    """
    try:
        project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return None
    if project.get("name") != DISTRIBUTION:
        return None
    if find_spec("hatchling") is None:
        raise LaunchError(
            f"sweeper runs from the source tree {SOURCE} and would send a wheel of it, but hatchling is "
            f"not installed; run `pip install hatchling`, or use --package",
            code="launch.no_wheel",
            missing="hatchling",
        )
    return Wheel(SOURCE, f"{DISTRIBUTION.replace('-', '_')}-{project['version']}-py3-none-any.whl")


def released() -> str:
    """The requirement of this version on a package index."""
    return f"{DISTRIBUTION}=={metadata.version(DISTRIBUTION)}"


def build_wheel(wheel: Wheel, folder: Path) -> Path:
    """Build a wheel into a folder, without a network, and return its path.

    Raises:
        LaunchError: it cannot be built.
    """
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            command,
            cwd=wheel.source,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(
            f"building the wheel took more than {BUILD_SECONDS} s",
            code="launch.timeout",
            tool="hatchling",
        ) from None
    path = folder / wheel.name
    if done.returncode != 0 or not path.is_file():
        said = " ".join(done.stderr.strip().splitlines()[-3:]) or "no message"
        raise LaunchError(
            f"cannot build a wheel of {wheel.source}: {said}; fix the error, or use --package",
            code="launch.no_wheel",
            path=wheel.source,
        )
    return path
