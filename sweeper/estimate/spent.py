"""The actual cost of a sweep, and the savings by early stopping, from the records of its run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sweeper.estimate.estimate import duration_text
from sweeper.store.records import TrialRecord


class Spent(NamedTuple):
    """Worker seconds in the records, and the number of records with them."""

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

    `load` is measured once per attempt at a trajectory and identifies the attempt; `train` grows along an
    attempt, so its largest value counts. `evaluate` is per readout. Work of an attempt after its last
    record is not recorded, so this is a lower bound.
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


class Saved(NamedTuple):
    """Readouts stopped by each rule, and the work saved.

    `prompts` counts all that were not answered, held-out and harmless ones included, `steps` the optimizer
    steps that were not taken. The seconds of workers are estimates: these counts times the seconds per
    prompt answered and per step that were measured beside them.
    """

    rules: Mapping[str, int]
    prompts: int
    steps: int
    evaluate_seconds: float
    train_seconds: float

    @property
    def text(self) -> str:
        """One line for people."""
        rules = ", ".join(f"{name} {count}" for name, count in self.rules.items())
        seconds = duration_text(self.evaluate_seconds + self.train_seconds)
        count = sum(self.rules.values())
        return (
            f"{count} readout{'' if count == 1 else 's'} ({rules}): {self.prompts:,} prompts not answered, "
            f"{self.steps:,} optimizer steps not taken, an estimated {seconds} of worker time"
        )


def saved(records: Iterable[TrialRecord]) -> Saved | None:
    """Sum up the work that pruned records saved; None where there are none.

    A trajectory without a measured rate (skipped entirely after an interruption) counts with 0 seconds, so
    this is a lower bound.
    """
    pruned = [record for record in records if record.status == "pruned"]
    if not pruned:
        return None
    rules: Counter[str] = Counter()
    prompts = steps = 0
    evaluate = train = 0.0
    for record in pruned:
        reason, seconds = record.reason or {}, record.provenance.get("seconds", {})
        rules[str(reason.get("rule"))] += 1
        left, skipped = int(reason.get("prompts_left", 0)), int(reason.get("steps_left", 0))
        prompts, steps = prompts + left, steps + skipped
        evaluate += left * float(seconds.get("prompt", 0.0))
        train += skipped * float(seconds.get("step", 0.0))
    return Saved(dict(sorted(rules.items())), prompts, steps, evaluate, train)
