"""The decisions of a running sweep: one JSON line each, written before it takes effect."""

from pathlib import Path
from typing import Any

from sweeper.errors import RunFolderError
from sweeper.planning import Point
from sweeper.store.folder import RunFolder
from sweeper.store.journal import Journal, read_json_lines

Round = tuple[Point, ...]


def read_rounds(folder: RunFolder) -> tuple[Round, ...]:
    """The rounds an adaptive search has suggested so far; none where the search is not adaptive.

    Raises:
        RunFolderError: the file is damaged or cannot be read.
    """
    lines = read_decisions(folder.rounds)
    try:
        return tuple(tuple(dict(point) for point in line) for line in lines)
    except (ValueError, TypeError):
        raise _damaged(folder.rounds, "lists of points") from None


def already_suggested(folder: RunFolder) -> list[Point]:
    """The points of all rounds, in the order they were suggested."""
    return [point for points in read_rounds(folder) for point in points]


def append_round(folder: RunFolder, points: Round) -> None:
    """Write one round to disk before any of it is trained.

    Raises:
        RunFolderError, DiskFullError, UnreachableError, OSError: it cannot be written.
    """
    append_decision(folder.rounds, list(points))


def read_decisions(path: Path) -> list[Any]:
    """The decisions in a file; a missing file has none. An incomplete last line is ignored.

    Raises:
        RunFolderError: the file is damaged or cannot be read.
    """
    return read_json_lines(path, remedy="start over with --overwrite")


def append_decision(path: Path, content: Any) -> None:
    """Append one decision and wait until it is on disk; an incomplete last line is removed first.

    Raises:
        RunFolderError, DiskFullError, UnreachableError, OSError: see `sweeper.store.journal`.
    """
    with Journal(path) as journal:
        journal.append_json(content)


def _damaged(path: Path, expected: str) -> RunFolderError:
    return RunFolderError(
        f"{path} is damaged: expected {expected}; start over with --overwrite",
        code="run.damaged",
        path=path,
    )
