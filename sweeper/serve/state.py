"""The current state of a run, read again only if its files changed."""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.analysis import SAFEST_USEFUL, Front, Recommendation, find_front, recommend, varying
from sweeper.analysis.decision import decided_of
from sweeper.errors import SweeperError
from sweeper.report import render, report_data
from sweeper.report.samples import gather
from sweeper.runs.counts import left_to_do
from sweeper.runs.run import open_run
from sweeper.runs.time_left import run_seconds_left
from sweeper.runs.trials_now import path_names
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.lock import Holder, this_machine
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.store.records import GrowingRecords, TrialRecord
from sweeper.store.trial_log import LogLine, last_lines
from sweeper.sweep.decision import read_decision, stage_folder

DAMAGE = (
    SweeperError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""Exceptions from reading a folder that disappears or has damaged files."""

QUIET_SECONDS = 120.0
"""After this many seconds without activity, a run or trajectory may no longer be running."""

SHARE = 20
"""While a run goes on, analysis takes at most one in so many seconds."""

LEFT_SECONDS = 5.0
"""How often the time left is worked out anew; in between, it passes."""

LOG_LINES = 40
"""The lines of a log that are shown, and looked at for the speed of training."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class Pace:
    """Spreads costly work: after `d` seconds of it, there is none for `(SHARE - 1) * d`."""

    def __init__(self) -> None:
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether more work may be done for a run that goes on."""
        return time.monotonic() >= self._due

    @contextmanager
    def work(self) -> Iterator[None]:
        """Measures the work inside."""
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            self._due = max(self._due, ended) + (SHARE - 1) * (ended - began)


class Known(NamedTuple):
    """What is read of a run without analysing it. `planned` is None where the plan is unknown."""

    spec: SweepSpec
    records: tuple[TrialRecord, ...]
    planned: int | None
    estimate: Mapping[str, Any] | None

    @property
    def statuses(self) -> Mapping[str, int]:
        """The number of records by status."""
        return Counter(record.status for record in self.records)


class RunSnapshot(NamedTuple):
    """The results in a run's records. `planned` is None where the plan is unknown.

    `names` are the hyperparameters that vary.
    """

    spec: SweepSpec
    records: tuple[TrialRecord, ...]
    front: Front
    recommendation: Recommendation
    planned: int | None
    names: tuple[str, ...]

    @property
    def statuses(self) -> Mapping[str, int]:
        """The number of records by status."""
        return Counter(record.status for record in self.records)


class Page(NamedTuple):
    """A rendered report, the number of records it shows, and a name of this state of it."""

    html: str
    records: int
    version: str


def stamp_of(*paths: Path) -> Stamp:
    """A value that changes when a file does: time, size and inode; None for a missing one."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


def _version(stamp: Stamp) -> str:
    return "-".join("x" if part is None else f"{part[0]:x}.{part[1]:x}" for part in stamp)


class RunView:
    """One run in its current state. Methods may be called from several threads."""

    def __init__(self, folder: RunFolder, redact: bool = False, pace: Pace | None = None) -> None:
        self.folder = folder
        self.stage = stage_folder(folder, SAFEST_USEFUL)
        self.redact = redact
        self._pace = pace or Pace()
        self._lock = threading.Lock()
        self._records = GrowingRecords(folder.records)
        self._plan: tuple[Stamp, SweepSpec, Any, Any] | None = None
        self._found: tuple[Stamp, RunSnapshot] | None = None
        self._page: tuple[Stamp, Page] | None = None
        self._progress: dict[Path, tuple[Stamp, TrajectoryProgress | None]] = {}
        self._speeds: dict[str, tuple[Stamp, float | None]] = {}
        self._paths: tuple[Stamp, dict[str, str]] = ((), {})
        self._left: tuple[float, float, float | None] = (0.0, 0.0, None)
        self._left_to_do: tuple[Stamp, str] | None = None

    def stamp(self) -> Stamp:
        """The stamp of all files that the report depends on."""
        run = self.folder
        return stamp_of(
            run.records,
            run.spec,
            run.plan,
            run.info,
            run.judgements,
            run.rounds,
            run.refinements,
            self.stage.records,
            self.stage.spec,
        )

    def known(self) -> Known:
        """What there is, without analysing it.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        with self._lock:
            stamp = stamp_of(self.folder.spec, self.folder.plan, self.folder.info)
            if self._plan is None or self._plan[0] != stamp:
                run = open_run(self.folder.root)
                self._plan = stamp, run.spec, run.accounting.get("readouts"), run.estimate
            _, spec, planned, estimate = self._plan
            planned = planned if type(planned) is int else None
            return Known(spec, self._records.read(), planned, estimate)

    def found(self) -> RunSnapshot:
        """The current results.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        known = self.known()
        with self._lock:
            stamp = self.stamp()
            if self._found is None or self._found[0] != stamp:
                with self._work():
                    front = find_front(known.records, known.spec)
                    decision = read_decision(self.folder, known.spec, front)
                    best = recommend(front, known.spec, decided=decided_of(decision))
                names = varying(front.candidates)
                snapshot = RunSnapshot(known.spec, known.records, front, best, known.planned, names)
                self._found = stamp, snapshot
            return self._found[1]

    def found_lately(self) -> RunSnapshot:
        """Like `found`, but of a run that goes on it may be older; see SHARE.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        known = self._found
        if known is not None and known[0] != self.stamp() and self._waits():
            return known[1]
        return self.found()

    def page(self) -> Page:
        """The report, rendered at most once for each state of the files; see SHARE.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        stamp = self.stamp()
        if self._page is not None and (self._page[0] == stamp or self._waits()):
            return self._page[1]
        with self._work():
            known, run = self.known(), open_run(self.folder.root)
            data = report_data(self.folder, known.records, known.spec, run.accounting, run.estimate)
            samples = gather(self.folder, known.records, known.spec, data, redact=self.redact)
            html = render(data, samples)
        self._page = stamp, Page(html, len(known.records), _version(stamp))
        return self._page[1]

    def shown(self) -> tuple[str, int | None]:
        """The version of the page that is made if it is asked for now; its records, where it is made."""
        stamp = self.stamp()
        if self._page is not None and (self._page[0] == stamp or self._waits()):
            return self._page[1].version, self._page[1].records
        return _version(stamp), None

    def _work(self) -> AbstractContextManager[None]:
        """Analysis, which counts where it is done beside a run that goes on."""
        return self._pace.work() if self._driven() else nullcontext()

    def _waits(self) -> bool:
        """Whether the last analysis is to be shown a little longer, as the run goes on."""
        return not self._pace.due and self._driven()

    def progress(self) -> tuple[TrajectoryProgress, ...]:
        """The progress of its trajectories, or those of its decision once that has begun.

        Unchanged files are not read again.
        """
        folder = self.stage if self.stage.info.exists() else self.folder
        with self._lock:
            kept = {}
            for path in _progress_paths(folder):
                stamp = stamp_of(path)
                before = self._progress.get(path)
                same = before is not None and before[0] == stamp
                kept[path] = before if same and before else (stamp, read_trajectory(path))
            self._progress = kept
        return tuple(item for _, item in kept.values() if item is not None)

    def tokens_per_second(self, trajectory_id: str) -> float | None:
        """Of the last step in a running trajectory's log; None before the first of them."""
        folder = self.stage if self.stage.info.exists() else self.folder
        trial = folder.trial(trajectory_id)
        stamp = stamp_of(trial.log)
        before = self._speeds.get(trajectory_id)
        if before is None or before[0] != stamp:
            before = stamp, _speed(last_lines(trial, LOG_LINES))
            self._speeds[trajectory_id] = before
        return before[1]

    def path_names(self) -> Mapping[str, str]:
        """What each planned path trains, by its id, in the words of `configuration_name`."""
        run, stage = self.folder, self.stage
        stamp = stamp_of(run.spec, run.rounds, run.refinements, stage.spec)
        if self._paths[0] != stamp:
            names: dict[str, str] = {}
            for folder in (run, stage):
                if folder.spec.exists():
                    names |= path_names(open_run(folder.root).spec, run)
            self._paths = stamp, names
        return self._paths[1]

    def seconds_left(self, spec: SweepSpec, now: float) -> float | None:
        """As `sweeper status` says; worked out anew every few seconds.

        Args:
            spec: Of the run.
            now: Seconds since 1970.
        """
        at, due, left = self._left
        if now >= due or now < at:
            began = time.monotonic()
            left = run_seconds_left(self.folder, spec, now)
            wait = max(LEFT_SECONDS, 2 * SHARE * (time.monotonic() - began))
            at, self._left = now, (now, now + wait, left)
        return None if left is None else max(0.0, left - (now - at))

    def changed_at(self) -> float:
        """When a record, the lock or the progress of a trajectory was last written; seconds since 1970."""
        own = (self.folder.records, self.folder.info, self.folder.lock, self.stage.records)
        folders = (self.folder, self.stage)
        stamps = stamp_of(*own, *(path for each in folders for path in _progress_paths(each)))
        return max((stamp[0] / 1e9 for stamp in stamps if stamp is not None), default=0.0)

    def _driven(self) -> bool:
        try:
            return self.folder.has_driver()
        except OSError:  # A lock of another user.
            return False

    def state(self, known: Known, now: float) -> str:
        """`running`, `finished` or `stopped`; see `left_to_do`.

        What may be driven from elsewhere is running if it wrote lately and is not over.

        Args:
            known: What there is.
            now: Seconds since 1970.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        if self._driven():
            return "running"
        if not self.left_to_do(known):
            return "finished"
        quiet = now - self.changed_at() if self._is_elsewhere() else math.inf
        return "running" if quiet < QUIET_SECONDS else "stopped"

    def left_to_do(self, known: Known) -> str:
        """See `counts.left_to_do`; worked out once for each state of the files.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        stamp = (*self.stamp(), *stamp_of(self.stage.plan, self.stage.undecidable))
        if self._left_to_do is None or self._left_to_do[0] != stamp:
            self._left_to_do = stamp, left_to_do(self.folder, known.spec, known.records)
        return self._left_to_do[1]

    def _is_elsewhere(self) -> bool:
        """Whether its lock, which a driver empties at its end, names another machine, or cannot be read."""
        holder = Holder.read(self.folder.lock)
        if holder is not None:
            return (holder.host, holder.boot) != this_machine()
        try:
            return self.folder.lock.stat().st_size > 0
        except OSError:
            return False


def _speed(lines: Sequence[LogLine]) -> float | None:
    for line in reversed(lines):
        found = line.fields.get("tokens_per_second")
        if line.event == "train" and isinstance(found, int | float) and math.isfinite(found):
            return float(found)
    return None


def _progress_paths(folder: RunFolder) -> list[Path]:
    try:
        with os.scandir(folder.trajectories) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_symlink())
    except OSError:
        return []
    return [folder.trial(name).progress for name in names]
