"""The files of a run that are sent unchanged."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sweeper.store.folder import RunFolder, open_regular_file

__all__ = ["FILES", "chunks", "find_generations", "open_regular_file"]

FILES = ("records.jsonl", "spec.yaml", "plan.json")
"""Names below a run's folder. Everything else is never sent."""


def chunks(file: BinaryIO, size: int = 1 << 16) -> Iterator[bytes]:
    """The current bytes of the file, even if it grows meanwhile; closes it."""
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
