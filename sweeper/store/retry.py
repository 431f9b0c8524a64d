"""What is done when the storage refuses: wait a bounded while for one that is away, never for a full one.

A storage that does not answer usually comes back; a full one does not empty itself. Everything that a
record consists of is written through `with_retry`, by the driver and by the trials.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from sweeper.errors import DiskFullError, RecordError, UnreachableError

Result = TypeVar("Result")

DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space is left, on the file system or in a quota."""

TEMPORARY_ERRORS = frozenset(
    {
        errno.EIO,
        errno.ENOENT,  # The folder that a storage is mounted on is there without it, and empty.
        errno.ENODEV,
        errno.ENXIO,
        errno.ESTALE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ENOLCK,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EREMOTEIO,
    }
)
"""The storage does not answer now, and may later."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a storage that is away is waited for: each pause is twice the one before, up to a longest.

    There is no jitter: the same faults are answered by the same pauses.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    total_seconds: float = 300.0

    def pauses(self) -> Iterator[float]:
        """The pauses between attempts, in seconds; together `total_seconds`."""
        pause, left = self.first_seconds, self.total_seconds
        while left > 0:
            yield min(pause, left)
            left -= pause
            pause = min(2 * pause, self.longest_seconds)


RETRY_POLICY = RetryPolicy()


def is_temporarily_unavailable(error: BaseException) -> bool:
    """Whether an error says that a storage does not answer. A missing file says nothing of the kind."""
    return isinstance(error, OSError) and error.errno in TEMPORARY_ERRORS - {errno.ENOENT}


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that no space is left."""
    return isinstance(error, OSError) and error.errno in DISK_FULL_ERRORS


def storage_refused(error: Exception) -> DiskFullError | UnreachableError | None:
    """What an error of the operating system says about a storage, if it says anything."""
    if not isinstance(error, OSError):
        return None
    path = str(error.filename or "a file")
    if is_disk_full(error):
        return DiskFullError(path, None, free_bytes(Path(path)) if error.filename else None)
    return (
        UnreachableError(path, 0.0, error.strerror or str(error))
        if is_temporarily_unavailable(error)
        else None
    )


def with_retry(
    action: Callable[[], Result],
    path: Path,
    needed_bytes: int | None = None,
    *,
    patience: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Do something with a file, again and again while its storage is away.

    Args:
        action: May be called several times; must be harmless to repeat.
        path: The file it is about, for the messages.
        needed_bytes: How much it writes, where that is known.
        patience: How long to go on; `RETRY_POLICY` where not given.
        sleep: Pauses so many seconds.

    Raises:
        DiskFullError: no space is left; not tried again.
        UnreachableError: the storage stayed away.
        OSError: anything else, at once.
    """
    patience = patience or RETRY_POLICY
    for pause in [*patience.pauses(), None]:
        try:
            return action()
        except OSError as error:
            if is_disk_full(error):
                raise DiskFullError(str(path), needed_bytes, free_bytes(path)) from error
            if error.errno not in TEMPORARY_ERRORS:
                raise
            if pause is None:
                reason = error.strerror or str(error)
                raise UnreachableError(str(path), patience.total_seconds, reason) from error
            sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def free_bytes(path: Path) -> int | None:
    """What is free for us where a file lies or would lie; None where even that cannot be asked."""
    for folder in path.parents:
        try:
            status = os.statvfs(folder)
        except OSError:
            continue
        return status.f_bavail * status.f_frsize
    return None


class LineFile:
    """A file that whole lines are appended to: one write and one fsync each. One writer at a time.

    A write that failed may have left anything behind, and a second fsync would not say so; so the file
    is opened anew, cut to the lines that are known to be on disk, and the line written again.

    Args:
        path: The file; made where there is none.
        whole_bytes: How much of it is whole lines; the rest is cut.
    """

    def __init__(self, path: Path, whole_bytes: int) -> None:
        self._path = path
        self._whole_bytes = whole_bytes
        self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if os.fstat(self._descriptor).st_size > whole_bytes:
            os.ftruncate(self._descriptor, whole_bytes)
            os.fsync(self._descriptor)

    def append(self, line: bytes) -> None:
        """Write one line durably, waiting for a storage that is away.

        Raises:
            RecordError: the file has become shorter.
            DiskFullError, UnreachableError, OSError: it cannot be written; nothing of it counts.
        """
        with_retry(partial(self._write, line), self._path, len(line))
        self._whole_bytes += len(line)

    def _write(self, line: bytes) -> None:
        if self._descriptor is None:
            self._reopen()
        assert self._descriptor is not None
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, f"wrote {written} of {len(line)} bytes of a line")
            os.fsync(self._descriptor)
        except OSError:
            self._take_back()
            raise

    def _reopen(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            found = os.fstat(descriptor).st_size
            if found < self._whole_bytes:
                raise RecordError(
                    f"{self._path} held {self._whole_bytes} bytes of records and now holds {found}: its "
                    "storage has lost some; the same command measures them again"
                )
            os.ftruncate(descriptor, self._whole_bytes)
        except (OSError, RecordError):
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _take_back(self) -> None:
        """Cut what a failed write left, if the storage lets us, and open the file anew next time."""
        assert self._descriptor is not None
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._whole_bytes)
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None

    def close(self) -> None:
        """Release the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
