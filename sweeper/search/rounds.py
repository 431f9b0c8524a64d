"""What a sweep decided while it ran: a JSON line for each decision, written before it is acted on."""

import json
import os
from pathlib import Path
from typing import Any

from sweeper.errors import RunFolderError
from sweeper.planning import Point
from sweeper.store.folder import RunFolder

Round = tuple[Point, ...]


def read_rounds(folder: RunFolder) -> tuple[Round, ...]:
    """The rounds an adaptive search has asked for so far; none where the search is not adaptive.

    Raises:
        RunFolderError: the file is damaged or cannot be read.
    """
    lines = read_lines(folder.rounds)
    try:
        return tuple(tuple(dict(point) for point in line) for line in lines)
    except (ValueError, TypeError):
        raise _damaged(folder.rounds, "lists of points") from None


def already_suggested(folder: RunFolder) -> list[Point]:
    """The points of all rounds, in the order they were asked for."""
    return [point for points in read_rounds(folder) for point in points]


def append_round(folder: RunFolder, points: Round) -> None:
    """Write one round down, for good, before any of it is trained.

    Raises:
        RunFolderError: it cannot be written.
    """
    append_line(folder.rounds, list(points))


def read_lines(path: Path) -> list[Any]:
    """The decisions in a file, none where there is no file. A torn last line was never acted on.

    Raises:
        RunFolderError: the file is damaged or cannot be read.
    """
    found = []
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            raise _damaged(path, f"JSON in line {number}") from None
    return found


def append_line(path: Path, content: Any) -> None:
    """Append one decision and wait until it is on disk; a torn line before it is cut off.

    Raises:
        RunFolderError: it cannot be written.
    """
    whole = sum(len(line) + 1 for line in _whole_lines(path))
    line = json.dumps(content, sort_keys=True, allow_nan=False) + "\n"
    try:
        with path.open("ab") as file:
            file.truncate(whole)
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunFolderError(f"cannot write {path}: {error.strerror}") from None


def _whole_lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunFolderError(f"cannot read {path}: {error.strerror}") from None


def _damaged(path: Path, expected: str) -> RunFolderError:
    return RunFolderError(f"{path} is damaged: {expected} expected; start over with --overwrite")
