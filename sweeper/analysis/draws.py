"""Draws of metrics from records: the values candidates would have on all prompts and under all seeds."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import Candidate
from sweeper.metrics import HARNESS, LIKELIHOOD_METRICS, is_sampled
from sweeper.stats.distributions import normal_quantile
from sweeper.stats.posterior import (
    beta_draws,
    interaction_variance,
    prompt_weights,
    rate_draws,
    ratio_draws,
    seed_noise,
    seed_spread,
    shifted,
)
from sweeper.stats.runs import (
    PRIOR,
    RunVariance,
    all_over_runs,
    all_trained_again_draws,
    probit,
    run_variance,
)
from sweeper.store.records import TrialRecord
from sweeper.store.samples import CORRECT, LOSS, TOKENS

Floats = NDArray[np.float64]
Suite = tuple[str, int]
"""What shares its weights: a suite's name, or `heldout`, and how many prompts or rows it has."""


class _Answers(NamedTuple):
    """The samples behind one candidate's metric: numerators over seeds (seeds, n), denominators (n,)."""

    numerators: Floats
    denominators: Floats | None
    counted: bool


class MetricDraws(NamedTuple):
    """Draws one metric of m candidates repeatedly.

    `paired` says for which candidates samples are used; `exact` for which only a value is known, which is
    then used without uncertainty.
    """

    suite: Suite
    draw: Callable[[Floats, np.random.Generator], Floats]
    paired: NDArray[np.bool_]
    exact: NDArray[np.bool_]


def suite_of(metric: str) -> str:
    """The suite a metric is measured on; metrics of one suite share its prompts, in the same order."""
    name, _, rest = metric.partition("/")
    if name == HARNESS:
        return "/".join(metric.split("/")[:2])
    if name == "degenerate_rate":
        return rest
    if name in ("unsafe_rate", "over_refusal_rate"):
        return "harmful" if name == "unsafe_rate" else "harmless"
    return "heldout"


def metric_draws(metric: str, items: Sequence[Candidate]) -> MetricDraws:
    """Prepare the draws of a metric that all candidates have under all of their seeds.

    Where all have one seed, draws are of these weights; else of their configurations, trained again, and
    what differs between runs is pooled over those with several seeds.
    """
    answers = [_answers(metric, item.records) for item in items]
    sizes = Counter(found.numerators.shape[1] for found in answers if found is not None)
    n = sizes.most_common(1)[0][0] if sizes else 1
    kept = [None if a is None or a.numerators.shape[1] != n else a for a in answers]
    with_rows = np.array([found is not None for found in kept], dtype=np.bool_)
    sampled = _sampled(metric, items)
    bounded = sampled or metric == "token_accuracy"
    again = any(len(item.seeds) > 1 for item in items)
    rows, counts = np.flatnonzero(with_rows), np.flatnonzero(~with_rows)
    paths = [item.records[0].trajectory_id for item in items]
    by_rows = _by_rows(
        [found for found in kept if found is not None],
        [paths[int(i)] for i in rows],
        bounded=bounded,
        again=again,
    )
    alone = [items[int(i)] for i in counts]
    by_counts = _by_counts(metric, alone, sampled=sampled, bounded=bounded, again=again)

    def draw(weights: Floats, rng: np.random.Generator) -> Floats:
        drawn = np.empty((len(weights), len(items)))
        if len(rows):
            drawn[:, rows] = by_rows(weights, rng)
        if len(counts):
            drawn[:, counts] = by_counts(len(weights), rng)
        return np.exp(drawn) if metric == "perplexity" else drawn

    return MetricDraws((suite_of(metric), n), draw, with_rows, exact=~with_rows & (not sampled))


def weights_of(
    metrics: Mapping[str, MetricDraws], draws: int, rng: np.random.Generator
) -> dict[Suite, Floats]:
    """Weights for every suite, drawn once each: they pair configurations and metrics."""
    suites = sorted({found.suite for found in metrics.values()})
    return {suite: prompt_weights(suite[1], draws, rng) for suite in suites}


def is_bounded(metric: str, items: Sequence[Candidate]) -> bool:
    """Whether a metric lies in [0, 1]: a mean of such scores, or a fraction of tokens."""
    return _sampled(metric, items) or metric == "token_accuracy"


def _sampled(metric: str, items: Sequence[Candidate]) -> bool:
    counted = all(m.k is not None for item in items for m in item.measured(metric))
    return is_sampled(metric, counted=counted)


def _answers(metric: str, records: Sequence[TrialRecord]) -> _Answers | None:
    """The samples of a metric under every seed, or None where a seed has none, or other ones."""
    name = metric
    if metric in LIKELIHOOD_METRICS:
        name = CORRECT if metric == "token_accuracy" else LOSS
    found = [record.samples.get(name) for record in records]
    if any(values is None or len(values) != len(found[0] or ()) for values in found):
        return None
    counted = all(isinstance(values, str) for values in found)
    numerators = np.array([_numbers(values) for values in found if values is not None])
    if metric not in LIKELIHOOD_METRICS:
        return _Answers(numerators, None, counted)
    tokens = [record.samples.get(TOKENS) for record in records]
    if any(values != tokens[0] for values in tokens) or tokens[0] is None:
        return None
    return _Answers(numerators, np.array(tokens[0], dtype=np.float64), counted=False)


