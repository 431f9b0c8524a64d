"""Paired comparison of two configurations on the same prompts or rows."""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import SweeperError
from sweeper.stats.distributions import t_quantile
from sweeper.stats.rates import Interval

_BISECTIONS = 50


class DiscordantPairs(NamedTuple):
    """The number of n prompts counted only for the first, and only for the second.

    For verdicts averaged over seeds: the positive and the negative part of the differences, summed over
    prompts.
    """

    first: float
    second: float
    n: int

    @property
    def difference(self) -> float:
        """The first rate minus the second."""
        return (self.first - self.second) / self.n


def discordant_pairs(first: str, second: str) -> DiscordantPairs:
    """Compare verdicts prompt by prompt.

    Args:
        first: A `0` or `1` for each prompt.
        second: Those of the second, on the same prompts in the same order.

    Raises:
        SweeperError: no prompts, or not equally many.
    """
    if not first or len(first) != len(second):
        raise SweeperError(
            f"pairs need the same prompts, at least one, but got {len(first)} and {len(second)}"
        )
    pairs = list(zip(first, second, strict=True))
    return DiscordantPairs(pairs.count(("1", "0")), pairs.count(("0", "1")), len(pairs))


def mcnemar(pairs: DiscordantPairs) -> float:
    """Exact two-sided p of equal rates, from whole numbers of discordant prompts (McNemar 1947).

    2 P(X <= min(first, second)), at most 1, with X ~ Binomial(first + second, 1/2), in whole numbers.
    """
    total, least = int(pairs.first + pairs.second), int(min(pairs.first, pairs.second))
    return min(1.0, 2 * sum(math.comb(total, i) for i in range(least + 1)) / (1 << total))


@lru_cache(maxsize=65536)
def paired_difference_interval(pairs: DiscordantPairs, confidence: float = 0.95) -> Interval:
    """The score interval of a difference of two rates on the same prompts, within [-1, 1].

    Tango 1998 (Statistics in Medicine 17:891-908): all differences that the score test does not reject. At
    zero that test is McNemar's without continuity correction. Averages over seeds are treated as if each
    prompt differed wholly or not at all, which is the largest variance their sums can have.

    Raises:
        SweeperError: a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise SweeperError(f"a confidence lies strictly between 0 and 1, but got {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    low, high = (
        kept_end(pairs.difference, outermost, lambda d: abs(_score(pairs, d)) <= z)
        for outermost in (-1.0, 1.0)
    )
    return Interval(low, high)


def constrained_share(pairs: DiscordantPairs, difference: float) -> float:
    """The likeliest share of `second` prompts where the shares of both kinds differ by `difference`.

    The root of Tango's quadratic, in [max(0, -difference), (1 - difference) / 2].
    """
    b, c, n = pairs
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    root = math.sqrt(max(0.0, linear * linear - 8 * n * constant))
    # The form of the root that avoids cancellation.
    share = (root - linear) / (4 * n) if linear <= 0 else -2 * constant / (root + linear)
    return min(max(share, 0.0, -difference), (1 - difference) / 2)


def _score(pairs: DiscordantPairs, difference: float) -> float:
    gap = pairs.first - pairs.second - pairs.n * difference
    share = constrained_share(pairs, difference)
    variance = pairs.n * (2 * share + difference * (1 - difference))
    if variance > 0:
        return gap / math.sqrt(variance)
    return 0.0 if gap == 0 else math.copysign(math.inf, gap)


def kept_end(inside: float, outermost: float, keeps: Callable[[float], bool]) -> float:
    """The last value towards `outermost` that a test does not reject, by bisection from one it accepts.

    The values it keeps are an interval. The end is the last kept one found, within 1e-15 of the true end.
    """
    if keeps(outermost):
        return outermost
    outside = outermost
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if keeps(middle):
            inside = middle
        else:
            outside = middle
    return inside


def mean_interval(mean: float, rows: NDArray[np.float64], confidence: float) -> Interval:
    """Student's t interval of a mean, from at least two rows, shape (n,), that have it as their mean."""
    n = len(rows)
    half = t_quantile(0.5 + confidence / 2, n - 1) * float(rows.std(ddof=1)) / math.sqrt(n)
    return Interval(mean - half, mean + half)
