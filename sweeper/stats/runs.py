"""How much training runs of one configuration differ, and what a rate would be if it were trained again.

A rate of a run is Phi(x), with x normal over runs: the standard deviation of x is then about the same for
low and for high rates, so that it can be pooled over configurations. A few seeds of one configuration tell
little about it; those of all configurations together, much more.
"""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.stats.distributions import beta_quantiles, normal_cdf, normal_quantile
from sweeper.stats.paired import RunPart
from sweeper.stats.posterior import half_gamma, interaction_variance, prompt_weights

Floats = NDArray[np.float64]

PRIOR_SD = 0.5
"""Between runs, on the probit scale: a choice between 0.3 and the 0.65 measured on the miniature.

With a single configuration under five seeds, of runs that differ by 0.65, a rate on the limit passes in
4.8 %."""

PRIOR_DF = 3.0
"""What the prior is worth in degrees of freedom: as much as one configuration under four seeds."""


class RunVariance(NamedTuple):
    """Variance of x between runs, a prior included: `squares / df`, or a draw `squares / chi^2(df)`.

    A prior worth some degrees of freedom moderates few seeds (Smyth 2004, doi:10.2202/1544-6115.1027).
    """

    squares: float
    df: float


EXACT = 1.0
"""A pseudo-prompt that counts fully: one seed's upper bound is then that of Clopper and Pearson."""

JEFFREYS = 0.5
"""Half a pseudo-prompt counted, half not: Jeffreys' prior, with equal errors on both sides."""

_TINY = 1e-9

PRIOR = RunVariance(PRIOR_DF * PRIOR_SD**2, PRIOR_DF)

NOTHING = RunVariance(0.0, 0.0)


def run_variance(
    tables: Iterable[Floats],
    clusters: Iterable[Hashable] | None = None,
    prior: RunVariance = PRIOR,
) -> RunVariance:
    """Pool what differs between runs over configurations.

    Per configuration with S >= 2 seeds: the squares of x around their mean, minus the part expected from
    prompts by seeds (`interaction_variance`, by the delta method), with S - 1 degrees of freedom. One
    configuration's difference may be negative, so only their sum is clipped at 0. Configurations read from
    one trajectory share its runs: of one cluster, squares and degrees of freedom are averaged.

    Args:
        tables: Verdicts of one configuration each, shape (seeds, n), of 0 and 1; those with fewer than two
            seeds or prompts add nothing.
        clusters: The trajectory of each table; None where each has its own.
        prior: Added to both; a test of a difference uses `NOTHING`, as it need not hold for one alone.
    """
    each = list(tables)
    keys = range(len(each)) if clusters is None else clusters
    members: dict[Hashable, list[tuple[float, float]]] = {}
    for table, key in zip(each, keys, strict=True):
        if min(table.shape) >= 2:
            members.setdefault(key, []).append(_own_squares(np.asarray(table, dtype=np.float64)))
    squares, df = np.sum([np.mean(found, axis=0) for found in members.values()] or [[0, 0]], axis=0)
    return RunVariance(prior.squares + max(0.0, float(squares)), prior.df + float(df))


def _own_squares(table: Floats) -> tuple[float, float]:
    """Squares between runs without the part of single prompts, and their degrees of freedom."""
    seeds, n = table.shape
    k = table.sum(axis=1)
    within = float(interaction_variance(table[None])[0]) / _slope(k, n)
    return (seeds - 1) * (float(probit(k, n).var(ddof=1)) - within), seeds - 1


def _slope(k: Floats, n: int) -> float:
    """The square of the slope of Phi, between those at the mean of x and at x of the mean rate.

    It is their geometric mean. Over runs, low rates are skewed, and either alone is wrong at 1 % and a
    standard deviation of 0.5.
    """
    x, of_mean = float(probit(k, n).mean()), float(probit(k.mean(), n))
    return float(np.exp(-(x**2 + of_mean**2) / 2)) / (2 * np.pi)


def probit(k: Floats, n: int | Floats) -> Floats:
    """Phi^-1((k + 1/2) / (n + 1)), which is finite at 0 and n too."""
    return normal_quantile((np.asarray(k) + 0.5) / (np.asarray(n) + 1.0))


