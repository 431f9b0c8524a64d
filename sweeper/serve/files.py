"""The files of a run that are sent as they are, and how one is opened without following a link."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sweeper.folder import RunFolder

FILES = ("records.jsonl", "spec.yaml", "plan.json")
"""Names below a run's folder. Everything else is never sent."""


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: it is missing, a link, or no regular file. A pipe does not make anybody wait.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path.name} is no file")
    return os.fdopen(descriptor, "rb")


def chunks(file: BinaryIO, size: int = 1 << 16) -> Iterator[bytes]:
    """The bytes the file has now, however it grows meanwhile; closes it."""
    with file:
        left = os.fstat(file.fileno()).st_size
        while left > 0 and (part := file.read(min(size, left))):
            left -= len(part)
            yield part


def find_generations(folder: RunFolder, name: str) -> Path | None:
    """The file of responses with this name, looked up in the listing of its folder."""
    try:
        names = {path.name for path in folder.generations.iterdir()}
    except OSError:
        return None
    return folder.generations / name if name in names and name.endswith(".jsonl") else None
