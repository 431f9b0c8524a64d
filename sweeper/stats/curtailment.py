"""When a verdict on a rate is decided before all prompts are in: curtailed sampling."""

from functools import lru_cache

from sweeper.errors import SweeperError
from sweeper.stats.rates import largest_passing_count

_largest = lru_cache(maxsize=1024)(largest_passing_count)


def decided(k: int, n: int, total: int, limit: float, confidence: float) -> bool | None:
    """Whether P(rate <= limit) >= confidence holds of all prompts, as soon as that is certain.

    The verdict falls with the final count, so it is known once the count has passed the largest one that
    is allowed, or cannot pass it any more. Exact: None if and only if the prompts that are left can still
    make it either.

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
