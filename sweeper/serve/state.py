"""The current state of a run, read again only if its files changed."""

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import SAFEST_USEFUL, Front, Recommendation, find_front, recommend, varying
from sweeper.analysis.decision import decided_of
from sweeper.errors import SweeperError
from sweeper.report import render, report_data
from sweeper.report.samples import gather
from sweeper.runs.run import open_run
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.store.records import GrowingRecords, TrialRecord
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

FRONT_SHARE = 10
"""For an open page, fronts are computed in at most this fraction (one in N) of the time."""

Stamp = tuple[tuple[int, int, int] | None, ...]


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
    """A rendered report, and the number of records it shows."""

    html: str
    records: int


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


class RunView:
    """One run in its current state. Methods may be called from several threads."""

    def __init__(self, folder: RunFolder, redact: bool = False) -> None:
        self.folder = folder
        self._redact = redact
        self._lock = threading.Lock()
        self._records = GrowingRecords(folder.records)
        self._found: tuple[Stamp, RunSnapshot] | None = None
        self._due = 0.0
        self._page: tuple[Stamp, Page] | None = None
        self._progress: dict[str, tuple[Stamp, TrajectoryProgress | None]] = {}

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
            stage_folder(run, SAFEST_USEFUL).records,
            stage_folder(run, SAFEST_USEFUL).spec,
        )

    def found(self) -> RunSnapshot:
        """The current results.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        with self._lock:
            stamp = self.stamp()
            if self._found is None or self._found[0] != stamp:
                began = time.monotonic()
                run = open_run(self.folder.root)
                records, spec = self._records.read(), run.spec
                front = find_front(records, spec)
                decision = read_decision(self.folder, spec, front)
                planned = run.accounting.get("readouts")
                self._found = (
                    stamp,
                    RunSnapshot(
                        spec,
                        records,
                        front,
                        recommend(front, spec, decided=decided_of(decision)),
                        planned if type(planned) is int else None,
                        varying(front.candidates),
                    ),
                )
                ended = time.monotonic()
                self._due = ended + FRONT_SHARE * (ended - began)
            return self._found[1]

    def found_lately(self) -> RunSnapshot:
        """Like `found`, but the front may be older if computing it takes long.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        with self._lock:
            known = self._found
            if known is not None and known[0] != self.stamp() and time.monotonic() < self._due:
                return known[1]._replace(records=self._records.read())
        return self.found()

    def page(self) -> Page:
        """The current report, rendered at most once for each state of the files.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        stamp = self.stamp()
        if self._page is None or self._page[0] != stamp:
            found = self.found()
            run = open_run(self.folder.root)
            data = report_data(self.folder, found.records, found.spec, run.accounting, run.estimate)
            samples = gather(self.folder, found.records, found.spec, data, redact=self._redact)
            self._page = (stamp, Page(render(data, samples), len(found.records)))
        return self._page[1]

    def progress(self) -> tuple[TrajectoryProgress, ...]:
        """The progress of its trajectories; unchanged files are not read again."""
        with self._lock:
            kept = {}
            for path in _progress_paths(self.folder):
                stamp = stamp_of(path)
                before = self._progress.get(path.parent.name)
                same = before is not None and before[0] == stamp
                kept[path.parent.name] = (
                    before if same and before else (stamp, read_trajectory(path))
                )
            self._progress = kept
        return tuple(item for _, item in kept.values() if item is not None)

    def changed_at(self) -> float:
        """When a record was last written, or a trajectory last reported progress; seconds since 1970."""
        own = (self.folder.records, self.folder.info)
        stamps = stamp_of(*own, *_progress_paths(self.folder))
        return max((stamp[0] / 1e9 for stamp in stamps if stamp is not None), default=0.0)

    def state(self, records: int, planned: int | None, now: float) -> str:
        """See `state_of`; `now` in seconds since 1970."""
        try:
            driven = self.folder.has_driver()
        except OSError:  # A lock of another user.
            driven = False
        return state_of(records, planned, driven, now - self.changed_at())


def _progress_paths(folder: RunFolder) -> list[Path]:
    try:
        with os.scandir(folder.trajectories) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_symlink())
    except OSError:
        return []
    return [folder.trial(name).progress for name in names]


def state_of(records: int, planned: int | None, driven: bool, quiet_seconds: float) -> str:
    """`running`, `finished` or `unfinished`, as `sweeper ls` says.

    A run whose driver's lock is not seen from here runs if it has written something lately.
    """
    if driven:
        return "running"
    if planned is not None and records >= planned:
        return "finished"
    return "running" if quiet_seconds < QUIET_SECONDS else "unfinished"
