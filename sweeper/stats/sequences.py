"""Confidence sequences: intervals that hold at every number of prompts at once, however one stops.

Ville 1939: a nonnegative martingale of mean 1 ever reaches 1 / alpha with probability alpha at most. The
likelihood mixed over a prior, divided by the likelihood at the truth, is one (Robbins 1970,
doi:10.1214/aoms/1177696786); the values it does not refute are a confidence set at all times together.
"""

import math

from sweeper.errors import SweeperError
from sweeper.stats.paired import DiscordantPairs, constrained_share, kept_end
from sweeper.stats.rates import Interval


def refutes_rate(k: int, n: int, rate: float, alpha: float = 0.05) -> bool:
    """Whether k of n prompts refute a rate; a true one is ever refuted with probability alpha at most.

    The mixture is over Beta(1/2, 1/2), whose marginal likelihood loses (log n) / 2 + O(1) against the best
    rate (Krichevsky and Trofimov 1981, doi:10.1109/TIT.1981.1056331). Prompts are in random order.

    Args:
        k: How many were counted, 0 <= k <= n.
        n: Prompts so far.
        rate: In [0, 1].
        alpha: In (0, 1).

    Raises:
        SweeperError: impossible counts, or an alpha outside (0, 1).
    """
    if not 0 <= k <= n:
        raise SweeperError(f"`0 <= k <= n` must hold, but got k={k}, n={n}")
    return _refutes((k, n - k), (rate, 1 - rate), alpha)


def rate_sequence(k: int, n: int, alpha: float = 0.05) -> Interval:
    """All rates that k of n prompts do not refute; n = 0 gives [0, 1]. See `refutes_rate`."""
    inside = k / n if n else 0.5
    low, high = (
        kept_end(inside, outermost, lambda rate: not refutes_rate(k, n, rate, alpha))
        for outermost in (0.0, 1.0)
    )
    return Interval(low, high)


def refutes_difference(pairs: DiscordantPairs, difference: float, alpha: float = 0.05) -> bool:
    """Whether pairs refute a difference of two rates; a true one ever with probability alpha at most.

    A prompt is counted for the first alone, for the second alone, or alike: three cells, mixed over
    Dirichlet(1/2, 1/2, 1/2). A difference is refuted when every pair of rates with it is, so it is enough
    to look at the likeliest one.

    Args:
        pairs: The prompts so far.
        difference: The first rate minus the second, in [-1, 1].
        alpha: In (0, 1).

    Raises:
        SweeperError: impossible counts, or an alpha outside (0, 1).
    """
    counts = (pairs.first, pairs.second, pairs.n - pairs.first - pairs.second)
    if min(counts) < 0:
        raise SweeperError(f"the cells of pairs must not be negative, but got {counts}")
    if pairs.n == 0:
        return False
    second = constrained_share(pairs, difference)
    first = second + difference
    return _refutes(counts, (first, second, 1 - first - second), alpha)


def difference_sequence(pairs: DiscordantPairs, alpha: float = 0.05) -> Interval:
    """All differences that pairs do not refute; n = 0 gives [-1, 1]. See `refutes_difference`."""
    inside = pairs.difference if pairs.n else 0.0
    low, high = (
        kept_end(inside, outermost, lambda d: not refutes_difference(pairs, d, alpha))
        for outermost in (-1.0, 1.0)
    )
    return Interval(low, high)


def _refutes(counts: tuple[int, ...], shares: tuple[float, ...], alpha: float) -> bool:
    if not 0 < alpha < 1:
        raise SweeperError(f"alpha lies strictly between 0 and 1, but got {alpha}")
    return _log_mixture(counts) - _log_likelihood(counts, shares) >= -math.log(alpha)


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
