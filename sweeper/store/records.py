"""Records: the single source of truth about a run. Only this module accesses records.jsonl.

A record has one of four statuses: `complete`, `failed`, `pruned`, `unscored`. Its invariants are checked on
construction, so an inconsistent record cannot exist: a complete record has a finite value for every
objective, any other record has a reason, and every metric equals the value computed from its samples.
"""

import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pydantic_core

from sweeper.errors import RecordError
from sweeper.store.folder import write_atomic
from sweeper.store.journal import Journal
from sweeper.store.samples import (
    PACKED,
    ROWS,
    TOKENS,
    TOLERANCE,
    Samples,
    Value,
    metric_value,
    packed,
)
from sweeper.task import TrajectoryTask

RECORD_VERSION = 2

Status = Literal["complete", "failed", "pruned", "unscored"]
STATUSES: tuple[Status, ...] = ("complete", "failed", "pruned", "unscored")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured value and its sample size.

    `n` counts prompts, rows or target tokens (at least 1); None where an imported source does not say, and
    then no interval and no probability can be given. `k` is set for rates only: value = k / n.
    """

    value: float
    n: int | None
    k: int | None = None

    def __post_init__(self) -> None:
        if self.n is None and self.k is None and isinstance(self.value, int | float):
            return
        if not (isinstance(self.value, int | float) and isinstance(self.n, int)):
            raise RecordError(f"`value` must be a number and `n` an integer, but got {self}")
        if self.n < 1:
            raise RecordError(f"`n >= 1` must hold, but got {self}")
        if self.k is not None and not (0 <= self.k <= self.n and self.value == self.k / self.n):
            raise RecordError(f"`0 <= k <= n` and `value == k / n` must hold, but got {self}")

    @property
    def counts(self) -> tuple[int, int] | None:
        """The counts of a rate, (k, n); None for what was not counted."""
        return None if self.k is None or self.n is None else (self.k, self.n)

    @classmethod
    def rate(cls, k: int, n: int) -> "Metric":
        """The rate `k / n`, in [0, 1]."""
        if n < 1:
            raise RecordError(f"a rate needs at least one prompt, but got k={k}, n={n}")
        return cls(k / n, n, k)

    @classmethod
    def of(cls, name: str, samples: Samples) -> "Metric | None":
        """The metric computed from samples, or None; see `sweeper.store.samples`."""
        value = metric_value(name, samples)
        return None if value is None else cls(*value)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """The outcome of one configuration with one seed.

    `config` holds every hyperparameter, flat. `readout` is `{step, kind, decay, weight, label}`.
    `reason` explains any status but `complete`: for `failed` it has class, message, traceback and stage;
    for `pruned` rule and evidence; for `unscored` the metrics that could not be measured.
    `samples` holds a value for each prompt or row (`sweeper.store.samples`); a metric that has samples must
    equal the value computed from them. Lists of numbers are packed into arrays. Records of older versions
    have no samples.
    """

    config_id: str
    trajectory_id: str
    seed: int
    role: str
    status: Status
    config: Mapping[str, Any]
    readout: Mapping[str, Any]
    metrics: Mapping[str, Metric]
    objectives: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reason: Mapping[str, Any] | None = None
    samples: Samples = field(default_factory=dict)
    version: int = RECORD_VERSION

    def __post_init__(self) -> None:
        if not all(type(values) in PACKED for values in self.samples.values()):
            samples = {name: packed(values) for name, values in self.samples.items()}
            object.__setattr__(self, "samples", samples)
        ids = (self.config_id, self.trajectory_id, self.role)
        if not all(isinstance(item, str) for item in ids) or not isinstance(self.seed, int):
            raise RecordError(
                f"ids must be strings and `seed` an integer, but got {ids}, {self.seed}"
            )
        if self.status not in STATUSES:
            raise RecordError(f"`status` must be one of {STATUSES}, but got {self.status!r}")
        if (self.status == "complete") != (self.reason is None):
            raise RecordError(
                "a `complete` record must have no reason and any other record must have one, "
                f"but got status={self.status!r}, reason={self.reason!r}"
            )
        if self.status == "complete":
            for name in self.objectives:
                metric = self.metrics.get(name)
                if metric is None or not math.isfinite(metric.value):
                    raise RecordError(f"a complete record needs a finite {name}, but got {metric}")
        self._check_samples()

    def _check_samples(self) -> None:
        for name in self.samples:
            if name not in self.metrics and name not in ROWS:
                raise RecordError(f"samples of {name} without a metric of this name")
        for name, metric in self.metrics.items() if self.samples else ():
            try:
                expected = metric_value(name, self.samples)
            except (ValueError, TypeError) as error:
                raise RecordError(
                    f"{error}; see `sweeper.store.samples` for their format"
                ) from None
            if expected is not None and not _agree(metric, expected):
                raise RecordError(
                    f"{name} must equal the value of its samples, {Metric(*expected)}, but got {metric}"
                )

    def __repr__(self) -> str:
        """One line, without samples and provenance."""
        return f"<TrialRecord {self.config_id} seed {self.seed}: {self.role}, {self.status}>"

    @property
    def key(self) -> tuple[str, int]:
        """The unique key of a record in a run: configuration and seed."""
        return self.config_id, self.seed

    def unanswered(self, metric: str) -> int | None:
        """How many prompts count as yes because a judge gave no answer; None for other rates."""
        found: int | None = self.provenance.get("judge", {}).get("unanswered", {}).get(metric)
        return found

    def to_json(self) -> str:
        """One line of JSON. NaN and infinities are kept, as in Python's `json`.

        A record without samples is written as by older versions, because judgements refer to its hash.
        """
        raw = {item.name: getattr(self, item.name) for item in fields(self)}
        raw["metrics"] = {
            name: {"value": metric.value, "n": metric.n, "k": metric.k}
            for name, metric in self.metrics.items()
        }
        if not self.samples:
            del raw["samples"]
        return json.dumps(raw, sort_keys=True, separators=(",", ":"), default=list)

    @classmethod
    def from_json(cls, text: str | bytes, known: dict[Any, Any] | None = None) -> "TrialRecord":
        """Parse the output of `to_json`.

        Args:
            text: One line.
            known: Parts of the records before, extended by this one's; equal parts become one object.

        Raises:
            RecordError: not JSON, an unknown version (checked before anything else), or an invalid record.
        """
        try:
            raw = _loads(text)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"the record is not JSON: {error}") from None
        version = raw.get("version") if isinstance(raw, dict) else None
        if version != RECORD_VERSION:
            raise RecordError(
                f"unknown record version {version!r}; this sweeper reads {RECORD_VERSION}; use "
                "`sweeper migrate` to upgrade a run of an earlier version",
                version=version,
            )
        try:
            raw["metrics"] = {name: Metric(**metric) for name, metric in raw["metrics"].items()}
            raw["objectives"] = tuple(raw["objectives"])
            raw["samples"] = {name: packed(v) for name, v in raw.get("samples", {}).items()}
            if known is not None:
                _share(raw, known)
            return cls(**raw)
        except (TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"the record does not have the expected fields: {error}") from None

    def comparable(self) -> "TrialRecord":
        """The record without the provenance that varies between identical runs: times and pack members."""
        varying = ("seconds", "shared")
        stable = {name: value for name, value in self.provenance.items() if name not in varying}
        return replace(self, provenance=stable)


def _loads(text: str | bytes) -> Any:
    """JSON by the parser of pydantic, which is three times as fast and shares equal short strings.

    What it refuses, such as half a surrogate pair, is left to Python's.
    """
    try:
        return pydantic_core.from_json(text)
    except ValueError:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))


def _share(raw: Mapping[str, Any], known: dict[Any, Any]) -> None:
    """Replace the parts of a record that are the same in most records of a run, exactly: types count."""
    for block in (raw["provenance"], raw["config"]):
        for name, part in block.items():
            kind = type(part)
            if kind is dict or kind is list:
                block[name] = known.setdefault(repr(part), part)  # Tells 1, 1.0 and True apart.
            elif kind is float and part:  # Zeros of both signs are equal.
                block[name] = known.setdefault(part, part)
    if isinstance(tokens := raw["samples"].get(TOKENS), array):
        raw["samples"][TOKENS] = known.setdefault(tokens.typecode, {}).setdefault(
            tokens.tobytes(), tokens
        )


RecordObserver = Callable[[TrialRecord], None]
"""Called with every new record of a sweep, in the driver's process, once it is on disk."""


