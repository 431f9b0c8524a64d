"""Two candidates on the same prompts or rows: their difference in a metric, with its interval."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import BASE_ROLE, Candidate
from sweeper.metrics import LIKELIHOOD_METRICS
from sweeper.stats import (
    THESE_WEIGHTS,
    DiscordantPairs,
    Interval,
    RunPart,
    difference_lower_bound,
    discordant_means,
    discordant_pairs,
    joint,
    mcnemar,
    mean_interval,
    paired_difference_interval,
    run_part,
    t_quantile,
    two_way_p,
)
from sweeper.stats.runs import NOTHING, RunVariance, rate_part, run_variance
from sweeper.store.records import TrialRecord
from sweeper.store.samples import CORRECT, LOSS, TOKENS

Floats = NDArray[np.float64]

UNTRAINED = RunPart(0.0, 0.0, 1.0)
"""The untouched model has no runs that could differ."""


Claim = Literal["these weights", "trained again"]
"""What a difference is about: the runs that were trained, or all that would be if trained again."""

FEWEST_POOLED_DF = 8.0
"""Fewer degrees of freedom of all configurations together are no better than those of the two."""

ENOUGH_SEEDS = 5
"""From here on the seeds of a configuration say enough about its own runs."""


class PairedDifference(NamedTuple):
    """The first minus the second candidate in one metric, as means over seeds.

    `claim` says whether only prompts vary ("these weights") or training runs too ("trained again").
    `interval` is two-sided, None where only two values are known. `paired` says that prompts or
    rows were compared one by one, and `n` how many. `discordant` holds one seed's verdicts that differ
    after the other. `p_value` is two-sided, of rates: McNemar's exact test for these weights, Student's t
    of the two-way variance for the configurations trained again.
    """

    metric: str
    first: float
    second: float
    difference: float
    interval: Interval | None
    claim: Claim
    paired: bool
    n: int | None
    discordant: tuple[DiscordantPairs, ...]
    p_value: float | None


def paired_difference(
    first: Candidate,
    second: Candidate,
    metric: str,
    confidence: float = 0.95,
    *,
    same: bool = True,
    among: Iterable[Candidate] = (),
) -> PairedDifference | None:
    """Compare two candidates in a metric that both have, else None.

    Where both were trained under several seeds, the difference is one of configurations: its variance is
    two-way, over prompts and over runs. Where one was trained under a single seed, it is one of these
    weights, or of their means, and only prompts vary. The untouched model has no runs.

    Verdicts get Tango's interval, other rows Student's t; a ratio of sums (a loss, a perplexity) is
    linearised row by row (the delta method). Without rows a mean of [0, 1] scores gets Newcombe's interval
    of independent samples, with the variance of runs added to both of its halves.

    Args:
        first: A candidate.
        second: Another one.
        metric: Any recorded one.
        confidence: Of the interval.
        same: Whether both were measured on the same prompts or rows.
        among: Candidates of the sweep; what runs differ by is estimated from all of them.
    """
    if metric not in first.values or metric not in second.values:
        return None
    ends = first.values[metric], second.values[metric]
    runs = runs_of_difference(first, second, metric, tuple(among))
    claim: Claim = "these weights" if runs is None else "trained again"
    part = THESE_WEIGHTS if runs is None else runs
    rows = (rows_of(first, metric), rows_of(second, metric)) if same else (None, None)
    if rows[0] is None or rows[1] is None or len(rows[0]) != len(rows[1]) or len(rows[0]) < 2:
        sizes = [item.size(metric) for item in (first, second)]
        n = None if None in sizes else min(n for n in sizes if n is not None)
        between = _independent(first, second, metric, confidence, part)
        return PairedDifference(
            metric, *ends, ends[0] - ends[1], between, claim, False, n, (), None
        )
    pairs = _verdicts(first, second, metric)
    apart, p_value = rows[0] - rows[1], None
    if has_verdicts(first, metric) and has_verdicts(second, metric):
        between = interval_of_verdicts(apart, confidence, part)
        if runs is not None:
            p_value = p_of_verdicts(apart, part)
        elif len(pairs) == 1:
            p_value = mcnemar(pairs[0])
    else:
        between = mean_interval(ends[0] - ends[1], apart, confidence, part)
    return PairedDifference(
        metric, *ends, ends[0] - ends[1], between, claim, True, len(rows[0]), pairs, p_value
    )


def runs_of_difference(
    first: Candidate, second: Candidate, metric: str, among: tuple[Candidate, ...] = ()
) -> RunPart | None:
    """What training runs add to the variance of a difference; None where it is one of these weights only.

    Readouts of the same trajectories share their runs, so that their differences are taken seed by seed.
    Others are independent, also under equal seeds. Verdicts of fewer than `ENOUGH_SEEDS` seeds get the
    variance pooled over `among`, if that has `FEWEST_POOLED_DF`.
    """
    trained = [item for item in (first, second) if item.role != BASE_ROLE]
    if not trained or min(len(item.records) for item in trained) < 2:
        return None
    if first.role != BASE_ROLE and runs_key(first) == runs_key(second):
        return _within_runs(first, second, metric)
    pool = pooled_runs(among, metric)
    few = min(len(item.records) for item in trained) < ENOUGH_SEEDS
    if few and pool.df >= FEWEST_POOLED_DF and all(has_verdicts(i, metric) for i in trained):
        parts = [pooled_part(item, metric, pool) for item in trained]
        return RunPart(sum(part.variance for part in parts), 0.0, pool.df)
    return joint(*(own_part(i, metric) if i in trained else UNTRAINED for i in (first, second)))


def runs_key(candidate: Candidate) -> tuple[tuple[str, int], ...]:
    """The training runs that a candidate was read from."""
    return tuple((record.trajectory_id, record.seed) for record in candidate.records)


@lru_cache(maxsize=16)
def pooled_runs(among: tuple[Candidate, ...], metric: str) -> RunVariance:
    """What runs of the trained candidates differ by in a rate, on the probit scale, without a prior."""
    known = [
        (answers, runs_key(item))
        for item in among
        if item.role != BASE_ROLE
        and len(item.records) > 1
        and has_verdicts(item, metric)
        and (answers := answers_of(item, metric)) is not None
    ]
    return run_variance([a for a, _ in known], [key for _, key in known], NOTHING)


def pooled_part(candidate: Candidate, metric: str, pool: RunVariance) -> RunPart:
    """What runs add to the variance of a candidate's rate, from the variance of all."""
    answers = answers_of(candidate, metric)
    assert answers is not None
    return rate_part(answers.sum(axis=1), answers.shape[1], pool)


