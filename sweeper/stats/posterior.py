"""Posterior draws of a metric on all prompts and under all seeds, given a sample of both.

The Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338) weights prompts with Exponential(1) draws.
The same weights are used for all configurations, so what they share on the same prompts cancels in every
comparison.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def prompt_weights(n: int, draws: int, rng: np.random.Generator) -> Floats:
    """Weights of n prompts, shape (draws, n): Exponential(1), so Dirichlet(1, ..., 1) over their sum."""
    return rng.standard_exponential((draws, n))


def rate_draws(weights: Floats, shares: Floats, rng: np.random.Generator) -> Floats:
    """Draws of rates, shape (draws, m); each alone is Beta(k + 1/2, n - k + 1/2) where shares are 0 or 1.

    Jeffreys' prior adds two pseudo-prompts to each configuration, one counted and one not, with
    independent Gamma(1/2) weights. Without them 0 of n would give certainty.

    Args:
        weights: Of `prompt_weights`, shape (draws, n).
        shares: Shape (m, n), in [0, 1]: the verdict on a prompt, averaged over seeds.
        rng: For the prior's weights.
    """
    size = (len(weights), len(shares))
    counted, not_counted = _half_gamma(size, rng), _half_gamma(size, rng)
    total = weights.sum(axis=1, keepdims=True)
    drawn: Floats = (weights @ shares.T + counted) / (total + counted + not_counted)
    return drawn


def _half_gamma(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Gamma(1/2) is half the square of a standard normal, which is faster to draw."""
    drawn: Floats = rng.standard_normal(size)
    drawn *= drawn
    drawn /= 2
    return drawn


def ratio_draws(weights: Floats, numerators: Floats, denominators: Floats) -> Floats:
    """Draws of ratios of two means over rows, shape (draws, m); of plain means where denominators are 1.

    Without a prior: identical rows give no spread.

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
    """Draws from Beta(n s + 1/2, n (1 - s) + 1/2), shape (draws, m), independent for each configuration.

    For counts without prompts. For a mean of [0, 1] scores it is the widest possible.

    Args:
        shares: Shape (m,), in [0, 1].
        n: Shape (m,), at least 1.
        draws: How many.
        rng: For the draws.
    """
    return rng.beta(n * shares + 0.5, n * (1 - shares) + 0.5, size=(draws, len(shares)))


class Spread(NamedTuple):
    """The spread of m metrics over seeds, each field of shape (m,).

    `variance` is that of the values; `within` the part expected if runs do not differ and only answers to
    single prompts vary; `seeds` how many there are.
    """

    variance: Floats
    within: Floats
    seeds: NDArray[np.int64]


def seed_spread(values: Floats, within: Floats | None = None) -> Spread:
    """The spread of m metrics over seeds.

    Args:
        values: Shape (m, seeds).
        within: Shape (m,), see `interaction_variance`; None attributes all spread to the runs.
    """
    m, seeds = values.shape
    apart = values - values[:, :1]  # Equal values have no variance at all, rounding included.
    variance = apart.var(axis=1, ddof=1) if seeds > 1 else np.zeros(m)
    return Spread(variance, np.zeros(m) if within is None else within, np.full(m, seeds))


def interaction_variance(answers: Floats) -> Floats:
    """Mean square of prompts by seeds divided by n: the variance of a seed's mean due to it, shape (m,).

    Args:
        answers: Shape (m, seeds, n), at least two of each of the last two.
    """
    _, seeds, n = answers.shape
    rest = answers - answers.mean(axis=1, keepdims=True) - answers.mean(axis=2, keepdims=True)
    rest += answers.mean(axis=(1, 2), keepdims=True)
    variance: Floats = np.square(rest).sum(axis=(1, 2)) / ((n - 1) * (seeds - 1)) / n
    return variance


def seed_noise(spread: Spread, draws: int, rng: np.random.Generator) -> Floats:
    """Draws of the difference between the mean over seeds and the mean over all runs, shape (draws, m).

    Prompts by seeds is a two-way table without replication: the variance of seeds' means is that of runs
    plus `within` (Searle, Casella, McCulloch 1992, chapter 4). It is drawn as (seeds - 1) variance /
    chi^2, `within` is subtracted, and the rest, if positive, is the variance of a normal (the
    generalised pivot of Weerahandi 1993, doi:10.1080/01621459.1993.10476355). Where `within` is 0 this is
    Student's t. With one seed the noise is unknown and set to 0.
    """
    noise = np.zeros((draws, len(spread.seeds)))
    moved = np.flatnonzero((spread.variance > 0) & (spread.seeds > 1))
    if len(moved):
        seeds, size = spread.seeds[moved].astype(np.float64), (draws, len(moved))
        drawn = spread.variance[moved] * (seeds - 1) / rng.chisquare(seeds - 1, size=size)
        own = np.maximum(0.0, drawn - spread.within[moved])
        noise[:, moved] = rng.standard_normal(size) * np.sqrt(own / seeds)
    return noise


def shifted(rates: Floats, noise: Floats, means: Floats) -> Floats:
    """Rates with the noise of seeds, shape (draws, m), added on the logit scale to stay in [0, 1].

    Noise of a rate is noise / (mean (1 - mean)) of its logit. Low rates are skewed over runs: a few are
    much higher, which an interval symmetric in the rate would miss.
    """
    moved = np.flatnonzero(noise.any(axis=0))
    if len(moved):
        inside = np.clip(rates[:, moved], 1e-12, 1 - 1e-12)
        centre = means[moved] * (1 - means[moved])
        logits = np.log(inside / (1 - inside)) + noise[:, moved] / centre
        rates[:, moved] = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return rates
