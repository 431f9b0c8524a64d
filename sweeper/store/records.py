"""Records: the only source of truth about a run, and the only code that touches records.jsonl.

Four ends that never mix: `complete`, `failed`, `pruned`, `unscored`. The laws are checked when a record
is made, so a record that lies cannot exist: a complete one has a finite value for every objective,
every other one says why it is not complete, and a metric is what its samples make it.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from sweeper.errors import RecordError
from sweeper.store.journal import Journal
from sweeper.store.samples import ROWS, TOLERANCE, Samples, metric_value
from sweeper.task import TrajectoryTask

RECORD_VERSION = 2

Status = Literal["complete", "failed", "pruned", "unscored"]
STATUSES: tuple[Status, ...] = ("complete", "failed", "pruned", "unscored")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured value and what it stands on.

    `n` counts prompts, rows or target tokens (at least 1). `k` is given for rates only: value = k / n.
    """

    value: float
    n: int
    k: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.value, int | float) and isinstance(self.n, int)):
            raise RecordError(f"`value` must be a number and `n` a whole one, but got {self}")
        if self.n < 1:
            raise RecordError(f"`n >= 1` must hold, but got {self}")
        if self.k is not None and not (0 <= self.k <= self.n and self.value == self.k / self.n):
            raise RecordError(f"`0 <= k <= n` and `value == k / n` must hold, but got {self}")

    @classmethod
    def rate(cls, k: int, n: int) -> "Metric":
        """The share `k / n`, in [0, 1]."""
        if n < 1:
            raise RecordError(f"a rate needs at least one prompt, but got k={k}, n={n}")
        return cls(k / n, n, k)

    @classmethod
    def of(cls, name: str, samples: Samples) -> "Metric | None":
        """The metric that samples give; None where they give none. See `sweeper.store.samples`."""
        found = metric_value(name, samples)
        return None if found is None else cls(*found)


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """The outcome of one configuration under one seed.

    `config` holds every hyperparameter, flat. `readout` is `{step, kind, decay, weight, label}`.
    `reason` explains any end but `complete`: `failed` has class, message, traceback, stage; `pruned`
    has rule and evidence; `unscored` has the metrics that could not be measured.
    `samples` holds a value for each prompt or row (`sweeper.store.samples`), and every metric that has
    samples follows from them. A record of a version without them has none.
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
        ids = (self.config_id, self.trajectory_id, self.role)
        if not all(isinstance(item, str) for item in ids) or not isinstance(self.seed, int):
            raise RecordError(f"ids are texts and `seed` an integer, but got {ids}, {self.seed}")
        if self.status not in STATUSES:
            raise RecordError(f"`status` must be one of {STATUSES}, but got {self.status!r}")
        if (self.status == "complete") != (self.reason is None):
            raise RecordError(
                "every end but `complete` carries a reason and `complete` carries none, "
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
                raise RecordError(f"samples belong to a recorded metric, but there is no {name}")
        for name, metric in self.metrics.items() if self.samples else ():
            try:
                found = Metric.of(name, self.samples)
            except (ValueError, TypeError) as error:
                raise RecordError(f"{error}; `sweeper.store.samples` says what they hold") from None
            if found is not None and not _agree(metric, found):
                raise RecordError(
                    f"{name} must follow from its samples, which give {found}, but got {metric}"
                )

    def __repr__(self) -> str:
        """One line: samples and provenance would fill screens."""
        return f"<TrialRecord {self.config_id} seed {self.seed}: {self.role}, {self.status}>"

    @property
    def key(self) -> tuple[str, int]:
        """What makes a record unique in a run: configuration and seed."""
        return self.config_id, self.seed

    def to_json(self) -> str:
        """One line of JSON without line breaks. NaN and infinities are kept (Python's JSON words).

        A record without samples is written as by a version without them: judgements hold on to its hash.
        """
        raw = asdict(self)
        if not self.samples:
            del raw["samples"]
        return json.dumps(raw, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "TrialRecord":
        """Read `to_json` back.

        Raises:
            RecordError: not JSON, an unknown version (looked at before anything else), or a broken law.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"the record is not JSON: {error}") from None
        found = raw.get("version") if isinstance(raw, dict) else None
        if found != RECORD_VERSION:
            raise RecordError(
                f"record version {found!r} is unknown; this sweeper reads {RECORD_VERSION}, and "
                "`sweeper migrate` upgrades a run of an earlier version",
                version=found,
            )
        try:
            raw["metrics"] = {name: Metric(**metric) for name, metric in raw["metrics"].items()}
            raw["objectives"] = tuple(raw["objectives"])
            raw["samples"] = {
                name: values if isinstance(values, str) else tuple(values)
                for name, values in raw.get("samples", {}).items()
            }
            return cls(**raw)
        except (TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"the record does not have the expected fields: {error}") from None

    def comparable(self) -> "TrialRecord":
        """The record without what differs between two honest runs: how long it took, and beside whom."""
        passing = ("seconds", "shared")
        kept = {name: value for name, value in self.provenance.items() if name not in passing}
        return replace(self, provenance=kept)


