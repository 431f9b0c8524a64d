"""Rate limiting of requests: a rate, pauses that a server requests, and interruptible waiting."""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class Clock:
    """A clock whose sleep ends early once `stopped` is set."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    def now(self) -> float:
        """Seconds of a monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait this many seconds, or until `stopped` is set."""
        self.stopped.wait(seconds)


class RequestPacer:
    """A rate limiter: at most `per_minute` requests from all threads together, and none during a pause."""

    def __init__(self, per_minute: float | None, clock: Clock) -> None:
        self._interval = 0.0 if per_minute is None else 60 / per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock.now()

    def wait(self) -> None:
        """Return when it is this thread's turn, or when the clock has stopped."""
        while not self._clock.stopped.is_set():
            with self._lock:
                now = self._clock.now()
                early = self._next - now
                if early <= 0:
                    self._next = now + self._interval
                    return
            self._clock.sleep(early)

    def hold(self, seconds: float) -> None:
        """Pause all requests for this many seconds."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The `Retry-After` header in seconds, from a number or a date; None without one."""
    text = headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # Not a date, or one without a time zone.
        return None
