"""Two candidates on the same prompts or rows: their difference in a metric, with its interval."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import Candidate
from sweeper.metrics import LIKELIHOOD_METRICS
from sweeper.stats import (
    DiscordantPairs,
    Interval,
    difference_lower_bound,
    discordant_pairs,
    mcnemar,
    mean_interval,
    paired_difference_interval,
)
from sweeper.store.records import TrialRecord
from sweeper.store.samples import CORRECT, LOSS, TOKENS

Floats = NDArray[np.float64]


class PairedDifference(NamedTuple):
    """The first minus the second candidate in one metric, as means over seeds.

    `interval` is two-sided, None where only two values are known. `paired` says that prompts or
    rows were compared one by one, and `n` how many. `discordant` holds one seed's verdicts that differ
    after the other, and `p_value` the exact McNemar test's largest p over seeds: both are for rates.
    """

    metric: str
    first: float
    second: float
    difference: float
    interval: Interval | None
    paired: bool
    n: int
    discordant: tuple[DiscordantPairs, ...]
    p_value: float | None


def paired_difference(
    first: Candidate, second: Candidate, metric: str, confidence: float = 0.95, *, same: bool = True
) -> PairedDifference | None:
    """Compare two candidates in a metric that both have, else None.

    Verdicts get Tango's interval, averaged over seeds prompt by prompt where there are several; other
    rows Student's t; a ratio of sums (a loss, a perplexity) is linearised row by row (the delta
    method). Without rows a mean of [0, 1] scores gets Newcombe's interval of independent samples.

    Args:
        first: A candidate.
        second: Another one.
        metric: Any recorded one.
        confidence: Of the interval.
        same: Whether both were measured on the same prompts or rows.
    """
    if metric not in first.values or metric not in second.values:
        return None
    ends = first.values[metric], second.values[metric]
    n = min(m.n for item in (first, second) for m in item.measured(metric))
    rows = (rows_of(first, metric), rows_of(second, metric)) if same else (None, None)
    if rows[0] is None or rows[1] is None or len(rows[0]) != len(rows[1]) or len(rows[0]) < 2:
        between = _independent(first, second, metric, confidence)
        return PairedDifference(metric, *ends, ends[0] - ends[1], between, False, n, (), None)
    pairs = _verdicts(first, second, metric)
    apart = rows[0] - rows[1]
    between = (
        interval_of_verdicts(apart, confidence)
        if has_verdicts(first, metric) and has_verdicts(second, metric)
        else mean_interval(ends[0] - ends[1], apart, confidence)
    )
    p_value = max(mcnemar(pair) for pair in pairs) if pairs else None
    return PairedDifference(
        metric, *ends, ends[0] - ends[1], between, True, len(rows[0]), pairs, p_value
    )


@lru_cache(maxsize=16)
def rows_of(candidate: Candidate, metric: str) -> Floats | None:
    """Contribution of each prompt or row to a metric, averaged over seeds: shape (n,), mean the metric.

    For a sum over a sum, g(sum l / sum t), row i adds g + g' (l_i - (sum l / sum t) t_i) / mean t. None
    where a seed has no samples, or other ones than the rest.
    """
    each = [_rows(record, metric) for record in candidate.records]
    known = [rows for rows in each if rows is not None]
    if len(known) < len(each) or len({len(rows) for rows in known}) != 1:
        return None
    found: Floats = np.mean(known, axis=0)
    return found


def _rows(record: TrialRecord, metric: str) -> Floats | None:
    if metric not in record.metrics:
        return None
    if metric not in LIKELIHOOD_METRICS:
        found = record.samples.get(metric)
        return None if found is None else numbers(found)
    above = record.samples.get(CORRECT if metric == "token_accuracy" else LOSS)
    below = record.samples.get(TOKENS)
    if above is None or below is None:
        return None
    sums, tokens = numbers(above), numbers(below)
    ratio = sums.sum() / tokens.sum()
    value = record.metrics[metric].value
    slope = value if metric == "perplexity" else 1.0
    rows: Floats = value + slope * (sums - ratio * tokens) / tokens.mean()
    return rows


def numbers(samples: str | tuple[float, ...]) -> Floats:
    """Samples as an array of shape (n,)."""
    if isinstance(samples, str):
        return np.frombuffer(samples.encode("ascii"), dtype=np.uint8) - np.float64(ord("0"))
    return np.array(samples, dtype=np.float64)


def interval_of_verdicts(apart: Floats, confidence: float) -> Interval:
    """Tango's interval of a mean difference of verdicts, each in [-1, 1]; its width is never zero."""
    first, second = apart[apart > 0].sum(), -apart[apart < 0].sum()
    pairs = DiscordantPairs(float(first), float(second), len(apart))
    return paired_difference_interval(pairs, confidence)


def has_verdicts(candidate: Candidate, metric: str) -> bool:
    """Whether every seed has a verdict for each prompt."""
    return all(isinstance(record.samples.get(metric), str) for record in candidate.records)


def _verdicts(first: Candidate, second: Candidate, metric: str) -> tuple[DiscordantPairs, ...]:
    """The discordant pairs of each seed; empty where there are no paired verdicts."""
    if first.seeds != second.seeds:
        return ()
    both = zip(first.records, second.records, strict=True)
    verdicts = [(mine.samples.get(metric), its.samples.get(metric)) for mine, its in both]
    return tuple(
        discordant_pairs(one, other)
        for one, other in verdicts
        if isinstance(one, str) and isinstance(other, str)
    )


def _independent(
    first: Candidate, second: Candidate, metric: str, confidence: float
) -> Interval | None:
    if not (first.is_sampled(metric) and second.is_sampled(metric)):
        return None
    ends = [
        (item.values[metric], min(m.n for m in item.measured(metric))) for item in (first, second)
    ]
    share = 0.5 + confidence / 2
    return Interval(
        difference_lower_bound(*ends[0], *ends[1], share),
        -difference_lower_bound(*ends[1], *ends[0], share),
    )


def lower_bound_of(candidate: Candidate, metric: str, sign: int, confidence: float) -> float:
    """The one-sided bound of `sign` times a metric: Student's t from rows, else Wilson's, else the value.

    A metric that is neither sampled nor has rows is used without uncertainty.
    """
    value = sign * candidate.values[metric]
    rows = rows_of(candidate, metric)
    two_sided = 2 * confidence - 1
    if rows is not None and len(rows) > 1 and len(set(rows.tolist())) > 1:
        return mean_interval(value, rows, two_sided).low
    between = candidate.interval(metric, two_sided)
    if between is None:
        return value
    return between.low if sign > 0 else -between.high
