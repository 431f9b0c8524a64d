"""Retries file operations for a bounded time, unless the storage is full or read-only.

Unavailable storage usually recovers; a full disk does not. The driver and the trials write everything that
a record consists of through `with_retry`.
"""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sweeper.errors import DiskFullError, UnreachableError

if TYPE_CHECKING:
    from tenacity import Retrying

Result = TypeVar("Result")

DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No space left on the file system or in the quota."""

TEMPORARY_ERRORS = frozenset(
    {
        errno.EIO,
        errno.ENOENT,  # Without its storage, a mount point is an empty folder.
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
"""The storage is unavailable now, but may recover."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to retry: each pause is twice the previous one, up to `longest_seconds`.

    There is no jitter, so pauses are reproducible; they add up to `total_seconds`.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    total_seconds: float = 300.0

    def retrying(
        self, retry: Callable[[BaseException], bool], sleep: Callable[[float], None]
    ) -> "Retrying":
        """Calls a function again while `retry` accepts its error; in the end raises the last one."""
        # It imports asyncio, which commands that only read a run do not need.
        from tenacity import Retrying, retry_if_exception, wait_exponential

        doubled = wait_exponential(self.first_seconds, self.longest_seconds)
        return Retrying(
            retry=retry_if_exception(retry),
            wait=lambda state: min(doubled(state), self.total_seconds - state.idle_for),
            stop=lambda state: state.idle_for >= self.total_seconds,
            sleep=sleep,
            reraise=True,
        )


RETRY_POLICY = RetryPolicy()


def is_temporarily_unavailable(error: BaseException) -> bool:
    """Whether an error means that the storage is unavailable or has become read-only.

    A missing file does not count as such.
    """
    codes = TEMPORARY_ERRORS - {errno.ENOENT} | {errno.EROFS}
    return isinstance(error, OSError) and error.errno in codes


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that no space is left."""
    return isinstance(error, OSError) and error.errno in DISK_FULL_ERRORS


def storage_refused(error: Exception) -> DiskFullError | UnreachableError | None:
    """Convert an operating system error to a storage error; None if it is not about the storage."""
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
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Run a file operation, retrying while its storage is temporarily unavailable.

    Args:
        action: The operation; must be safe to repeat.
        path: The file it concerns, for messages.
        needed_bytes: How much it writes, if known.
        policy: How long to retry; default `RETRY_POLICY`.
        sleep: Pauses for a number of seconds.

    Raises:
        DiskFullError: no space is left; not retried.
        UnreachableError: the storage stayed unavailable, or has become read-only (not retried).
        OSError: anything else, without retrying, with the name of the file.
    """
    policy = policy or RETRY_POLICY
    try:
        return policy.retrying(_is_worth_a_retry, sleep)(action)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError(str(path), needed_bytes, free_bytes(path)) from error
        reason = error.strerror or str(error)
        if error.errno == errno.EROFS:
            raise UnreachableError(str(path), 0.0, reason) from error
        if _is_worth_a_retry(error):
            raise UnreachableError(str(path), policy.total_seconds, reason) from error
        if error.filename is None:
            error.filename = str(path)
        raise


def _is_worth_a_retry(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in TEMPORARY_ERRORS


def free_bytes(path: Path) -> int | None:
    """The free bytes on the file system of a file that may not exist yet; None if unknown."""
    for folder in path.parents:
        try:
            status = os.statvfs(folder)
        except OSError:
            continue
        return status.f_bavail * status.f_frsize
    return None