RecordObserver = Callable[[TrialRecord], None]
"""What is called with every new record of a sweep, in the driver's process, once it is on disk."""


def _agree(metric: Metric, found: Metric) -> bool:
    """Whether a metric is what its samples give: counts exactly, means up to TOLERANCE."""
    close = math.isclose(metric.value, found.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return close and metric.n == found.n and (found.k is None or metric.k == found.k)


def metrics_from_samples(names: Iterable[str], samples: Samples) -> dict[str, Metric]:
    """The metrics that samples give, of those named."""
    found = {name: Metric.of(name, samples) for name in names}
    return {name: metric for name, metric in found.items() if metric is not None}


class RecordsRead(NamedTuple):
    """What a records file holds: its whole records and the bytes of a torn last line, if any."""

    records: tuple[TrialRecord, ...]
    torn: bytes
    whole_bytes: int


def read_records(path: Path) -> RecordsRead:
    """Read a records file without changing it. A missing file holds no records.

    A last line without its line end is what a crash in mid-append leaves: it is returned as `torn`, not
    parsed. Anything else that is not a record is an error, because it was not this program that wrote it.

    Raises:
        RecordError: with file and line number: malformed, unknown version, or a (config, seed) twice.
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
    """Read on after `lines`, which holds the lines before by the key of their record, and adds to it."""
    records: list[TrialRecord] = []
    torn, whole_bytes = b"", 0
    for number, line in enumerate(file, start=len(lines) + 1):
        if not line.endswith(b"\n"):
            torn = line
            break
        whole_bytes += len(line)
        try:
            record = TrialRecord.from_json(line.decode("utf-8"))
        except (RecordError, UnicodeDecodeError) as error:
            raise RecordError(
                f"{path}:{number}: {error}; remove the line to have it measured again"
            ) from None
        if record.key in lines:
            raise RecordError(
                f"{path}:{number}: configuration {record.config_id} seed {record.seed} stands "
                f"already in line {lines[record.key]}; keep one of the two lines"
            )
        lines[record.key] = number
        records.append(record)
    return RecordsRead(tuple(records), torn, whole_bytes)


class GrowingRecords:
    """A records file that is read again and again while it grows: no line is parsed twice.

    Where the file no longer begins as it did, it is read anew. Not thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def read(self) -> tuple[TrialRecord, ...]:
        """All whole records of now. A missing file holds none.

        Raises:
            RecordError: see `read_records`.
        """
        try:
            with self._path.open("rb") as file:
                if not self._continues(file):
                    self._forget()
                file.seek(self._bytes)
                found = self._read_on(file)
                self._bytes += found.whole_bytes
                self._end = self._before(file)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise RecordError(f"cannot read {self._path}: {error.strerror}") from None
        else:
            self._records += found.records
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
        """The last bytes of what was read: of another file they would be others."""
        start = max(0, self._bytes - 256)
        file.seek(start)
        return file.read(self._bytes - start)

    def _continues(self, file: BinaryIO) -> bool:
        return self._before(file) == self._end


class RecordWriter:
    """Appends records to one file: one record, one line, one write, one fsync.

    Owned by the driver alone (the run folder's lock sees to it). Opening cuts a torn last line.
    A second record of the same configuration and seed is refused.
    """

    def __init__(self, path: Path) -> None:
        found = read_records(path)
        self.torn = found.torn
        self.records: list[TrialRecord] = list(found.records)
        self.keys = {record.key for record in found.records}
        self._journal = Journal(path, RecordError)

    def append(self, record: TrialRecord) -> None:
        """Write one record durably, retrying while the storage is temporarily unavailable.

        Raises:
            RecordError: this configuration and seed already has a record, or records are gone.
            DiskFullError, UnreachableError, OSError: it cannot be written; nothing of it counts.
        """
        if record.key in self.keys:
            raise RecordError(f"configuration {record.config_id} seed {record.seed} has a record")
        self._journal.append(record.to_json().encode("utf-8"))
        self.records.append(record)
        self.keys.add(record.key)

    def close(self) -> None:
        """Release the file."""
        self._journal.close()


def lost_records(
    task: TrajectoryTask, message: str, stalled: Sequence[str] = ()
) -> Iterator[TrialRecord]:
    """The `failed` records of a trajectory whose worker process is lost.

    Args:
        task: What it had to do.
        message: What is known of its end.
        stalled: Where its processes stood, if it was ended for making no progress.
    """
    if stalled:
        minutes = task.compute.stall_timeout_seconds / 60
        message = (
            f"no progress for {minutes:g} min (compute.stall_timeout_minutes), again after a "
            "restart; the traceback says where"
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
