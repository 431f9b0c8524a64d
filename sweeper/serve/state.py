"""What a run holds now, read again only where its files changed."""

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import Front, Recommendation, find_front, recommend, varying
from sweeper.errors import SweeperError
from sweeper.report import render, report_data
from sweeper.report.samples import gather
from sweeper.runs.run import open_run
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.store.records import GrowingRecords, TrialRecord

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
"""What reading a folder raises that vanishes, or whose files are well-formed and mean nothing."""

QUIET_SECONDS = 120.0
"""Without a word for so long, nobody can say whether a run or a trajectory still goes on."""

FRONT_SHARE = 10
"""For a page that stays open, fronts are found in at most one part in so many of the time."""

Stamp = tuple[tuple[int, int, int] | None, ...]


class RunSnapshot(NamedTuple):
    """What the records of a run say. `planned` is None where the plan is not known.

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
        """How many records ended in which way."""
        return Counter(record.status for record in self.records)


class Page(NamedTuple):
    """A rendered report, and the number of records it shows."""

    html: str
    records: int


def stamp_of(*paths: Path) -> Stamp:
    """What changes when a file does: time, size and inode; None for one that is not there."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            stat = path.stat()
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


class RunView:
    """One run as it is now. Its methods may be called from several threads."""

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
        """Of all that the report is made from."""
        run = self.folder
        return stamp_of(
            run.records,
            run.spec,
            run.plan,
            run.info,
            run.judgements,
            run.rounds,
            run.refinements,
            run.confirm,
            run.confirm / run.records.name,
        )

    def found(self) -> RunSnapshot:
        """What the records say now.

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
                planned = run.accounting.get("readouts")
                self._found = (
                    stamp,
                    RunSnapshot(
                        spec,
                        records,
                        front,
                        recommend(front, spec),
                        planned if type(planned) is int else None,
                        varying(front.candidates),
                    ),
                )
                ended = time.monotonic()
                self._due = ended + FRONT_SHARE * (ended - began)
            return self._found[1]

    def found_lately(self) -> RunSnapshot:
        """Like `found`, but the front may be of a while ago where finding it takes long.

        Raises:
            One of DAMAGE: the folder vanished or is damaged.
        """
        with self._lock:
            known = self._found
            if known is not None and known[0] != self.stamp() and time.monotonic() < self._due:
                return known[1]._replace(records=self._records.read())
        return self.found()

    def page(self) -> Page:
        """The report of what the records say now, rendered at most once for each state of the files.

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
        """How far its trajectories are; a file that did not change is not read again."""
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
        """When a record was last written, or a trajectory last gave a sign; seconds since 1970."""
        own = (self.folder.records, self.folder.info)
        stamps = stamp_of(*own, *_progress_paths(self.folder))
        return max((stamp[0] / 1e9 for stamp in stamps if stamp is not None), default=0.0)


def _progress_paths(folder: RunFolder) -> list[Path]:
    try:
        with os.scandir(folder.trajectories) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_symlink())
    except OSError:
        return []
    return [folder.trial(name).progress for name in names]


def state_of(records: int, planned: int | None, quiet_seconds: float) -> str:
    """`finished`, `running`, or `quiet` where records are missing and nothing was heard for a while."""
    if planned is not None and records >= planned:
        return "finished"
    return "running" if quiet_seconds < QUIET_SECONDS else "quiet"
