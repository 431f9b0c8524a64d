"""Intervals and exact bounds of a rate k/n.

A rate is shown with its Wilson score interval; decisions use the exact bound of Clopper and Pearson, so
that a rate above the limit passes with probability at most 1 - confidence at every n. Seeds are never
pooled here: a caller passes one seed's counts.
"""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from sweeper.errors import SweeperError
from sweeper.stats.distributions import beta_cdf, beta_quantile


class Interval(NamedTuple):
    """A closed interval of rates."""

    low: float
    high: float


@lru_cache(maxsize=65536)
def wilson_interval(k: float, n: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of k successes in n, two-sided, within [0, 1].

    Wilson 1927, doi:10.1080/01621459.1927.10502953. `k` may be n times the mean of any [0,
    1]-valued score: the interval then assumes the largest variance such a score can have, v * (1 - v).

    Raises:
        SweeperError: not 0 <= k <= n, n < 1, or a confidence outside (0, 1).
    """
    _check(k, n)
    z = NormalDist().inv_cdf(0.5 + _share(confidence) / 2)
    share, extra = k / n, z * z / n
    centre = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / n + extra / (4 * n)) / (1 + extra)
    # At the ends the formula is exact in the reals only; rounding must not exclude the estimate.
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Interval(low, high)


@lru_cache(maxsize=65536)
def probability_at_most(k: int, n: int, limit: float) -> float:
    """The confidence that a rate is at most a limit: P(X > k) for X ~ Binomial(n, limit), in [0, 1].

    One minus the exact one-sided p-value of "the rate is above the limit" (Clopper and Pearson 1934,
    doi:10.1093/biomet/26.4.404), and the probability that Beta(k + 1, n - k) is at most the limit. A true
    rate at or above the limit reaches a confidence c with probability at most 1 - c, whatever n is.
    Jeffreys' prior, half a count on each side, does so in 14 % at n = 38 and a limit of 0.05.

    Raises:
        SweeperError: not 0 <= k <= n, n < 1, or a limit outside [0, 1].
    """
    _check(k, n)
    if not 0 <= limit <= 1:
        raise SweeperError(f"the limit of a rate must be in [0, 1], but got {limit}")
    if k == n:
        return float(limit == 1)
    return beta_cdf(k + 1, n - k, limit)


@lru_cache(maxsize=65536)
def upper_bound(k: int, n: int, confidence: float) -> float:
    """The exact upper confidence bound of a rate (Clopper and Pearson 1934), one-sided; 1 where k = n.

    The inverse of `probability_at_most` in its limit.

    Raises:
        SweeperError: not 0 <= k <= n, n < 1, or a confidence outside (0, 1).
    """
    _check(k, n)
    _share(confidence)
    return 1.0 if k == n else beta_quantile(k + 1, n - k, confidence)


def largest_passing_count(n: int, limit: float, confidence: float) -> int | None:
    """The largest k with P(rate <= limit) >= confidence at n prompts; None where even k = 0 fails.

    Raises:
        SweeperError: n < 1, a limit outside [0, 1], or a confidence outside (0, 1).
    """
    _share(confidence)
    if probability_at_most(0, n, limit) < confidence:
        return None
    passing, failing = 0, n + 1
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if probability_at_most(middle, n, limit) >= confidence:
            passing = middle
        else:
            failing = middle
    return passing


def difference_lower_bound(
    first: float, first_n: int, second: float, second_n: int, confidence: float = 0.95
) -> float:
    """One-sided lower bound of `first - second`, two means of [0, 1]-valued scores over n rows.

    Newcombe's hybrid of two Wilson intervals (method 10; Statistics in Medicine 17:873-890).
    It assumes independent samples: on the same rows, where scores of two models are positively correlated,
    it is conservative.

    Raises:
        SweeperError: a mean outside [0, 1], n < 1, or a confidence outside (0, 1).
    """
    two_sided = 2 * _share(confidence) - 1
    if two_sided <= 0:
        raise SweeperError(
            f"a one-sided bound requires a confidence above 0.5, but got {confidence}"
        )
    low = wilson_interval(first * first_n, first_n, two_sided).low
    high = wilson_interval(second * second_n, second_n, two_sided).high
    return first - second - math.hypot(first - low, high - second)


def _check(k: float, n: int) -> None:
    if n < 1 or not 0 <= k <= n:
        raise SweeperError(f"`0 <= k <= n` and `n >= 1` must hold, but got k={k}, n={n}")


def _share(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise SweeperError(f"a confidence lies strictly between 0 and 1, but got {confidence}")
    return confidence
