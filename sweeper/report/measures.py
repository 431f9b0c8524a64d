"""A metric of a candidate as texts."""

from typing import NamedTuple

from sweeper.analysis import ABSENT, Candidate
from sweeper.metrics import is_rate, metric_text, range_text

__all__ = ["ABSENT", "Measure", "is_rate", "measure"]


class Measure(NamedTuple):
    """Texts of one metric: the value, its counts, its 95 % interval, and the spread over seeds.

    Rates are in per cent. Texts are empty where they do not apply.
    """

    metric: str
    text: str
    counts: str
    interval: str
    spread: str

    @property
    def detail(self) -> str:
        """The detail below the value in a table: `2/256, 0.2 to 2.8 %`."""
        return ", ".join(part for part in (self.counts, self.interval, self.spread) if part)


def measure(candidate: Candidate, metric: str) -> Measure:
    """A metric over a candidate's seeds: the mean, and the envelope of the seeds' intervals."""
    value = candidate.values.get(metric)
    if value is None:
        return Measure(metric, ABSENT, "", "", "")
    interval = candidate.interval(metric)
    bounds = "" if interval is None else range_text(metric, *interval)
    found = candidate.measured(metric)
    each = [seed.value for seed in found]
    spread = f"seeds {range_text(metric, min(each), max(each))}" if len(each) > 1 else ""
    counts = candidate.counts(metric)
    if not counts and interval is not None:
        counts = f"n={candidate.size(metric)}"
    return Measure(metric, metric_text(metric, value), counts, bounds, spread)
