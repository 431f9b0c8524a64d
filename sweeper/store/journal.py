"""Append-only files of lines: records, rounds of a search, what judges said.

One entry is one line, one write and one fsync. A crash in the middle of an append leaves a torn last line,
which was never acted on: readers skip it, and the next writer cuts it. A file has one writer at a time.
"""

import errno
import fcntl
import json
import logging
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from sweeper.errors import RunFolderError, SweeperError
from sweeper.store.retry import with_retry

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""The file system knows no locks: there, the lock of the run folder alone keeps other writers away."""

_log = logging.getLogger("sweeper.store.journal")


class LinesRead(NamedTuple):
    """What a journal holds: its whole lines without their line ends, and the bytes of a torn last line."""

    lines: tuple[bytes, ...]
    torn: bytes


def read_lines(path: Path) -> LinesRead:
    """Read a journal without changing it. A missing file has no lines.

    Raises:
        OSError: it cannot be read.
    """
    try:
        *lines, torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return LinesRead((), b"")
    return LinesRead(tuple(lines), torn)


def read_json_lines(
    path: Path, *, damaged: type[SweeperError] = RunFolderError, remedy: str
) -> list[Any]:
    """The entries of a journal whose lines are JSON; a missing file has none.

    Args:
        path: The file.
        damaged: The class of the error.
        remedy: What to do about a damaged line, for the message.

    Raises:
        SweeperError: of the class given: a line is not JSON, or the file cannot be read.
    """
    try:
        lines = read_lines(path).lines
    except OSError as error:
        raise damaged(f"cannot read {path}: {error.strerror}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            raise damaged(f"{path}:{number}: not JSON; {remedy}") from None
    return found


class Journal:
    """The writer of one append-only file. Opening it cuts a torn last line, and warns of it.

    A write that failed may have left anything behind, and a second fsync would not say so; so the file
    is opened anew, cut to the lines that are known to be on disk, and the line written again.

    Args:
        path: The file; made, with its folder, where there is none.
        error: The class of the errors that are not about the disk.

    Raises:
        SweeperError: of that class: another process is writing to the file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, error: type[SweeperError] = RunFolderError) -> None:
        self.path = path
        self._error = error
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = self._open(os.O_CREAT)
        self.torn = self._torn_bytes()
        self._whole_bytes = os.fstat(self._descriptor).st_size - self.torn
        if self.torn:
            _log.warning("%s: cut %d bytes of a last line torn by a crash", path, self.torn)
            os.ftruncate(self._descriptor, self._whole_bytes)
            os.fsync(self._descriptor)

    def append(self, line: bytes) -> None:
        """Write one line durably, retrying while the storage is temporarily unavailable.

        Args:
            line: Without a line end, neither after it nor in it.

        Raises:
            SweeperError: of the journal's class: the storage has lost lines.
            DiskFullError, UnreachableError, OSError: it cannot be written; nothing of it counts.
        """
        if b"\n" in line:
            raise ValueError("an entry of a journal is one line")
        data = line + b"\n"
        with_retry(partial(self._write, data), self.path, len(data))
        self._whole_bytes += len(data)

    def append_json(self, entry: Any) -> None:
        """Write one entry as JSON with sorted keys; no NaN and no infinity.

        Raises:
            SweeperError, OSError: see `append`.
        """
        self.append(json.dumps(entry, sort_keys=True, allow_nan=False).encode("ascii"))

    def _open(self, flags: int) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self._error(
                f"another process is writing to {self.path}; wait until it has ended"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
        return descriptor

    def _torn_bytes(self, block: int = 1 << 16) -> int:
        """How many bytes follow the last line end."""
        assert self._descriptor is not None
        end = at = os.fstat(self._descriptor).st_size
        while at > 0:
            start = max(0, at - block)
            found = os.pread(self._descriptor, at - start, start).rfind(b"\n")
            if found >= 0:
                return end - (start + found + 1)
            at = start
        return end

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            self._reopen()
        assert self._descriptor is not None
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"wrote {written} of {len(data)} bytes of a line")
            os.fsync(self._descriptor)
        except OSError:
            self._take_back()
            raise

    def _reopen(self) -> None:
        descriptor = self._open(0)
        try:
            found = os.fstat(descriptor).st_size
            if found < self._whole_bytes:
                raise self._error(
                    f"{self.path} held {self._whole_bytes} bytes and now holds {found}: its storage has "
                    "lost lines; the same command measures them again"
                )
            os.ftruncate(descriptor, self._whole_bytes)
        except (OSError, SweeperError):
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

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
