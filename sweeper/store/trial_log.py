"""The log of a trial: one JSON line per event, in `trajectories/ID/log.jsonl`.

The log is for people and for plots. No result is computed from it, so a line that cannot be written is
dropped, and a reader skips lines that it cannot parse. The fields of each event:

- `start`: readouts (waiting), step (0, or a checkpoint's), device, processes, paths (trained together),
  host (the machine)
- `stage`: stage, step
- `train`: step, loss (nats per target token), learning_rate, grad_norm (before clipping), tokens_per_second
  (all paths trained together, without padding), mfu (on known GPUs), peak_memory_gib (on GPUs, of this
  process so far), segment (on a decay tail)
- `readout`: config_id, step, status, metrics
- `warning`: message
- `out_of_memory`: stage, message, micro_batch_rows and readouts (attempted), halvings (so far)
- `failure`: stage, class, message
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sweeper.store.folder import TrialStorage, open_regular_file

_logger = logging.getLogger("sweeper.trial")

LEVELS = {"warning": logging.WARNING, "out_of_memory": logging.WARNING, "failure": logging.ERROR}
"""The log levels of events other than INFO."""

_STANDARD = ("time", "trial", "event")


class LogLine(NamedTuple):
    """One event of a trial: seconds since 1970, the trajectory id, the event's name and its fields."""

    time: float
    trial: str
    event: str
    fields: dict[str, Any]

    def to_json(self) -> str:
        """One line of JSON, in the format of the file."""
        return json.dumps(
            {"time": self.time, "trial": self.trial, "event": self.event, **self.fields},
            default=str,
        )

    def __str__(self) -> str:
        """`2026-01-31 12:00:00 abc123 train step=10 loss=1.234`; control characters are escaped."""
        when = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S")
        shown = " ".join(f"{name}={_shown(value)}" for name, value in self.fields.items())
        return f"{when} {self.trial} {self.event} {shown}".rstrip()


class TrialLog:
    """Appends events to the log of one trial and to the logger `sweeper.trial`."""

    def __init__(
        self, storage: TrialStorage, enabled: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = storage.log
        self._trial = storage.trajectory.name
        self._enabled = enabled
        self._clock = clock

    def write(self, event: str, **fields: Any) -> None:
        """Log an event; fields that are None are omitted. Errors of the disk are ignored."""
        if not self._enabled:
            return
        known = {name: value for name, value in fields.items() if value is not None}
        line = LogLine(round(self._clock(), 3), self._trial, event, known)
        _logger.log(LEVELS.get(event, logging.INFO), "%s", line)
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line.to_json()}\n")


class LogReader:
    """Reads the log of one trial as it grows."""

    def __init__(self, storage: TrialStorage) -> None:
        self._path = storage.log
        self._trial = storage.trajectory.name
        self._offset = 0

    def new_lines(self) -> Iterator[LogLine]:
        """The complete lines written since the last call; damaged ones are skipped."""
        try:
            with open_regular_file(self._path) as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        whole = data.rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        for raw in whole.split(b"\n"):
            if (line := _parsed(raw, self._trial)) is not None:
                yield line


def last_lines(storage: TrialStorage, count: int, most_bytes: int = 1 << 16) -> list[LogLine]:
    """The last lines of a trial's log, at most `count` and from its last `most_bytes`; oldest first."""
    try:
        with open_regular_file(storage.log) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most_bytes))
            raw = file.read(most_bytes).split(b"\n")
    except OSError:
        return []
    trial = storage.trajectory.name
    # The first line may be cut, the last one is not whole yet; neither is JSON then.
    found = [line for text in raw if (line := _parsed(text, trial)) is not None]
    return found[-count:]


def _parsed(raw: bytes, trial: str) -> LogLine | None:
    try:
        entry = json.loads(raw)
        timestamp, event = float(entry["time"]), str(entry["event"])
        if not 0 <= timestamp < 1e11:
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    fields = {name: value for name, value in entry.items() if name not in _STANDARD}
    return LogLine(timestamp, trial, event, fields)


def _shown(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ",".join(f"{name}:{_shown(item)}" for name, item in value.items())
    text = str(value)
    plain = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return f'"{plain}"' if " " in plain else plain
