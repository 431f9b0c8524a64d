"""Stops a process that makes no progress, wherever it hangs.

Python's `faulthandler` waits in a separate C thread on the monotonic clock. So even if the process hangs
with the interpreter lock held, inside CUDA or a collective, it writes the stack traces of all threads and
exits; changes of the system clock have no effect. The driver restarts the trial, which continues from its
checkpoint.
"""

import faulthandler
import os
import time
from io import FileIO
from pathlib import Path
from types import TracebackType

REARM_SHARE = 100
"""Heartbeats within 1/REARM_SHARE of the timeout count as one."""


class Watchdog:
    """Watches the heartbeats of one attempt. A process has one timer, so there is one watchdog at a time.

    The timer is disarmed while the attempt is idle (`rest`).
    """

    def __init__(self, seconds: float, note: Path) -> None:
        self._seconds = seconds
        self._note = note
        self._file = _opened(note)
        self._due = 0.0
        self.beat()

    def beat(self) -> None:
        """Restart the timer after progress."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._seconds / REARM_SHARE
            faulthandler.dump_traceback_later(self._seconds, file=self._file, exit=True)

    def rest(self) -> None:
        """Disarm the timer until the next heartbeat."""
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