def own_part(candidate: Candidate, metric: str) -> RunPart:
    """What runs add to the variance of a candidate's mean, from its own seeds, at least two."""
    answers = answers_of(candidate, metric)
    if answers is not None and answers.shape[1] > 1:
        return run_part(answers)
    return _of_values(np.array([m.value for m in candidate.measured(metric)]))


def _of_values(values: Floats) -> RunPart:
    """All that seeds differ by is attributed to the runs."""
    apart, seeds = values - values[0], len(values)
    return RunPart(float(apart.var(ddof=1)) / seeds, 0.0, seeds - 1)


def _within_runs(first: Candidate, second: Candidate, metric: str) -> RunPart:
    """Of the differences seed by seed. Those of scores are attributed to the runs as a whole."""
    tables = answers_of(first, metric), answers_of(second, metric)
    if tables[0] is not None and tables[1] is not None and tables[0].shape == tables[1].shape:
        apart = tables[0] - tables[1]
        verdicts = has_verdicts(first, metric) and has_verdicts(second, metric)
        return (
            run_part(apart) if verdicts and apart.shape[1] > 1 else _of_values(apart.mean(axis=1))
        )
    values = zip(first.measured(metric), second.measured(metric), strict=True)
    return _of_values(np.array([one.value - other.value for one, other in values]))


@lru_cache(maxsize=64)
def answers_of(candidate: Candidate, metric: str) -> Floats | None:
    """Contribution of each prompt or row to a metric under each seed: (seeds, n), mean the metric.

    For a sum over a sum, g(sum l / sum t), row i adds g + g' (l_i - (sum l / sum t) t_i) / mean t. None
    where a seed has no samples, or other ones than the rest.
    """
    each = [_rows(record, metric) for record in candidate.records]
    known = [rows for rows in each if rows is not None]
    if len(known) < len(each) or len({len(rows) for rows in known}) != 1:
        return None
    return np.array(known)


def rows_of(candidate: Candidate, metric: str) -> Floats | None:
    """`answers_of`, averaged over seeds: shape (n,)."""
    answers = answers_of(candidate, metric)
    if answers is None:
        return None
    found: Floats = answers.mean(axis=0)
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


def numbers(samples: str | Sequence[float]) -> Floats:
    """Samples as an array of shape (n,)."""
    if isinstance(samples, str):
        return np.frombuffer(samples.encode("ascii"), dtype=np.uint8) - np.float64(ord("0"))
    return np.array(samples, dtype=np.float64)


def interval_of_verdicts(
    apart: Floats, confidence: float, runs: RunPart = THESE_WEIGHTS
) -> Interval:
    """Tango's interval of a mean difference of verdicts, each in [-1, 1]; its width is never zero."""
    return paired_difference_interval(discordant_means(apart), confidence, runs)


def p_of_verdicts(apart: Floats, runs: RunPart) -> float:
    """Of no mean difference of verdicts, over prompts and runs; it agrees with the interval at zero."""
    pairs = discordant_means(apart)
    return two_way_p(pairs.difference, pairs.variance, math.inf, runs)


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
    first: Candidate, second: Candidate, metric: str, confidence: float, runs: RunPart
) -> Interval | None:
    sizes = first.size(metric), second.size(metric)
    if sizes[0] is None or sizes[1] is None:
        return None
    if not (first.is_sampled(metric) and second.is_sampled(metric)):
        return None
    ends = (first.values[metric], sizes[0]), (second.values[metric], sizes[1])
    share, difference = 0.5 + confidence / 2, ends[0][0] - ends[1][0]
    low = difference_lower_bound(*ends[0], *ends[1], share)
    high = -difference_lower_bound(*ends[1], *ends[0], share)
    if not runs.variance:
        return Interval(low, high)
    more = t_quantile(share, runs.df) * math.sqrt(runs.variance)
    return Interval(
        difference - math.hypot(difference - low, more),
        difference + math.hypot(high - difference, more),
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
