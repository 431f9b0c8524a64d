"""Sequential decisions on a rate: curtailed sampling, and a confidence sequence."""

import math
from functools import lru_cache

from sweeper.errors import SweeperError
from sweeper.stats.rates import largest_passing_count

_largest = lru_cache(maxsize=1024)(largest_passing_count)


def decided(k: int, n: int, total: int, limit: float, confidence: float) -> bool | None:
    """Whether P(rate <= limit) >= confidence will hold for all prompts, as soon as that is certain.

    It depends on the final count, so it is known once the count exceeds the largest one allowed, or cannot
    exceed it any more. Exact: None if and only if the remaining prompts can still decide it either way.

    Args:
        k: Counted so far, 0 <= k <= n.
        n: Prompts so far.
        total: All prompts, at least 1 and n.
        limit: In [0, 1].
        confidence: In (0, 1).

    Raises:
        SweeperError: impossible counts, a limit or a confidence outside its range.
    """
    if not 0 <= k <= n <= total or total < 1:
        raise SweeperError(
            f"`0 <= k <= n <= total` and `total >= 1` must hold, but got k={k}, n={n}, total={total}"
        )
    largest = _largest(total, limit, confidence)
    if largest is None or k > largest:
        return False
    return True if k + total - n <= largest else None


def refutes_rate(k: int, n: int, rate: float, alpha: float = 0.05) -> bool:
    """Whether k of n prompts reject a rate; a true rate is ever rejected with probability at most alpha.

    Ville 1939: a nonnegative martingale of mean 1 ever reaches 1 / alpha with probability alpha at most.
    The likelihood mixed over a prior, divided by the likelihood at the truth, is one (Robbins 1970,
    doi:10.1214/aoms/1177696786). The mixture is over Beta(1/2, 1/2), whose marginal likelihood loses
    (log n) / 2 + O(1) against the best rate (Krichevsky and Trofimov 1981, doi:10.1109/TIT.1981.1056331).
    Prompts are in random order.

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
    if not 0 < alpha < 1:
        raise SweeperError(f"alpha lies strictly between 0 and 1, but got {alpha}")
    terms = [
        count * math.log(share) if share > 0 else -math.inf
        for count, share in ((k, rate), (n - k, 1 - rate))
        if count
    ]
    return log_mixture(k, n) - sum(terms) >= -math.log(alpha)


def log_mixture(k: int, n: int) -> float:
    """Log likelihood of one sequence of n prompts, k of them counted, mixed over Beta(1/2, 1/2)."""
    halves = math.lgamma(k + 0.5) + math.lgamma(n - k + 0.5)
    return halves - math.log(math.pi) - math.lgamma(n + 1)
