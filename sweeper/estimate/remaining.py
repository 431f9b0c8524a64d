"""How long a running sweep still takes: planned work, calibrated on the work that has finished."""

from collections.abc import Mapping
from statistics import fmean
from typing import NamedTuple

from sweeper.estimate.estimate import makespan, trajectory_seconds
from sweeper.estimate.rates import Rates, Tokens
from sweeper.planning import Plan, Trajectory
from sweeper.spec import SweepSpec

Key = tuple[str, int]
"""Of a record: configuration id and seed."""

BURST_SECONDS = 1.0
BURST_SHARE = 0.01
"""Records that come closer together than this, or than this share of the time so far, are of one burst."""


class PlannedWork(NamedTuple):
    """The work of a sweep by its estimate.

    `seconds` are those of a worker for each record, `decision_seconds` pass on the clock until the first
    configuration of the decision is tested, the start of its workers apart. None of it is right by itself:
    `Remaining` scales it.
    """

    seconds: Mapping[Key, float]
    workers: int = 1
    decision_seconds: float = 0.0


def planned_work(
    plan: Plan, spec: SweepSpec, rates: Rates, tokens: Tokens, workers: int
) -> PlannedWork:
    """The work of every record of a search, and of its decision.

    A record has its readout, and its part of the steps since the readouts before it on the same path.

    Args:
        plan: Of the search.
        spec: Of the sweep.
        rates: Of its estimate.
        tokens: Likewise.
        workers: Trials at once.
    """
    work: dict[Key, float] = {}
    for path in plan.trajectories:
        train, evaluate, load = trajectory_seconds(path, rates, tokens)
        readouts, before = len(path.configurations), 0
        for step in sorted({item.step for item in path.configurations}):
            here = [item for item in path.configurations if item.step == step]
            trained = train * (step - before) / max(1, path.steps) + (0.0 if before else load)
            for item in here:
                work[item.config_id, path.seed] = evaluate / readouts + trained / len(here)
            before = step
    return PlannedWork(work, workers, _decision_seconds(plan, spec, rates, tokens, workers))


def _decision_seconds(
    plan: Plan, spec: SweepSpec, rates: Rates, tokens: Tokens, workers: int
) -> float:
    """Until the first path of the decision is tested; the mean over the paths it may be.

    Candidates that lie on one path are measured together: counted are half of them and two controls.
    """
    if not spec.decide or not spec.constraints:
        return 0.0
    seeds, readouts = spec.decide.seeds, 2 + spec.decide.candidates // 2

    def walk(path: Trajectory) -> float:
        train, evaluate, load = trajectory_seconds(path, rates, tokens)
        each = evaluate / len(path.configurations)
        measured = min(readouts, len(path.configurations))
        tested = makespan([train + load + measured * each] * seeds, workers)
        return tested + train + load + 2 * each

    paths = [
        path
        for path in plan.trajectories
        if any(c.role == "candidate" for c in path.configurations)
    ]
    return fmean(map(walk, paths)) if paths else 0.0


class Remaining:
    """The seconds left of a search and its decision, or of the decision alone.

    The time until the first records is the start of the workers, which the decision needs again. From then
    on, planned work is scaled by how long the finished part took, where half of the work between two
    readouts counts as done in every other worker.

    Args:
        work: What is planned; records that it does not name have the mean work, or 1 where it names none.
        begun: The clock at the beginning, in seconds.
        left: The work left, in the unit of `work`.
        guess: The seconds left at the beginning, which counts less the more is done; None: not known.
    """

    def __init__(
        self, work: PlannedWork, begun: float, left: float, guess: float | None = None
    ) -> None:
        self._work, self._begun, self._guess = work, begun, guess
        self.left = left
        self._usual = fmean(work.seconds.values()) if work.seconds else 1.0
        self._last = begun
        self._burst = 0.0
        self._first: float | None = None
        self._measured_at = begun
        self._done = 0.0
        self._bursts = 0

    def finished(self, key: Key, now: float) -> None:
        """A record has come."""
        self._end_burst(now)
        seconds = self._work.seconds.get(key, self._usual)
        self.left = max(0.0, self.left - seconds)
        self._burst += seconds
        self._last = now

    def seconds_left(self, now: float) -> float | None:
        """From now on, never below 0; None while nothing is known."""
        self._end_burst(now)
        guessed = None if self._guess is None else max(0.0, self._guess - (now - self._begun))
        if not self._bursts:
            return guessed
        left = self.left + self._burst  # Of the burst that goes on, the end is not known yet.
        search = self._scale * max(0.0, left - self._under_way)
        measured = search + self.later - (now - self._measured_at)
        if guessed is not None:
            share = self._done / (self._done + left)
            measured = share * measured + (1 - share) * guessed
        return max(0.0, measured)

    @property
    def later(self) -> float:
        """The seconds of the decision that follows; 0 where none does, or nothing is known yet."""
        if self._first is None or not self._bursts or not self._work.decision_seconds:
            return 0.0
        start = self._first - self._begun
        return self._scale * self._work.workers * self._work.decision_seconds + start

    def _end_burst(self, now: float) -> None:
        """Count the last burst, once no more of it can come."""
        apart = min(BURST_SECONDS, (now - self._begun) * BURST_SHARE)
        if not self._burst or now - self._last <= apart:
            return
        if self._first is None:  # Its work is not known apart from the start of the workers.
            self._first = self._last
        else:
            self._done += self._burst
            self._bursts += 1
        self._measured_at, self._burst = self._last, 0.0

    @property
    def _under_way(self) -> float:
        return (self._work.workers - 1) / 2 * self._done / self._bursts

    @property
    def _scale(self) -> float:
        """Seconds on the clock for a unit of work, all workers together."""
        assert self._first is not None
        under_way = min(self._under_way, self.left + self._burst)
        return (self._measured_at - self._first) / (self._done + under_way)
