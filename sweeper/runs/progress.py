"""Progress of a sweep: a bar where it can be redrawn, else a line per 10 %."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from sweeper.analysis import find_front, recommend
from sweeper.estimate import duration_text
from sweeper.estimate.remaining import PlannedWork, Remaining
from sweeper.planning import Plan
from sweeper.runs.terminal import Terminal, safe
from sweeper.runs.value_texts import objectives_text
from sweeper.spec import SweepSpec
from sweeper.store.records import RecordsRead, TrialRecord
from sweeper.sweep.budget import BudgetEnd
from sweeper.sweep.decision import DecisionRound

NARROW = 72
"""Terminals of fewer columns get the bar without name and elapsed time."""


DOING_SECONDS = 2.0
"""How often the trials are asked what they do."""

DOING_LINES = 4
"""How many of them are shown."""


class SweepProgress:
    """Progress of a sweep in a terminal, a notebook or a file.

    The bar is drawn on a terminal that can redraw it and in a notebook that has ipywidgets. Other notebooks
    show one line, which is replaced for every record; elsewhere a line is written for every finished tenth.

    Args:
        spec: Of the sweep.
        console: Where the bar is drawn and problems are written.
        lines: Where the other lines are written; the console itself where not given.
        seconds: The clock.
        quiet: Write nothing, where no console is given.
        doing: What the trials do now, a line for each; shown below the bar.
    """

    def __init__(
        self,
        spec: SweepSpec,
        console: Terminal | None = None,
        lines: Terminal | None = None,
        seconds: Callable[[], float] = time.monotonic,
        quiet: bool = False,
        doing: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._console = console or Terminal(highlight=False, emoji=False, quiet=quiet)
        self._line = (lines or self._console).plain
        self._status = self._line
        self.spec = spec
        self._records: list[TrialRecord] = []
        self._total = 0
        self._before = 0
        self._best_text = ""
        self._deciding = False
        self.budget: BudgetEnd | None = None
        self._seconds = seconds
        self._begun = seconds()
        self._work = PlannedWork({})
        self._remaining: Remaining | None = None
        self._live = can_redraw(self._console)
        self._replaced = self._console.is_jupyter and not self._live and not self._console.quiet
        if self._replaced:
            self._status = _NotebookLine().show
            # tqdm and Ray would write above the line that ipywidgets is missing.
            warnings.filterwarnings("ignore", "IProgress not found")
            logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
        self._bar = _Bar(self._console, self._left, doing, disable=not self._live)
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

    def expect(self, work: PlannedWork) -> None:
        """What the estimate plans, before `begin`; without it, every record counts alike."""
        self._work = work

    def begin(self, plan: Plan, found: RecordsRead) -> None:
        """Start counting."""
        before = found.records
        self._records = list(before)
        self._before = len(before)
        self._begun = self._seconds()
        self._total = plan.accounting.readouts
        known = {record.key for record in before}
        left = sum(seconds for key, seconds in self._work.seconds.items() if key not in known)
        if not self._work.seconds:
            left = float(self._total - len(before))
        self._remaining = Remaining(self._work, self._begun, left)
        if before:
            self._line(f"resuming: {len(before)} of {self._total} records are complete")
        self._bar.update(self._task, total=self._total, completed=len(before))
        self._bar.start_task(self._task)
        self._bar.start()
        if self._replaced:
            self._status(f"{len(before)}/{self._total} records")

    def begin_round(self, begun: DecisionRound) -> None:
        """Count the records of the decision, from the beginning of one of its rounds on."""
        self._records = list(begun.found.records)
        self._before, self._total = len(self._records), begun.planned
        left = float(self._total - self._before)
        if self._deciding and self._remaining is not None:
            self._remaining.left = left
        else:
            self._begun = self._seconds()
            guess = self._remaining.later if self._remaining is not None else 0.0
            work = PlannedWork({}, self._work.workers)
            self._remaining = Remaining(work, self._begun, left, guess or None)
        self._deciding, self._best_text, self._bar.best = True, "", ""
        self._line(f"deciding: {begun.text}")
        name = f"{self.spec.name}: decision"
        self._bar.reset(self._task, total=self._total, completed=self._before, description=name)
        self._bar.start()

    def end_by_budget(self, end: BudgetEnd) -> None:
        """Stop counting, and say what the budget left undone."""
        self.budget = end
        self._bar.stop()
        self._line(end.text)

    def record(self, record: TrialRecord) -> None:
        """Count one new record."""
        self._records.append(record)
        done = len(self._records)
        if self._remaining is not None:
            self._remaining.finished(record.key, self._seconds())
        tenth = done % max(1, self._total // 10) == 0 or done == self._total
        if record.status != "complete":
            reason = record.reason or {}
            text = reason.get("message", reason.get("evidence", reason))
            self._console.plain(f"{record.config_id} seed {record.seed}: {record.status}: {text}")
        if self._live:
            if tenth:  # The front costs more than a record.
                self._bar.best = self._best()
            self._bar.update(self._task, completed=done)
        elif tenth or self._replaced:
            planned = f"/{self._total}" if done <= self._total else ""  # A search may add more.
            self._best_text = self._best() if tenth else self._best_text
            best = f"; {self._best_text}" if self._best_text else ""
            self._status(f"{done}{planned} records{self._times()}{best}")

    def _times(self) -> str:
        """`, 3 min elapsed, about 27 min left`: of the search and its decision."""
        text = f", {duration_text(self._seconds() - self._begun)} elapsed"
        left = self._left()
        return text if not left else f"{text}, about {duration_text(left)} left"

    def _left(self) -> float | None:
        return None if self._remaining is None else self._remaining.seconds_left(self._seconds())

    def _best(self) -> str:
        if self._deciding:
            return ""
        chosen = recommend(find_front(self._records, self.spec), self.spec).chosen
        text = "" if chosen is None else objectives_text(chosen, self.spec)
        return text and f"best feasible: {text}"


def can_redraw(console: Terminal) -> bool:
    """Whether a bar can be drawn: a terminal that moves its cursor, or a notebook with ipywidgets."""
    if console.is_jupyter:
        return find_spec("ipywidgets") is not None
    return console.is_terminal and not console.is_dumb_terminal


class _NotebookLine:
    """One line of output of a notebook cell, replaced by the next."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show the line, in the place of the last one."""
        from IPython.display import display  # There is one wherever rich finds a notebook.

        data = {"text/plain": safe(text)}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(data, raw=True)


