"""What a sweep has really cost, from the records of its run."""

from collections.abc import Iterable
from typing import NamedTuple

from sweeper.store.records import TrialRecord


class Spent(NamedTuple):
    """Seconds of workers that records account for, and how many records do."""

    load_seconds: float
    train_seconds: float
    evaluate_seconds: float
    records: int

    @property
    def seconds(self) -> float:
        """The sum of the three."""
        return self.load_seconds + self.train_seconds + self.evaluate_seconds


def spent(records: Iterable[TrialRecord]) -> Spent:
    """Sum up the records of a run.

    `load` is measured once per attempt at a trajectory and tells its attempts apart; `train` grows along
    an attempt, so each attempt counts with its largest. `evaluate` is each readout's own, and counts where
    there was a readout. What an attempt did after its last record is in no record: a lower bound.
    """
    attempts: dict[tuple[str, int, float], float] = {}
    evaluate, counted = 0.0, 0
    for record in records:
        seconds = record.provenance.get("seconds")
        if not seconds:
            continue
        counted += 1
        attempt = (record.trajectory_id, record.seed, float(seconds.get("load", 0.0)))
        attempts[attempt] = max(attempts.get(attempt, 0.0), float(seconds.get("train", 0.0)))
        if record.status != "failed":
            evaluate += float(seconds.get("evaluate", 0.0))
    load = sum(attempt[2] for attempt in attempts)
    return Spent(load, sum(attempts.values()), evaluate, counted)
