"""What is done when the storage refuses: retry for a bounded while, unless it is full or read-only.

A storage that does not answer usually comes back; a full one does not empty itself. Everything that a
record consists of is written through `with_retry`, by the driver and by the trials.
"""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, wait_exponential

from sweeper.errors import DiskFullError, UnreachableError

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
    """How long a storage is retried: each pause is twice the one before, up to a longest.

    There is no jitter: the same faults are answered by the same pauses, which add up to `total_seconds`.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    total_seconds: float = 300.0

    def retrying(
        self, retry: Callable[[BaseException], bool], sleep: Callable[[float], None]
    ) -> Retrying:
        """Calls a function again while it raises what `retry` accepts, then raises the last error."""
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
    """Whether an error says that a storage does not answer or has become read-only.

    A missing file says nothing of the kind.
    """
    codes = TEMPORARY_ERRORS - {errno.ENOENT} | {errno.EROFS}
    return isinstance(error, OSError) and error.errno in codes


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
    policy: RetryPolicy | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Do something with a file, again and again while its storage is temporarily unavailable.

    Args:
        action: May be called several times; must be harmless to repeat.
        path: The file it is about, for the messages.
        needed_bytes: How much it writes, where that is known.
        policy: How long to go on; `RETRY_POLICY` where not given.
        sleep: Pauses so many seconds.

    Raises:
        DiskFullError: no space is left; not tried again.
        UnreachableError: the storage stayed unavailable, or has become read-only (not tried again).
        OSError: anything else, at once, with the name of the file.
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
    """What is free for us where a file lies or would lie; None where even that cannot be asked."""
    for folder in path.parents:
        try:
            status = os.statvfs(folder)
        except OSError:
            continue
        return status.f_bavail * status.f_frsize
    return None