class _Bar(Progress):
    """A progress line that always fits the terminal, one for the best so far, and one for each trial."""

    def __init__(
        self,
        console: Terminal,
        left: Callable[[], float | None],
        doing: Callable[[], Sequence[str]],
        *,
        disable: bool,
    ) -> None:
        self.best = ""
        self._doing, self._lines, self._due = doing, tuple[str, ...](), 0.0
        self._left = _LeftColumn(left)
        self._terminal = console  # rich draws before it has set `console`.
        super().__init__(console=console, disable=disable)

    def get_renderables(self) -> Iterable[RenderableType]:
        """See `rich.progress.Progress`."""
        self.columns = _columns(self._terminal.width, self._left)
        yield self.make_tasks_table(self.tasks)
        if self.best:
            yield Text(self.best, no_wrap=True, overflow="ellipsis")
        now = time.monotonic()
        if now >= self._due and self.tasks:
            self._lines, self._due = tuple(self._doing()), now + DOING_SECONDS
        more = len(self._lines) - DOING_LINES
        for line in self._lines[:DOING_LINES]:
            yield Text(safe(line), no_wrap=True, overflow="ellipsis", style="dim")
        if more > 0:
            yield Text(f"and {more} more trials", style="dim")


class _LeftColumn(ProgressColumn):
    """The seconds left as `2:37`, `-:--` while they are not known."""

    def __init__(self, left: Callable[[], float | None]) -> None:
        self._seconds_left = left
        super().__init__()

    def render(self, task: Task) -> Text:
        """See `rich.progress.ProgressColumn`."""
        left = self._seconds_left()
        if left is None:
            return Text("-:--", style="progress.remaining")
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return Text(text, style="progress.remaining")


def _columns(width: int, left: ProgressColumn) -> tuple[ProgressColumn, ...]:
    bar = BarColumn(bar_width=max(6, min(40, width - 34)))
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
