"""Confidence sequences: intervals that hold at every number of prompts at once, however one stops.

Ville 1939: a nonnegative martingale of mean 1 ever reaches 1 / alpha with probability alpha at most. The
likelihood mixed over a prior, divided by the likelihood at the truth, is one (Robbins 1970,
doi:10.1214/aoms/1177696786); the values it does not refute are a confidence set at all times together.
"""

import math

from sweeper.errors import SweeperError
from sweeper.stats.paired import Discordance, constrained_share, kept_differences
from sweeper.stats.rates import Interval

_BISECTIONS = 50


def rate_sequence(k: int, n: int, alpha: float = 0.05) -> Interval:
    """All rates that k of n prompts do not refute; all of them hold with probability 1 - alpha, at any n.

    The mixture is over Beta(1/2, 1/2), whose marginal likelihood loses (log n) / 2 + O(1) against the best
    rate (Krichevsky and Trofimov 1981, doi:10.1109/TIT.1981.1056331). Independent prompts in random order.

    Args:
        k: How many were counted, 0 <= k <= n.
        n: Prompts so far; 0 gives [0, 1].
        alpha: The chance that the truth is ever outside, in (0, 1).

    Raises:
        SweeperError: impossible counts, or an alpha outside (0, 1).
    """
    _check(n, alpha)
    if not 0 <= k <= n:
        raise SweeperError(f"`0 <= k <= n` must hold, but got k={k}, n={n}")
    counts = (k, n - k)
    mixed = _log_mixture(counts) + math.log(alpha)
    ends = []
    for outermost in (0.0, 1.0):
        inside, outside = (k / n if n else 0.5), outermost
        for _ in range(_BISECTIONS):
            middle = (inside + outside) / 2
            if _log_likelihood(counts, (middle, 1 - middle)) > mixed:
                inside = middle
            else:
                outside = middle
        kept = _log_likelihood(counts, (outermost, 1 - outermost)) > mixed
        ends.append(outermost if kept else outside)
    return Interval(*ends)


def difference_sequence(pairs: Discordance, alpha: float = 0.05) -> Interval:
    """All differences of two rates on the same prompts that nothing refutes, at any number of prompts.

    A prompt is counted for the first alone, for the second alone, or alike: three cells, mixed over
    Dirichlet(1/2, 1/2, 1/2). A difference is refuted when every pair of rates with it is, so it is enough
    to look at the likeliest one.

    Args:
        pairs: The prompts so far; n = 0 gives [-1, 1].
        alpha: The chance that the true difference is ever outside, in (0, 1).

    Raises:
        SweeperError: impossible counts, or an alpha outside (0, 1).
    """
    _check(pairs.n, alpha)
    counts = (pairs.first, pairs.second, pairs.n - pairs.first - pairs.second)
    if min(counts) < 0:
        raise SweeperError(f"the cells of pairs must not be negative, but got {counts}")
    if pairs.n == 0:
        return Interval(-1.0, 1.0)
    mixed = _log_mixture(counts) + math.log(alpha)

    def keeps(difference: float) -> bool:
        second = constrained_share(pairs, difference)
        first = second + difference
        return _log_likelihood(counts, (first, second, 1 - first - second)) > mixed

    return kept_differences(pairs, keeps)


def _log_mixture(counts: tuple[int, ...]) -> float:
    """Log of the likelihood of a sequence with these counts, mixed over Dirichlet(1/2, ..., 1/2)."""
    n, cells = sum(counts), len(counts)
    return (
        math.lgamma(cells / 2)
        - math.lgamma(n + cells / 2)
        + math.fsum(math.lgamma(count + 0.5) - math.lgamma(0.5) for count in counts)
    )


def _log_likelihood(counts: tuple[int, ...], shares: tuple[float, ...]) -> float:
    terms = [
        count * math.log(share) if share > 0 else -math.inf
        for count, share in zip(counts, shares, strict=True)
        if count
    ]
    return sum(terms)


def _check(n: int, alpha: float) -> None:
    if n < 0:
        raise SweeperError(f"`n >= 0` must hold, but got {n}")
    if not 0 < alpha < 1:
        raise SweeperError(f"alpha lies strictly between 0 and 1, but got {alpha}")
