"""How far a sweep is, and what an interrupted one says."""

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType

import typer
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from sweeper.analysis import find_front, recommend
from sweeper.cli import show
from sweeper.estimate import duration_text
from sweeper.planning import Plan
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordsRead, TrialRecord

INTERRUPTED = 130
"""The shell's exit code for an end by Ctrl-C; SIGTERM ends a sweep the same way."""

NARROW = 72
"""Terminals of fewer columns get the bar without name and elapsed time."""


class _Bar(Progress):
    """One line that fits its terminal at every moment, and one for the best configuration so far."""

    def __init__(self, *, disable: bool) -> None:
        self.best = ""
        super().__init__(console=show.err, disable=disable)

    def get_renderables(self) -> Iterable[RenderableType]:
        """See `rich.progress.Progress`."""
        self.columns = _columns(show.err.width)
        yield self.make_tasks_table(self.tasks)
        if self.best:
            yield Text(self.best, no_wrap=True, overflow="ellipsis")


def _columns(width: int) -> tuple[ProgressColumn, ...]:
    bar, left = BarColumn(bar_width=max(6, min(40, width - 34))), TimeRemainingColumn(compact=True)
    short = (bar, MofNCompleteColumn(), left)
    if width < NARROW:
        return short
    name = Column(no_wrap=True, overflow="ellipsis", max_width=24)
    bar.bar_width = max(10, min(40, width - 62))
    return (
        TextColumn("{task.description}", markup=False, table_column=name),
        *short[:2],
        TimeElapsedColumn(),
        TextColumn("left"),
        left,
    )


class SweepProgress:
    """Progress of a sweep: a bar on a terminal that can redraw it, else a line per finished tenth."""

    def __init__(self, spec: SweepSpec, seconds: Callable[[], float] = time.monotonic) -> None:
        self._spec = spec
        self._records: list[TrialRecord] = []
        self._total = 0
        self._before = 0
        self._seconds = seconds
        self._begun = seconds()
        self._live = show.err.is_terminal and not show.err.is_dumb_terminal
        self._bar = _Bar(disable=not self._live)
        self._task = self._bar.add_task(spec.name, start=False)

    def __enter__(self) -> "SweepProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, plan: Plan, found: RecordsRead) -> None:
        """Show what will be done and start counting."""
        before = found.records
        self._records = list(before)
        self._before = len(before)
        self._begun = self._seconds()
        self._total = plan.accounting.readouts
        show.accounting(self._spec.name, plan.accounting)
        if before:
            show.line(f"resuming: {len(before)} of {self._total} records are there already")
        self._bar.update(self._task, total=self._total, completed=len(before))
        self._bar.start_task(self._task)
        self._bar.start()

    def record(self, record: TrialRecord) -> None:
        """Count one new record."""
        self._records.append(record)
        done = len(self._records)
        tenth = done % max(1, self._total // 10) == 0 or done == self._total
        if record.status != "complete":
            reason = record.reason or {}
            text = reason.get("message", reason.get("evidence", reason))
            show.note(f"{record.config_id} seed {record.seed}: {record.status}: {text}")
        if self._live:
            if tenth:  # The front costs more than a record.
                self._bar.best = self._best()
            self._bar.update(self._task, completed=done)
        elif tenth:
            planned = f"/{self._total}" if done <= self._total else ""  # A search may add more.
            best = self._best()
            show.line(f"{done}{planned} records{self._times(done)}{best and f'; {best}'}")

    def _times(self, done: int) -> str:
        """`, 3 min so far, about 27 min left`, at the pace of the new records."""
        gone = self._seconds() - self._begun
        text = f", {duration_text(gone)} so far"
        left = self._total - done
        if left <= 0:
            return text
        return f"{text}, about {duration_text(gone / (done - self._before) * left)} left"

    def _best(self) -> str:
        chosen = recommend(find_front(self._records, self._spec), self._spec).chosen
        text = "" if chosen is None else show.measured_text(chosen, self._spec)
        return text and f"best feasible: {text}"


@contextlib.contextmanager
def resumable(folder: RunFolder) -> Iterator[None]:
    """What runs inside ends by Ctrl-C or SIGTERM with where things are and how to go on, and code 130."""
    before = signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        with _told_at_once():
            yield
    except KeyboardInterrupt:
        interrupted(folder)
    except SystemExit as end:  # Ray's own answer to SIGTERM, once it has started.
        if end.code != signal.SIGTERM:
            raise
        interrupted(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _told_at_once() -> Iterator[None]:
    """Say that a signal has come when it comes, whoever handles it then: trials take time to come down.

    The wakeup descriptor gets every signal. Handlers cannot be used, because Tune and Ray put in theirs.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_tell, args=(reader,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()


def _tell(reader: int) -> None:
    with os.fdopen(reader, "rb", buffering=0) as file:
        while number := file.read(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                show.note("stopping: trials are brought down; Ctrl-C again does not wait for them")


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Whatever Ctrl-C does at this moment; a shell's background jobs ignore Ctrl-C, but never this."""
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def interrupted(folder: RunFolder) -> None:
    """Say on standard error what is kept and which command goes on.

    Raises:
        typer.Exit: always, with INTERRUPTED.
    """
    again = shlex.join(["sweeper", *(word for word in sys.argv[1:] if word != "--overwrite")])
    show.note("")
    if folder.info.exists():
        show.note(f"interrupted: {_progress(folder)}; nothing of it is lost")
        show.note("begun trajectories go on from their last checkpoint")
        show.note(f"see what is there:  {shlex.join(['sweeper', 'front', str(folder.root)])}")
    else:
        show.note("interrupted before anything was trained")
    show.note(f"continue:           {again}")
    raise typer.Exit(INTERRUPTED)


def _progress(folder: RunFolder) -> str:
    """`37 of 140 records are in runs/x/records.jsonl`; a torn last line does not count."""
    written = folder.records.read_bytes().count(b"\n") if folder.records.exists() else 0
    return f"{written} of {folder.planned()} records are in {folder.records}"
