"""What a run may use, what it has used, and what is kept back for its decision.

budget.json in the run folder holds what every start of the run has used, so that a budget counts them all.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from sweeper.errors import RunFolderError
from sweeper.estimate import Estimate, duration_text, spent
from sweeper.estimate.decision_cost import dearest_first
from sweeper.estimate.estimate import task_seconds
from sweeper.planning import Plan
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, write_with_retry
from sweeper.store.records import read_records
from sweeper.task import Budget, TrajectoryTask

MARGIN = 0.02
"""A search starts nothing that is expected to end in this last share of its budget: what takes a little
longer than expected still ends in time."""

STOP_SECONDS = 10.0
"""So long Ray waits for a trial that is stopped in the middle of a step; it is the trial's time."""

ALONE = 1.25
"""So much longer than by what was measured in the search the decision is expected to take: in the search
paths train and answer together."""

MOST_RESERVE = 0.5
"""At most this share of a budget is kept back for the decision: a bound on what a pessimistic estimate
costs the search. Where the whole budget would not pay for it, nothing is."""

Clock = Callable[[], float]
PathCost = Callable[[TrajectoryTask], float]
"""The estimated seconds of one trajectory trained alone."""


class Reserve(NamedTuple):
    """What is kept back: seconds of all trials together, and on the clock; the starts of workers apart."""

    worker_seconds: float = 0.0
    wall_seconds: float = 0.0
    start_seconds: float = 0.0


NO_RESERVE = Reserve()


class BudgetEnd(NamedTuple):
    """What a budget left undone.

    `stage` is `search` or `decision`. `paths` were not trained to their end; they need `worker_seconds` of
    trials by the estimate. Another hour would train `next_paths` of them, with the `next_settings`.
    """

    stage: str
    paths: int
    worker_seconds: float
    next_paths: int
    next_settings: str

    @property
    def text(self) -> str:
        """In a line."""
        if self.stage == "decision":
            return (
                "the budget ends the decision: what it tests next is expected to take longer than what "
                "is left; raise compute.budget and run the same command to continue"
            )
        plural = "" if self.paths == 1 else "s"
        return (
            f"the budget ends the search: {self.paths} path{plural} left, about "
            f"{duration_text(self.worker_seconds)} of trials; another hour would train {self.next_paths}"
            f"{f' ({self.next_settings})' if self.next_settings else ''}; raise compute.budget and run "
            "the same command to continue"
        )


@dataclass(slots=True)
class Used:
    """What a run has used so far: the content of budget.json.

    `worker_seconds` is the time of all its trials. Packs that ended took `measured_seconds` where
    `estimated_seconds` were expected, and at most `start_seconds` more where a worker had to start.
    """

    worker_seconds: float = 0.0
    measured_seconds: float = 0.0
    estimated_seconds: float = 0.0
    start_seconds: float = 0.0


def read_used(folder: RunFolder) -> Used:
    """What earlier starts of a run have used; of starts without a budget, what their records say.

    Raises:
        RunFolderError: budget.json is damaged.
        RecordError: the records cannot be trusted.
    """
    recorded = spent(read_records(folder.records).records).seconds
    try:
        used = Used(**json.loads(folder.budget.read_text(encoding="utf-8")))
        used.worker_seconds = max(recorded, float(used.worker_seconds))
    except FileNotFoundError:
        return Used(recorded)
    except (ValueError, TypeError):
        raise RunFolderError(
            f"{folder.budget} is damaged: expected what the run has used; delete it, and only the time in "
            "the records counts",
            code="run.damaged",
            path=folder.budget,
        ) from None
    return used


class PlannedCosts(NamedTuple):
    """The estimate that a budget works with: of a path, and of the decision."""

    seconds_of: PathCost
    reserve: Reserve


def planned_costs(plan: Plan, spec: SweepSpec, cost: Estimate) -> PlannedCosts:
    """What a budget needs of the estimate of a sweep.

    The decision is expected to end with its first configuration: one path, of all the one that takes
    longest, under the new seeds and the old.
    """
    first = dearest_first(plan, spec, cost)
    reserve, start = NO_RESERVE, cost.rates.startup_seconds
    if first is not None:
        worker = (first.worker_seconds or 0.0) - cost.workers * start
        reserve = Reserve(ALONE * worker, ALONE * ((first.seconds or 0.0) - start), start)
    return PlannedCosts(partial(task_seconds, rates=cost.rates, tokens=cost.tokens), reserve)


