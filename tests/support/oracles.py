"""Statistics as others compute them, for what the program computes itself."""

import math
from collections.abc import Sequence

from scipy import optimize, stats

from sweeper.stats import Interval


def mean_difference_interval(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95
) -> Interval:
    """Student's t interval of the mean of `first - second`, row by row."""
    found = stats.ttest_rel(first, second).confidence_interval(confidence)
    return Interval(float(found.low), float(found.high))


def rate_sequence(k: int, n: int, alpha: float = 0.05) -> Interval:
    """The rates that k of n prompts do not refute, from Krichevsky and Trofimov's closed form."""
    mixture = (
        math.lgamma(k + 0.5) + math.lgamma(n - k + 0.5) - math.log(math.pi) - math.lgamma(n + 1)
    )

    def excess(rate: float) -> float:
        likelihood = (k and k * math.log(rate)) + (n - k and (n - k) * math.log1p(-rate))
        return mixture - likelihood + math.log(alpha)

    best = min(max(k / n, 1e-300), 1 - 1e-16) if n else 0.5
    low = 0.0 if k == 0 else float(optimize.brentq(excess, 1e-300, best, xtol=1e-16))
    high = 1.0 if k == n else float(optimize.brentq(excess, best, 1 - 1e-16, xtol=1e-16))
    return Interval(low, high)