def _numbers(values: str | Sequence[float]) -> Floats:
    if isinstance(values, str):
        return np.frombuffer(values.encode("ascii"), dtype=np.uint8) - np.float64(48)
    return np.array(values, dtype=np.float64)


def _by_rows(
    answers: Sequence[_Answers], paths: Sequence[str], *, bounded: bool, again: bool
) -> Callable[[Floats, np.random.Generator], Floats]:
    """Draws from weighted prompts; of a rate under each seed, else of the mean over seeds, row by row."""
    if not answers:
        return lambda weights, rng: np.empty((len(weights), 0))
    tables = [found.numerators for found in answers]
    seeds = np.array([len(table) for table in tables])
    every = all(found.counted for found in answers)
    if every and again:
        variance = run_variance(tables, paths)
        return lambda weights, rng: all_trained_again_draws(tables, variance, weights, rng)
    shares = np.array([table.mean(axis=0) if len(table) > 1 else table[0] for table in tables])
    below = _denominators([found.denominators for found in answers], shares.shape[1])
    scales = _scales(shares.sum(axis=1) / below.sum(axis=-1), bounded=bounded)
    means = [_seed_means(found) for found in answers]
    spread = seed_spread(
        [values / scale for (values, _), scale in zip(means, scales, strict=True)],
        [within / scale**2 for (_, within), scale in zip(means, scales, strict=True)],
        paths,
    )

    def draw(weights: Floats, rng: np.random.Generator) -> Floats:
        noise = seed_noise(spread, seeds, len(weights), rng)
        drawn = rate_draws(weights, shares, rng) if every else ratio_draws(weights, shares, below)
        return _moved(drawn, noise, bounded=bounded)

    return draw


def _scales(means: Floats, *, bounded: bool) -> Floats:
    """What a unit of noise is in units of the metric: of a logit where it is bounded, shape (m,).

    Runs of rates near 0 or 1 differ less; their logits do not.
    """
    scales: Floats = np.maximum(means * (1 - means), 1e-6) if bounded else np.ones(len(means))
    return scales


def _moved(drawn: Floats, noise: Floats, *, bounded: bool) -> Floats:
    if not noise.any():
        return drawn
    return shifted(drawn, noise) if bounded else drawn + noise


def _denominators(below: Sequence[Floats | None], n: int) -> Floats:
    """Shape (n,) where all candidates have the same, which is the usual case."""
    ones = np.ones(n)
    given = [ones if one is None else one for one in below]
    if all(one is given[0] or np.array_equal(one, given[0]) for one in given):
        return given[0]
    return np.array(given)


def _seed_means(found: _Answers) -> tuple[Floats, float]:
    """The value under each seed, and the variance of one that is due to single rows; 0 of one seed."""
    seeds, n = found.numerators.shape
    if seeds == 1:
        return np.zeros(1), 0.0
    scaled = found.numerators
    if found.denominators is not None:
        scaled = scaled / found.denominators.mean()
    within = float(interaction_variance(scaled[None])[0]) if n > 1 else 0.0
    return scaled.mean(axis=1), within


def _by_counts(
    metric: str, items: Sequence[Candidate], *, sampled: bool, bounded: bool, again: bool
) -> Callable[[int, np.random.Generator], Floats]:
    """Draws from k/n alone, or from a value alone; all spread over seeds is attributed to training runs.

    Seeds share the same prompts, so their counts are not pooled. `again` as of `_by_rows`.
    """
    if not items:
        return lambda draws, rng: np.empty((draws, 0))
    each = [np.array([m.value for m in item.measured(metric)]) for item in items]
    if metric == "perplexity":
        each = [np.log(values) for values in each]
    means = np.array([values.mean() for values in each])
    n = np.array([item.size(metric) or 1 for item in items])  # Of what is drawn, all are known.
    seeds = np.array([len(values) for values in each])
    paths = [item.records[0].trajectory_id for item in items]
    if again and all(m.k is not None for item in items for m in item.measured(metric)):
        x = [probit(values * size, size) for values, size in zip(each, n, strict=True)]
        squares, _, df = seed_spread(x, clusters=paths)
        variance = RunVariance(PRIOR.squares + squares, PRIOR.df + df)

        def draw_rates(draws: int, rng: np.random.Generator) -> Floats:
            drawn = normal_quantile(beta_draws(means, n, draws, rng))
            return all_over_runs(drawn, seeds, variance, rng)

        return draw_rates
    scales = _scales(means, bounded=bounded)
    spread = seed_spread(
        [values / scale for values, scale in zip(each, scales, strict=True)], clusters=paths
    )

    def draw(draws: int, rng: np.random.Generator) -> Floats:
        noise = seed_noise(spread, seeds, draws, rng)
        drawn = beta_draws(means, n, draws, rng) if sampled else np.tile(means, (draws, 1))
        return _moved(drawn, noise, bounded=bounded)

    return draw
