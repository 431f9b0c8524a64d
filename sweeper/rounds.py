"""What an adaptive search has asked for: rounds.jsonl, one line of points for each round."""

import json
import os

from sweeper.errors import RunFolderError
from sweeper.folder import RunFolder
from sweeper.plan import Point

Round = tuple[Point, ...]


def read_rounds(folder: RunFolder) -> tuple[Round, ...]:
    """The rounds asked for so far, none where the search is not adaptive or has not begun.

    A torn last line is left out: a round is written whole before any of it is trained.

    Raises:
        RunFolderError: the file is damaged or cannot be read.
    """
    try:
        lines = folder.rounds.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"cannot read {folder.rounds}: {error}") from None
    found = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(tuple(dict(point) for point in json.loads(line)))
        except (ValueError, TypeError):
            raise RunFolderError(
                f"{folder.rounds}:{number} is not a list of points; start over with --fresh"
            ) from None
    return tuple(found)


def points_asked(folder: RunFolder) -> list[Point]:
    """The points of all rounds, in the order they were asked for."""
    return [point for points in read_rounds(folder) for point in points]


def append_round(folder: RunFolder, points: Round) -> None:
    """Write one round down, for good, before any of it is trained.

    Raises:
        RunFolderError: it cannot be written.
    """
    line = json.dumps(list(points), sort_keys=True, allow_nan=False) + "\n"
    whole = sum(len(json.dumps(list(r), sort_keys=True)) + 1 for r in read_rounds(folder))
    try:
        with folder.rounds.open("ab") as file:
            file.truncate(whole)
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunFolderError(f"cannot write {folder.rounds}: {error.strerror}") from None