class Account:
    """A budget, and what is left of it for one phase of a run.

    Args:
        budget: Of the sweep file.
        folder: Of the run; None begins with nothing used, and writes nothing down.
        reserve: What is kept back for the decision, as estimated; at most MOST_RESERVE of the budget.
        margin: The share of the budget in which nothing is expected to end any more.
        stop_seconds: How long a trial may go on after it is stopped, at most.
        now: The clock, in seconds since 1970.
    """

    def __init__(
        self,
        budget: Budget,
        folder: RunFolder | None,
        reserve: Reserve = NO_RESERVE,
        margin: float = MARGIN,
        stop_seconds: float = 0.0,
        now: Clock = time.time,
    ) -> None:
        self.used = Used() if folder is None else read_used(folder)
        self.now = now
        self._budget = budget
        self._folder = folder
        self._reserve = reserve
        self._margin = margin
        self.stop_seconds = stop_seconds
        self.progress = (0.0, 0.0)
        self._begun = now()
        self._limit = math.inf
        self._hour = 3600.0
        self._workers = 1

    def open(self, gpus: float, workers: int) -> None:
        """Fill in what is known once the cluster is: the GPUs of a trial, and how many run at once."""
        self._workers = workers
        self._limit = self._budget.worker_seconds(gpus)
        self._hour = 3600 * workers if math.isinf(self._limit) else 3600 / (gpus or 1.0)

    def take_rest(self) -> bool:
        """After the decision nothing is kept back; whether more is left than workers need to start.

        Never where `open` was not called, so that nothing is known.

        Raises:
            RunFolderError, RecordError: see `read_used`.
        """
        self._reserve = NO_RESERVE
        if self._folder is not None:
            self.used = read_used(self._folder)
        start = self.used.start_seconds
        worker, wall = self.margins()
        left = self.worker_seconds_left() - worker - self._workers * start
        seconds = min(left, self.wall_seconds_left() - wall - start)
        return 0 < seconds < math.inf

    @property
    def hour(self) -> float:
        """The seconds of trials in another hour: a GPU-hour, or an hour on the clock with `until`."""
        return self._hour

    @property
    def scale(self) -> float:
        """Measured over estimated time of the packs that ended and, with `progress`, of what runs."""
        measured, estimated = self.progress
        estimated += self.used.estimated_seconds
        return (self.used.measured_seconds + measured) / estimated if estimated else 1.0

    def worker_seconds_left(self, keep: bool = True) -> float:
        """Seconds of trials for this phase, those that run not yet subtracted.

        `keep` is False where there is nothing to decide, so that nothing is kept back for it.
        """
        needed = self.scale * self._reserve.worker_seconds + self._workers * self._start
        return self._limit - _kept(needed if keep else 0.0, self._limit) - self.used.worker_seconds

    def wall_seconds_left(self, keep: bool = True) -> float:
        """Seconds on the clock for this phase; `keep` as of `worker_seconds_left`."""
        whole = self._budget.deadline - self._begun
        needed = self.scale * self._reserve.wall_seconds + self._start
        return self._budget.deadline - _kept(needed if keep else 0.0, whole) - self.now()

    @property
    def _start(self) -> float:
        """What a worker needs to start for the decision, measured where one has, and to be stopped."""
        if not self._reserve.start_seconds:
            return 0.0
        return self.stop_seconds + (self.used.start_seconds or self._reserve.start_seconds)

    def margins(self) -> tuple[float, float]:
        """Seconds of trials, and on the clock, in which nothing should be expected to end."""
        limits = (self._limit, self._budget.deadline - self._begun)
        worker, wall = (0.0 if math.isinf(x) else self._margin * max(0.0, x) for x in limits)
        return max(worker, self._workers * self.stop_seconds), max(wall, self.stop_seconds)

    def ended(self, seconds: float, work: float, estimated: float | None) -> None:
        """A pack has ended.

        Args:
            seconds: How long it took a worker.
            work: Without the start of the worker.
            estimated: The estimate of the work; None where it trained nothing, and says little of others.
        """
        self.used.worker_seconds += seconds
        self.used.start_seconds = max(self.used.start_seconds, seconds - work)
        if estimated is not None:
            self.used.measured_seconds += work
            self.used.estimated_seconds += estimated

    def save(self, running_seconds: float = 0.0) -> None:
        """Write budget.json, with the seconds so far of what runs.

        Raises:
            DiskFullError, UnreachableError, OSError: it cannot be written.
        """
        content = {
            "worker_seconds": self.used.worker_seconds + running_seconds,
            "measured_seconds": self.used.measured_seconds,
            "estimated_seconds": self.used.estimated_seconds,
            "start_seconds": self.used.start_seconds,
        }
        if self._folder is not None:
            write_with_retry(self._folder.budget, json.dumps(content))


def _kept(needed: float, whole: float) -> float:
    """What is kept back of a whole budget for a decision that needs so much."""
    return 0.0 if needed > whole else min(needed, MOST_RESERVE * whole)
