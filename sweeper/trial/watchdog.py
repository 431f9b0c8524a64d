"""Ends a process that makes no progress, wherever it hangs.

Python's `faulthandler` waits in a thread of its own, written in C, on the monotonic clock: a hang that
holds the interpreter's lock, inside CUDA or a collective, cannot keep it from writing where every thread
stands and ending the process, and a clock that jumps does not wake it. The driver starts the trial again,
which goes on from its checkpoint.
"""

import faulthandler
import os
import time
from io import FileIO
from pathlib import Path
from types import TracebackType

REARM_SHARE = 100
"""Signs of life closer together than this part of the allowed time count as one."""


class Watchdog:
    """Waits for signs of life of one attempt. There is one timer in a process, so one at a time.

    While nothing is being done (`rest`), the timer is disarmed.
    """

    def __init__(self, seconds: float, note: Path) -> None:
        self._seconds = seconds
        self._note = note
        self._file = _opened(note)
        self._due = 0.0
        self.beat()

    def beat(self) -> None:
        """Something was done: the time begins anew."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._seconds / REARM_SHARE
            faulthandler.dump_traceback_later(self._seconds, file=self._file, exit=True)

    def rest(self) -> None:
        """Disarm the timer until the next sign of life."""
        faulthandler.cancel_dump_traceback_later()
        self._due = 0.0

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Disarm the timer for good, and delete the empty note."""
        self.rest()
        self._file.close()
        try:
            self._note.unlink(missing_ok=True)
        except OSError:
            return  # It is empty.


def _opened(note: Path) -> FileIO:
    """The note, emptied; /dev/null where the disk refuses it: the process has to be ended anyway."""
    try:
        return note.open("wb", buffering=0)
    except OSError:
        return Path(os.devnull).open("wb", buffering=0)
