"""A driver on another machine, as its lock file tells of it, and a sleep that takes no time."""

from collections.abc import Callable
from pathlib import Path

from sweeper.store.folder import RunFolder
from sweeper.store.lock import Holder


def line_of(host: str, beat: int, process: int = 4711) -> Holder:
    return Holder(host, "other-boot", process, "other-token", beat)


def lock_file(folder: Path) -> Path:
    return RunFolder(folder).lock


class Passing:
    """A sleep that takes no time, in which something happens."""

    def __init__(self, happens: Callable[[int], None] = lambda number: None) -> None:
        self.slept: list[float] = []
        self._happens = happens

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._happens(len(self.slept))