def _agree(metric: Metric, expected: Value) -> bool:
    """Whether a metric equals the value of its samples: counts exactly, means up to TOLERANCE."""
    close = math.isclose(metric.value, expected.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return close and metric.n == expected.n and (expected.k is None or metric.k == expected.k)


def metrics_from_samples(names: Iterable[str], samples: Samples) -> dict[str, Metric]:
    """The named metrics that can be computed from samples."""
    metrics = {name: Metric.of(name, samples) for name in names}
    return {name: metric for name, metric in metrics.items() if metric is not None}


class RecordsRead(NamedTuple):
    """The contents of a records file: complete records, the bytes of an incomplete last line, its size."""

    records: tuple[TrialRecord, ...]
    torn: bytes
    whole_bytes: int


def read_records(path: Path) -> RecordsRead:
    """Read a records file without changing it. A missing file has no records.

    A last line without a line end, as left by a crash during an append, is returned as `torn` without being
    parsed. Anything else that is not a valid record is an error.

    Raises:
        RecordError: with file and line number: malformed, unknown version, or a duplicate record.
    """
    try:
        with path.open("rb") as file:
            return _read_lines(path, file, {})
    except FileNotFoundError:
        return RecordsRead((), b"", 0)
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from None


def _read_lines(
    path: Path, file: Iterable[bytes], lines: dict[tuple[str, int], int]
) -> RecordsRead:
    """Parse further lines; `lines` maps record keys to the lines read so far and is extended."""
    records: list[TrialRecord] = []
    known: dict[Any, Any] = {}
    torn, whole_bytes = b"", 0
    for number, line in enumerate(file, start=len(lines) + 1):
        if not line.endswith(b"\n"):
            torn = line
            break
        whole_bytes += len(line)
        try:
            record = TrialRecord.from_json(line, known)
        except (RecordError, UnicodeDecodeError) as error:
            raise RecordError(
                f"{path}:{number}: {error}; remove the line to measure it again"
            ) from None
        if record.key in lines:
            raise RecordError(
                f"{path}:{number}: duplicate record of configuration {record.config_id} seed "
                f"{record.seed}, first in line {lines[record.key]}; remove one of the two lines"
            )
        lines[record.key] = number
        records.append(record)
    return RecordsRead(tuple(records), torn, whole_bytes)


class GrowingRecords:
    """Reads a growing records file repeatedly, without parsing a line twice.

    If the part read so far has changed, the file is read from the start. Not thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def read(self) -> tuple[TrialRecord, ...]:
        """All complete records so far. A missing file has none.

        Raises:
            RecordError: see `read_records`.
        """
        try:
            with self._path.open("rb") as file:
                if not self._continues(file):
                    self._forget()
                file.seek(self._bytes)
                read = self._read_on(file)
                self._bytes += read.whole_bytes
                self._end = self._before(file)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise RecordError(f"cannot read {self._path}: {error.strerror}") from None
        else:
            self._records += read.records
        return tuple(self._records)

    def _forget(self) -> None:
        self._records: list[TrialRecord] = []
        self._lines: dict[tuple[str, int], int] = {}
        self._bytes, self._end = 0, b""

    def _read_on(self, file: Iterable[bytes]) -> RecordsRead:
        try:
            return _read_lines(self._path, file, self._lines)
        except RecordError:
            self._forget()
            raise

    def _before(self, file: BinaryIO) -> bytes:
        """The last bytes read so far, to detect that the file was replaced."""
        start = max(0, self._bytes - 256)
        file.seek(start)
        return file.read(self._bytes - start)

    def _continues(self, file: BinaryIO) -> bool:
        return self._before(file) == self._end


def write_records(path: Path, records: Iterable[TrialRecord]) -> None:
    """Write a records file at once, in the place of an existing one.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomic(path, "".join(f"{record.to_json()}\n" for record in records))


class RecordWriter:
    """Appends records to one file: one record, one line, one write, one fsync.

    Only the driver may use it, which the run folder's lock ensures. Opening the file truncates an
    incomplete last line. A second record of the same configuration and seed is rejected.
    """

    def __init__(self, path: Path) -> None:
        read = read_records(path)
        self.torn = read.torn
        self.records: list[TrialRecord] = list(read.records)
        self.keys = {record.key for record in read.records}
        self._journal = Journal(path, RecordError)

    def append(self, record: TrialRecord) -> None:
        """Write one record durably, retrying while the storage is temporarily unavailable.

        Raises:
            RecordError: this configuration and seed already has a record, or the storage lost records.
            DiskFullError, UnreachableError, OSError: the record cannot be written and is discarded.
        """
        if record.key in self.keys:
            raise RecordError(
                f"configuration {record.config_id} seed {record.seed} already has a record"
            )
        self._journal.append(record.to_json().encode("utf-8"))
        self.records.append(record)
        self.keys.add(record.key)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


def lost_records(
    task: TrajectoryTask, message: str, stalled: Sequence[str] = ()
) -> Iterator[TrialRecord]:
    """The `failed` records of a trajectory whose worker process was lost.

    Args:
        task: The trajectory's task.
        message: What is known about the failure.
        stalled: The stack traces of its processes, if it was stopped because it made no progress.
    """
    if stalled:
        minutes = task.compute.stall_timeout_seconds / 60
        message = (
            f"no progress for {minutes:g} min (compute.stall_timeout_minutes), even after a "
            "restart; the traceback shows where it stalled"
        )
    for readout in task.readouts:
        yield TrialRecord(
            config_id=readout.config_id,
            trajectory_id=task.trajectory_id,
            seed=task.seed,
            role=readout.role,
            status="failed",
            config=readout.config,
            readout=readout.described(),
            metrics={},
            objectives=task.objectives,
            reason={
                "class": "Stalled" if stalled else "WorkerDied",
                "message": message,
                "traceback": "\n".join(stalled),
                "stage": "stalled" if stalled else "worker",
            },
        )
