"""Ensures that at most one driver writes to a run folder, across machines and file systems.

The operating system's lock (`flock`) is released however its process ends, but on some shared file systems
it only works within one machine, and some have no locks at all. So the lock file also contains a line that
identifies the holder, which rewrites it every few seconds. The line of another machine is watched for a
while: if it changes, its holder is alive; if it does not, the folder is taken over. A holder that lost the
folder in this way sees the other's line and stops writing. Clocks of different machines are never compared.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from sweeper.errors import RunFolderError
from sweeper.store.folder import RunFolder

BEAT_SECONDS = 2.0
"""Interval at which a holder rewrites its line."""

WATCH_SECONDS = 15.0
"""How long the line of another machine must stay unchanged before its folder is taken over."""

LINE_BYTES = 256

TRIES = 5
"""Attempts to lock: `RunFolder.has_driver` holds a shared lock for a few microseconds."""

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class Holder(NamedTuple):
    """The process that holds a folder, identified by a token, and its heartbeat counter."""

    host: str
    boot: str
    process: int
    token: str
    beat: int

    def line(self) -> bytes:
        """The contents of the lock file, always of the same length."""
        return json.dumps(self._asdict()).encode("utf-8").ljust(LINE_BYTES)

    @classmethod
    def read(cls, path: Path) -> "Holder | None":
        """The holder of a folder; None if there is none or the file cannot be read."""
        try:  # Reopened each time: on NFS that queries the server.
            return cls(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def this_machine() -> tuple[str, str]:
    """This machine's host name and boot id."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()[:64], boot


class DriverLock:
    """The exclusive lock of a driver on a run folder; see the module. It can be entered only once."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        beat_seconds: float = BEAT_SECONDS,
        watch_seconds: float = WATCH_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = folder.lock
        self._beat_seconds = beat_seconds
        self._watch_seconds = watch_seconds
        self._sleep = sleep
        self._me = Holder(*this_machine(), os.getpid(), secrets.token_hex(8), 0)
        self._other: Holder | None = None
        self._ended = threading.Event()
        self._descriptor = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "DriverLock":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locks = self._lock()
            before = Holder.read(self._path)
            if before is not None and not (locks and self._is_local(before)):
                self._watch(before)
            self._write(self._me)
            if not locks:  # If two drivers start at the same moment, the later line wins.
                self._sleep(self._beat_seconds)
                self._look()
                self.check()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._thread = threading.Thread(target=self._beat, name="driver-lock", daemon=True)
        self._thread.start()
        return self

    def check(self) -> None:
        """Check that this driver still holds the folder.

        Raises:
            RunFolderError: another driver has taken it over.
        """
        if self._other is not None:
            raise RunFolderError(
                f"{_who(self._other)} has taken over {self._path.parent}, because this driver did not "
                f"respond for {self._watch_seconds:g} s; this driver stops; wait for the other to finish",
                code="run.taken_over",
                path=self._path.parent,
                process=self._other.process,
            )

    def _lock(self) -> bool:
        """Take the system's lock; returns whether the file system supports locks."""
        for last in [False] * (TRIES - 1) + [True]:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if last:
                    raise self._in_use(Holder.read(self._path)) from None
                time.sleep(0.02)
            except OSError as error:
                if error.errno in NO_LOCKS:
                    return False
                raise
            else:
                break
        return True

    def _is_local(self, holder: Holder) -> bool:
        return (holder.host, holder.boot) == (self._me.host, self._me.boot)

    def _watch(self, before: Holder) -> None:
        """Wait until a line has been unchanged for long enough, or is gone.

        Raises:
            RunFolderError: the line has changed, so its holder is alive.
        """
        left = self._watch_seconds
        while left > 0:
            self._sleep(min(self._beat_seconds, left))
            left -= self._beat_seconds
            now = Holder.read(self._path)
            if now is None:
                return
            if now != before:
                raise self._in_use(now)

    def _in_use(self, holder: Holder | None) -> RunFolderError:
        kill = "" if holder is None else f" (`kill {holder.process}` there)"
        return RunFolderError(
            f"{_who(holder)} is using {self._path.parent}; wait for it, stop it{kill}, or choose another "
            "folder with --out; once it has stopped, even by a crash, the same command continues",
            code="run.in_use",
            path=self._path.parent,
            process=holder and holder.process,
        )

    def _beat(self) -> None:
        while not self._ended.wait(self._beat_seconds):
            self._look()
            if self._other is not None:
                return
            self._me = self._me._replace(beat=self._me.beat + 1)
            with suppress(OSError):
                self._write(self._me)

    def _look(self) -> None:
        holder = Holder.read(self._path)
        if holder is not None and holder.token != self._me.token:
            self._other = holder

    def _write(self, holder: Holder) -> None:
        os.pwrite(self._descriptor, holder.line(), 0)
        os.fsync(self._descriptor)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._look()
        with suppress(OSError):
            if self._other is None:
                os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _who(holder: Holder | None) -> str:
    if holder is None:
        return "another driver (process unknown)"
    return f"another driver (process {holder.process} on {holder.host})"
