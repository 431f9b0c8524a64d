"""Draws of what a metric would be on all prompts and under all seeds, given some of both.

The Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338) weights prompts with Exponential(1) draws.
The same weights are used for all configurations, so what they share on the same prompts cancels in every
comparison.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.stats.beta import t_quantile

Floats = NDArray[np.float64]


def prompt_weights(n: int, draws: int, rng: np.random.Generator) -> Floats:
    """Weights of n prompts, shape (draws, n): Exponential(1), so Dirichlet(1, ..., 1) over their sum."""
    return rng.standard_exponential((draws, n))


def rate_draws(weights: Floats, shares: Floats, rng: np.random.Generator) -> Floats:
    """Draws of rates, shape (draws, m); each alone is Beta(k + 1/2, n - k + 1/2) where shares are 0 or 1.

    To the weighted prompts of a configuration come one that is counted and one that is not, each with a
    weight Gamma(1/2) of the configuration's own: Jeffreys' prior. Without them 0 of n would be certainty.

    Args:
        weights: Of `prompt_weights`, shape (draws, n).
        shares: Shape (m, n), in [0, 1]: how a prompt counts, on average over seeds.
        rng: For the prior's weights.
    """
    size = (len(weights), len(shares))
    counted, not_counted = _half_gamma(size, rng), _half_gamma(size, rng)
    total = weights.sum(axis=1, keepdims=True)
    drawn: Floats = (weights @ shares.T + counted) / (total + counted + not_counted)
    return drawn


def _half_gamma(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Gamma(1/2) is half the square of a standard normal, and quicker drawn so."""
    drawn: Floats = rng.standard_normal(size)
    drawn *= drawn
    drawn /= 2
    return drawn


def ratio_draws(weights: Floats, numerators: Floats, denominators: Floats) -> Floats:
    """Draws of ratios of two means over rows, shape (draws, m); of plain means where denominators are 1.

    Without a prior: rows that are all alike leave no doubt.

    Args:
        weights: Of `prompt_weights`, shape (draws, n).
        numerators: Shape (m, n).
        denominators: Shape (n,) where they are the same for all m, or (m, n); positive.
    """
    below = weights @ denominators.T
    drawn: Floats = (weights @ numerators.T) / (below[:, None] if below.ndim == 1 else below)
    return drawn


def beta_draws(
    shares: Floats, n: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> Floats:
    """Draws from Beta(n s + 1/2, n (1 - s) + 1/2), shape (draws, m), one configuration as if alone.

    For counts without prompts. For a mean of [0, 1] scores it is the widest there can be.

    Args:
        shares: Shape (m,), in [0, 1].
        n: Shape (m,), at least 1.
        draws: How many.
        rng: For the draws.
    """
    return rng.beta(n * shares + 0.5, n * (1 - shares) + 0.5, size=(draws, len(shares)))


class Spread(NamedTuple):
    """How far seeds are apart: standard error of a mean over them, and its degrees of freedom, each (m,).

    No degrees of freedom say that nothing is known, and the standard error is 0.
    """

    error: Floats
    degrees: NDArray[np.int64]


def seed_spread(values: Floats, within: Floats | None = None) -> Spread:
    """The spread between runs that finitely many prompts do not explain.

    Two-way analysis of variance without replication, prompts by seeds: the variance of seeds' means is
    the runs' own plus `within` / n (Searle, Casella and McCulloch 1992, chapter 4). Where that is negative
    it is 0.

    Args:
        values: Shape (m, seeds): a metric of m configurations under each seed.
        within: Shape (m,): the part of the variance of each value that is due to prompts answered otherwise
            under another seed; None where it is not known and all spread is taken for the runs' own.
    """
    m, seeds = values.shape
    degrees = np.full(m, seeds - 1)
    if seeds < 2:
        return Spread(np.zeros(m), degrees)
    variance = values.var(axis=1, ddof=1) - (0.0 if within is None else within)
    return Spread(np.sqrt(np.maximum(0.0, variance) / seeds), degrees)


def interaction_variance(answers: Floats) -> Floats:
    """Mean square of prompts by seeds divided by n: how far a seed's mean moves by that alone, shape (m,).

    Args:
        answers: Shape (m, seeds, n), at least two of each of the last two.
    """
    _, seeds, n = answers.shape
    rest = answers - answers.mean(axis=1, keepdims=True) - answers.mean(axis=2, keepdims=True)
    rest += answers.mean(axis=(1, 2), keepdims=True)
    variance: Floats = np.square(rest).sum(axis=(1, 2)) / ((n - 1) * (seeds - 1)) / n
    return variance


def seed_noise(spread: Spread, draws: int, rng: np.random.Generator) -> Floats:
    """What to add to draws of a mean over seeds, shape (draws, m): t distributed, scaled by the spread."""
    noise = np.zeros((draws, len(spread.error)))
    moved = np.flatnonzero((spread.error > 0) & (spread.degrees > 0))
    if len(moved):
        t = rng.standard_t(spread.degrees[moved].astype(float), size=(draws, len(moved)))
        noise[:, moved] = t * spread.error[moved]
    return noise


def seed_half_width(spread: Spread, confidence: float = 0.95) -> Floats:
    """Half the width of the t interval of a mean over seeds, shape (m,); 0 where nothing is known."""
    quantiles = [
        t_quantile(0.5 + confidence / 2, int(degrees)) if degrees > 0 else 0.0
        for degrees in spread.degrees
    ]
    half: Floats = np.array(quantiles) * spread.error
    return half
