"""A schedule in virtual time: what starts when, and where a budget is expected to end."""

import heapq
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sweeper.estimate import Estimate
from sweeper.planning import Pack, Plan, make_packs, make_tasks
from sweeper.spec import SweepSpec
from sweeper.sweep.budget import STOP_SECONDS, Account, BudgetEnd, Clock, Reserve, planned_costs
from sweeper.sweep.budget_schedule import BudgetSchedule, Phase
from sweeper.sweep.schedule import FINISHED, RoundSchedule, Schedule
from sweeper.task import TrajectoryTask


class VirtualClock:
    """A clock that stands still until it is set; in seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        """The time."""
        return self.seconds


class Start(NamedTuple):
    """A pack with its place in time; `completed` is False where it was stopped before its end."""

    began: float
    ended: float
    pack: Pack
    completed: bool


def play(
    schedule: Schedule, clock: VirtualClock, workers: int, seconds_of: Callable[[Pack], float]
) -> list[Start]:
    """Run a schedule with packs that take known times; sets the clock.

    Args:
        schedule: What is played, on this clock.
        clock: Stands at the beginning.
        workers: Trials at once.
        seconds_of: How long a pack really takes.

    Returns:
        The packs in the order of their start.
    """
    starts: list[Start] = []
    running: list[tuple[float, int]] = []
    while True:
        while len(running) < workers:
            pack = schedule.next(str(len(starts)))
            if pack is None or pack == FINISHED:
                break
            end = clock() + seconds_of(pack)
            heapq.heappush(running, (end, len(starts)))
            schedule.started(str(len(starts)))
            starts.append(Start(clock(), end, pack, True))
        if not running:
            schedule.close()
            return starts
        end, number = running[0]
        stop = _stop_time(schedule, clock)
        if stop < end:
            clock.seconds = stop
            schedule.stop()
            for _, number in running:
                starts[number] = starts[number]._replace(ended=stop, completed=False)
            schedule.close()
            return starts
        heapq.heappop(running)
        clock.seconds = end
        schedule.ended(str(number))


def _stop_time(schedule: Schedule, clock: VirtualClock) -> float:
    if isinstance(schedule, BudgetSchedule):
        return clock() + max(0.0, schedule.seconds_to_stop())
    return float("inf")


class Forecast(NamedTuple):
    """The search of a plan in the order it would run, each path as long as estimated alone.

    `reserve` is what a budget keeps back for the decision. `end` is what it would leave undone; None where
    all fits, or where there is no budget.
    """

    starts: tuple[Start, ...]
    reserve: Reserve
    end: BudgetEnd | None

    def to_data(self) -> dict[str, Any]:
        """Everything, for JSON."""
        order = [
            {
                "begins_seconds": round(item.began, 3),
                "ends_seconds": round(item.ended, 3),
                "completed": item.completed,
                "trajectory_ids": [task.trajectory_id for task in item.pack],
            }
            for item in self.starts
        ]
        left = None if self.end is None else self.end._asdict()
        return {"order": order, "reserve": self.reserve._asdict(), "left": left}


def forecast(plan: Plan, spec: SweepSpec, cost: Estimate, now: Clock = time.time) -> Forecast:
    """Play the schedule of a plan; times count from its beginning.

    Args:
        plan: Of the search.
        spec: Of the sweep.
        cost: Its estimate: how long each path takes, and how many run at once.
        now: The clock at the beginning, for a budget that has a time.
    """
    seconds_of, reserve = planned_costs(plan, spec, cost)
    tasks = make_tasks(plan, spec, lambda path: path)
    began = now()
    clock = VirtualClock(began)

    def packed(some: Sequence[TrajectoryTask]) -> list[Pack]:
        return make_packs(some, spec.compute.adapters_per_trial, cost.workers)

    phase: Phase | None = None
    schedule: Schedule
    if spec.compute.budget is None:
        schedule = RoundSchedule(iter([tasks]), packed)
    else:
        phase = Phase(
            Account(spec.compute.budget, None, reserve, stop_seconds=STOP_SECONDS, now=clock),
            seconds_of,
            spec,
        )
        gpus = float(spec.compute.processes) * spec.compute.gpu_share if cost.gpu_hours else 0.0
        schedule = budgeted = phase.schedule(iter([tasks]), packed, gpus, cost.workers)
        budgeted.decidable = True
    starts = play(schedule, clock, cost.workers, lambda pack: sum(map(seconds_of, pack)))
    moved = (item._replace(began=item.began - began, ended=item.ended - began) for item in starts)
    return Forecast(tuple(moved), reserve, None if phase is None else phase.end)
