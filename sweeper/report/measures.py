"""A metric of a candidate as texts."""

from typing import NamedTuple

from sweeper.analysis import Candidate

ABSENT = "not measured"


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


def is_rate(metric: str) -> bool:
    """Whether a metric is shown in per cent: `unsafe_rate/zou2023` is one."""
    return metric.partition("/")[0].endswith("_rate")


def measure(candidate: Candidate, metric: str) -> Measure:
    """A metric over a candidate's seeds: the mean, and the envelope of the seeds' intervals."""
    value = candidate.values.get(metric)
    if value is None:
        return Measure(metric, ABSENT, "", "", "")
    scale, digits, unit = (100, 1, " %") if is_rate(metric) else (1, 3, "")
    interval = candidate.interval(metric)
    bounds = (
        ""
        if interval is None
        else (f"{scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f}{unit}")
    )
    found = candidate.measured(metric)
    each = [seed.value for seed in found]
    spread = ""
    if len(each) > 1:
        spread = f"seeds {scale * min(each):.{digits}f} to {scale * max(each):.{digits}f}{unit}"
    counts = candidate.counts(metric)
    if not counts and interval is not None:
        counts = f"n={min(seed.n for seed in found)}"
    return Measure(metric, f"{scale * value:.{digits}f}{unit}", counts, bounds, spread)
