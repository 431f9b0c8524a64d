"""Paired comparison of two configurations on the same prompts or rows."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import SweeperError
from sweeper.stats.distributions import t_quantile, t_tail
from sweeper.stats.posterior import interaction_variance
from sweeper.stats.rates import Interval

_BISECTIONS = 50


class DiscordantPairs(NamedTuple):
    """The number of n prompts counted only for the first, and only for the second.

    For verdicts averaged over seeds, see `discordant_means`.
    """

    first: float
    second: float
    n: float

    @property
    def difference(self) -> float:
        """The first rate minus the second."""
        return (self.first - self.second) / self.n

    @property
    def variance(self) -> float:
        """Of the difference, where the two rates are equal."""
        return (self.first + self.second) / self.n**2


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


def discordant_means(apart: NDArray[np.float64]) -> DiscordantPairs:
    """Differences of verdicts averaged over seeds, shape (n,), as pairs of the same mean and variance.

    With c = sum d^2 / sum |d|, their mean size, there are sum |d| / c pairs among n / c prompts. Where all
    differences are -1, 0 or 1, or all 0, these are the prompts themselves.
    """
    sizes = float(np.abs(apart).sum())
    scale = float(np.square(apart).sum()) / sizes if sizes else 1.0
    first, second = float(apart[apart > 0].sum()), -float(apart[apart < 0].sum())
    return DiscordantPairs(first / scale, second / scale, len(apart) / scale)


class RunPart(NamedTuple):
    """What training runs add to the variance of a mean over S seeds and n prompts.

    `variance` is that of the mean due to seeds, with `df` degrees of freedom, and `single` the part of it
    due to single prompts, which the variance over prompts includes already.
    """

    variance: float
    single: float
    df: float

    @property
    def added(self) -> float:
        """What comes on top of the variance over prompts."""
        return max(0.0, self.variance - self.single)


THESE_WEIGHTS = RunPart(0.0, 0.0, math.inf)
"""Runs do not vary."""


def run_part(answers: NDArray[np.float64]) -> RunPart:
    """Of the mean of answers or of differences within runs, shape (seeds, n), at least two of each."""
    seeds = len(answers)
    apart = answers.mean(axis=1) - answers[0].mean()
    single = float(interaction_variance(answers[None])[0])
    return RunPart(float(apart.var(ddof=1)) / seeds, single / seeds, seeds - 1)


def joint(first: RunPart, second: RunPart) -> RunPart:
    """Of the difference of two means of independent runs (Welch 1947, doi:10.2307/2332510)."""
    variance = first.variance + second.variance
    below = first.variance**2 / first.df + second.variance**2 / second.df
    df = variance**2 / below if below else first.df + second.df
    return RunPart(variance, first.single + second.single, df)


def two_way_df(prompts: float, df: float, runs: RunPart) -> float:
    """Satterthwaite's degrees of freedom (doi:10.2307/3002019) of a variance over prompts plus runs.

    The two-way variance of a mean is V_prompts + V_seeds - V_interaction (Owen 2007,
    doi:10.1214/07-AOAS122; Cameron, Gelbach, Miller 2011, doi:10.1198/jbes.2010.07136).

    Args:
        prompts: The variance of the mean over prompts.
        df: Its degrees of freedom.
        runs: What runs add.
    """
    below = prompts**2 / df + runs.variance**2 / runs.df
    return (prompts + runs.added) ** 2 / below if below else df


def two_way_p(difference: float, prompts: float, df: float, runs: RunPart) -> float:
    """Two-sided p of no difference over prompts and runs; arguments as in `two_way_df`."""
    variance = prompts + runs.added
    if not variance:
        return 1.0 if difference == 0 else 0.0
    return 2 * t_tail(abs(difference) / math.sqrt(variance), two_way_df(prompts, df, runs))


def mcnemar(pairs: DiscordantPairs) -> float:
    """Exact two-sided p of equal rates, from whole numbers of discordant prompts (McNemar 1947).

    2 P(X <= min(first, second)), at most 1, with X ~ Binomial(first + second, 1/2), in whole numbers.
    """
    total, least = int(pairs.first + pairs.second), int(min(pairs.first, pairs.second))
    return min(1.0, 2 * sum(math.comb(total, i) for i in range(least + 1)) / (1 << total))


@lru_cache(maxsize=65536)
def paired_difference_interval(
    pairs: DiscordantPairs, confidence: float = 0.95, runs: RunPart = THESE_WEIGHTS
) -> Interval:
    """The score interval of a difference of two rates on the same prompts, within [-1, 1].

    Tango 1998 (Statistics in Medicine 17:891-908): all differences that the score test does not reject. At
    zero that test is McNemar's without continuity correction. With `runs` their variance is added to the
    test's, and Student's t takes the place of the normal: at zero the test is then `two_way_p`.

    Raises:
        SweeperError: a confidence outside (0, 1), or no prompts.
    """
    if not 0 < confidence < 1:
        raise SweeperError(f"a confidence lies strictly between 0 and 1, but got {confidence}")
    if pairs.n <= 0:
        raise SweeperError(f"a difference needs at least one prompt, but got n={pairs.n}")
    df = two_way_df(pairs.variance, math.inf, runs)
    z = t_quantile(0.5 + confidence / 2, df)
    low, high = (
        kept_end(pairs.difference, outermost, lambda d: abs(_score(pairs, d, runs.added)) <= z)
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


def _score(pairs: DiscordantPairs, difference: float, added: float) -> float:
    gap = pairs.first - pairs.second - pairs.n * difference
    share = constrained_share(pairs, difference)
    variance = pairs.n * (2 * share + difference * (1 - difference)) + pairs.n**2 * added
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


def mean_interval(
    mean: float, rows: NDArray[np.float64], confidence: float, runs: RunPart = THESE_WEIGHTS
) -> Interval:
    """Student's t interval of a mean, from at least two rows, shape (n,), that have it as their mean."""
    n = len(rows)
    prompts = float(rows.var(ddof=1)) / n
    df = two_way_df(prompts, n - 1, runs)
    half = t_quantile(0.5 + confidence / 2, df) * math.sqrt(prompts + runs.added)
    return Interval(mean - half, mean + half)
