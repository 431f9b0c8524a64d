"""Append-only files of lines: records, search rounds, judgements.

Each entry is one line, one write and one fsync. A crash during an append leaves an incomplete last line,
which nothing depends on yet: readers skip it, and the next writer truncates it. A file has one writer at a
time.
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
"""The file system has no locks: there, only the lock of the run folder keeps other writers out."""

_log = logging.getLogger("sweeper.store.journal")


class LinesRead(NamedTuple):
    """The complete lines of a journal without line ends, and the bytes of an incomplete last line."""

    lines: tuple[bytes, ...]
    torn: bytes


def read_lines(path: Path) -> LinesRead:
    """Read a journal without changing it. A missing file has no lines.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        *lines, torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return LinesRead((), b"")
    return LinesRead(tuple(lines), torn)


def read_json_lines(
    path: Path, *, damaged: type[SweeperError] = RunFolderError, remedy: str
) -> list[Any]:
    """Read the entries of a journal of JSON lines; a missing file has none.

    Args:
        path: The file.
        damaged: The error class to raise.
        remedy: What to do about a damaged line, for the message.

    Raises:
        SweeperError: of class `damaged`, if a line is not JSON or the file cannot be read.
    """
    try:
        lines = read_lines(path).lines
    except OSError as error:
        raise damaged(f"cannot read {path}: {error.strerror}") from None
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError):
            raise damaged(f"{path}:{number}: not JSON; {remedy}") from None
    return entries


class Journal:
    """The writer of one append-only file. Opening it truncates an incomplete last line, with a warning.

    A failed write may have left partial data, and a second fsync would not report that. So the file is
    reopened, truncated to the lines known to be on disk, and the line is written again.

    Args:
        path: The file; created together with its folder if missing.
        error: The error class for problems other than disk errors.

    Raises:
        SweeperError: of class `error`, if another process is writing to the file.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, error: type[SweeperError] = RunFolderError) -> None:
        self.path = path
        self._error = error
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor: int | None = self._open(os.O_CREAT)
        self.torn = self._torn_bytes()
        self._whole_bytes = os.fstat(self._descriptor).st_size - self.torn
        if self.torn:
            _log.warning(
                "%s: truncated an incomplete last line left by a crash (%d bytes)", path, self.torn
            )
            os.ftruncate(self._descriptor, self._whole_bytes)
            os.fsync(self._descriptor)

    def append(self, line: bytes) -> None:
        """Write one line durably, retrying while the storage is temporarily unavailable.

        Args:
            line: Must not contain a line end.

        Raises:
            SweeperError: of the journal's error class, if the storage has lost lines.
            DiskFullError, UnreachableError, OSError: the line cannot be written and is discarded.
        """
        if b"\n" in line:
            raise ValueError("a journal entry must not contain a line end")
        data = line + b"\n"
        with_retry(partial(self._write, data), self.path, len(data))
        self._whole_bytes += len(data)

    def append_json(self, entry: Any) -> None:
        """Append one entry as JSON with sorted keys; NaN and infinities are not allowed.

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
                f"another process is writing to {self.path}; wait until it has finished"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
        return descriptor

    def _torn_bytes(self, block: int = 1 << 16) -> int:
        """The number of bytes after the last line end."""
        assert self._descriptor is not None
        end = at = os.fstat(self._descriptor).st_size
        while at > 0:
            start = max(0, at - block)
            newline = os.pread(self._descriptor, at - start, start).rfind(b"\n")
            if newline >= 0:
                return end - (start + newline + 1)
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
            size = os.fstat(descriptor).st_size
            if size < self._whole_bytes:
                raise self._error(
                    f"{self.path} shrank from {self._whole_bytes} to {size} bytes: its storage has lost "
                    "lines; run the same command again to measure them again"
                )
            os.ftruncate(descriptor, self._whole_bytes)
        except (OSError, SweeperError):
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def _take_back(self) -> None:
        """Truncate what a failed write left, if possible, and reopen the file on the next write."""
        assert self._descriptor is not None
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._whole_bytes)
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = None

    def close(self) -> None:
        """Close the file and release its lock."""
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
