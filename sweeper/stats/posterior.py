"""Posterior draws of a metric on all prompts and under all seeds, given a sample of both.

The Bayesian bootstrap (Rubin 1981, doi:10.1214/aos/1176345338) weights prompts with Exponential(1) draws.
The same weights are used for all configurations, so what they share on the same prompts cancels in every
comparison.
"""

from collections.abc import Hashable, Sequence
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
    counted, not_counted = half_gamma(size, rng), half_gamma(size, rng)
    total = weights.sum(axis=1, keepdims=True)
    drawn: Floats = (weights @ shares.T + counted) / (total + counted + not_counted)
    return drawn


def half_gamma(size: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Draws of Gamma(1/2), half the square of a standard normal, which is fast."""
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
    """How a metric differs between runs, pooled over configurations that share this variance.

    `squares` is the sum of squares of seeds around their mean, `df` its degrees of freedom, and `within`
    the part of `squares` expected if runs do not differ and only answers to single rows vary.
    """

    squares: float
    within: float
    df: float


def seed_spread(
    values: Sequence[Floats],
    within: Sequence[float] | None = None,
    clusters: Sequence[Hashable] | None = None,
) -> Spread:
    """The spread over seeds of one metric of several configurations; those with one seed add nothing.

    Args:
        values: The values of each configuration, shape (seeds,).
        within: Of each, see `interaction_variance`; None attributes all spread to the runs.
        clusters: The trajectory of each: readouts of one share its runs, so of one cluster everything is
            averaged. None where each has its own.
    """
    members: dict[Hashable, list[tuple[float, float, float]]] = {}
    for index, each in enumerate(values):
        if (df := len(each) - 1) > 0:
            apart = each - each[0]  # Equal values have no variance at all, rounding included.
            own = df * float(apart.var(ddof=1)), df * (0.0 if within is None else within[index]), df
            members.setdefault(index if clusters is None else clusters[index], []).append(own)
    pooled = np.sum([np.mean(found, axis=0) for found in members.values()] or [[0, 0, 0]], axis=0)
    return Spread(*pooled.tolist())


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


def seed_noise(
    spread: Spread, seeds: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> Floats:
    """Draws of the difference between a mean over seeds and the mean over all runs, shape (draws, m).

    Prompts by seeds is a two-way table without replication: the variance of seeds' means is that of runs
    plus `within` (Searle, Casella, McCulloch 1992, chapter 4). It is drawn as squares / chi^2(df), `within`
    is subtracted, and the rest, if positive, is the variance of a normal (the generalised pivot of
    Weerahandi 1993, doi:10.1080/01621459.1993.10476355). Where `within` is 0 this is Student's t. Without
    degrees of freedom the noise is unknown and set to 0.

    Args:
        spread: Of `seed_spread`.
        seeds: How many each configuration has, shape (m,).
        draws: How many.
        rng: For the draws.
    """
    if spread.squares <= 0:
        return np.zeros((draws, len(seeds)))
    drawn = spread.squares / rng.chisquare(spread.df, size=(draws, 1))
    own = np.maximum(0.0, drawn - spread.within / spread.df)
    noise: Floats = rng.standard_normal((draws, len(seeds))) * np.sqrt(own / seeds)
    return noise


def shifted(rates: Floats, noise: Floats) -> Floats:
    """Rates with noise added on the logit scale, both of shape (draws, m), to stay in [0, 1]."""
    inside = np.clip(rates, 1e-12, 1 - 1e-12)
    logits = np.log(inside / (1 - inside)) + noise
    moved: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return moved