def trained_again_draws(
    answers: Floats,
    variance: RunVariance,
    draws: int,
    rng: np.random.Generator,
    *,
    weights: Floats | None = None,
    counted: float = EXACT,
) -> Floats:
    """Draws of the mean rate over all prompts and all training runs, shape (draws,).

    All seeds share Exponential(1) weights of prompts, and two pseudo-prompts, one counted and one not, with
    Gamma weights (see `stats.posterior`). Where runs do not differ, the draws of one seed are
    Beta(k + counted, n - k + 1 - counted). See `over_runs` for the rest.

    Args:
        answers: Verdicts, shape (seeds, n), of 0 and 1.
        variance: Between runs, of `run_variance`.
        draws: How many.
        rng: For the draws.
        weights: Of prompts, shape (draws, n), to share them with other configurations.
        counted: The counted pseudo-prompt, in [0, 1]; the other one has the rest. `EXACT` for a decision
            against an upper limit, `JEFFREYS` where errors on both sides count the same.
    """
    n = answers.shape[1]
    prompts = prompt_weights(n, draws, rng) if weights is None else weights
    extra, rest = (rng.gamma(shape, size=(draws, 1)) for shape in (counted, 1 - counted))
    shares = (prompts @ answers.T + extra) / (prompts.sum(axis=1, keepdims=True) + extra + rest)
    return over_runs(normal_quantile(np.minimum(shares, 1.0)), variance, rng)


def trained_again_count_draws(
    k: Sequence[int] | NDArray[np.int64],
    n: Sequence[int] | NDArray[np.int64],
    variance: RunVariance,
    draws: int,
    rng: np.random.Generator,
    *,
    counted: float = EXACT,
) -> Floats:
    """`trained_again_draws` from counts under each seed, shape (seeds,) both, without verdicts.

    Seeds share their prompts, to an unknown degree: all are at the same quantile of
    Beta(k + counted, n - k + 1 - counted), which is the largest variance that their mean can have.
    """
    k, n = np.asarray(k), np.asarray(n)
    others, shares = n - k + 1 - counted, rng.random((draws, 1))
    below = beta_quantiles(np.maximum(k + counted, _TINY), np.maximum(others, _TINY), shares)
    return over_runs(normal_quantile(np.where(others > 0, below, 1.0)), variance, rng)


def over_runs(x: Floats, variance: RunVariance, rng: np.random.Generator) -> Floats:
    """Draws of the mean rate over all runs, (draws,), from draws of x under each seed, (draws, seeds).

    sigma^2 = squares / chi^2(df) is the variance between runs, mu ~ N(mean of x, sigma^2 / seeds) the
    mean of x over runs, and Phi(mu / sqrt(1 + sigma^2)) the mean rate over runs.
    """
    means = np.clip(x, -38, 38).mean(axis=1, keepdims=True)
    return all_over_runs(means, np.array([x.shape[1]]), variance, rng)[:, 0]


def all_over_runs(
    means: Floats, seeds: NDArray[np.int64], variance: RunVariance, rng: np.random.Generator
) -> Floats:
    """`over_runs` of m configurations, (draws, m), which share sigma^2 within a draw.

    Args:
        means: Draws of the mean of x over seeds, shape (draws, m).
        seeds: How many seeds each has, shape (m,).
        variance: Between runs, of `run_variance`.
        rng: For the draws.
    """
    sigma2 = variance.squares / rng.chisquare(variance.df, (len(means), 1))
    mu = means + rng.standard_normal(means.shape) * np.sqrt(sigma2 / seeds)
    return normal_cdf(mu / np.sqrt(1 + sigma2))


def all_trained_again_draws(
    tables: Sequence[Floats], variance: RunVariance, weights: Floats, rng: np.random.Generator
) -> Floats:
    """`trained_again_draws` of m configurations on the same prompts, (draws, m), with Jeffreys' prior.

    Args:
        tables: Verdicts, shape (seeds, n) each, of 0 and 1.
        variance: Between runs, of `run_variance`.
        weights: Of prompts, shape (draws, n), shared by all.
        rng: For the draws.
    """
    seeds = np.array([len(table) for table in tables])
    owner, starts = np.repeat(np.arange(len(seeds)), seeds), np.cumsum(seeds) - seeds
    size = (len(weights), len(seeds))
    counted, rest = half_gamma(size, rng), half_gamma(size, rng)
    total = weights.sum(axis=1, keepdims=True) + counted + rest
    shares = weights @ np.concatenate(tables).T + counted[:, owner]
    x = np.clip(normal_quantile(np.minimum(shares / total[:, owner], 1.0)), -38, 38)
    return all_over_runs(np.add.reduceat(x, starts, axis=1) / seeds, seeds, variance, rng)


def rate_part(k: Floats, n: int, variance: RunVariance) -> RunPart:
    """What runs add to the variance of a mean rate over seeds, by the delta method.

    Args:
        k: Counted under each seed, shape (seeds,).
        n: Prompts.
        variance: Between runs, with degrees of freedom.
    """
    added = _slope(k, n) * variance.squares / variance.df / len(k)
    return RunPart(added, 0.0, variance.df)
