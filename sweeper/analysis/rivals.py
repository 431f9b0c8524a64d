"""Which single other configuration most probably dominates each one, by Monte Carlo."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RIVALS = 16
"""How many others are counted for each configuration; see `likeliest`."""

_CELLS = 1_000_000
_NORMAL = NormalDist()


def likeliest(
    points: Floats, feasible: NDArray[np.bool_], count: int = RIVALS
) -> NDArray[np.int64]:
    """The others that most probably dominate each configuration, by a normal approximation.

    The score of j against i is the smallest, over objectives, of the mean difference in standard deviations
    of paired draws, and of the normal quantile of P(j is feasible). It only selects whom to count: leaving
    one out can raise an upper bound of P(on front), never lower it.

    Args:
        points: Draws, shape (draws, m, objectives), finite, all objectives minimised.
        feasible: Shape (draws, m).
        count: How many.

    Returns:
        Indices, shape (m, min(count, m - 1)), in no order.
    """
    draws, m, _ = points.shape
    kept = min(count, m - 1)
    shares = (feasible.sum(axis=0) + 0.5) / (draws + 1)
    ceiling = np.array([_NORMAL.inv_cdf(float(share)) for share in shares])
    means = points.mean(axis=0)
    apart = points - means
    variances = np.square(apart).sum(axis=0)
    found = np.empty((m, kept), dtype=np.int64)
    for start in range(0, m, block := max(1, _CELLS // m)):
        rows = slice(start, start + block)
        score = np.tile(ceiling, (len(means[rows]), 1))
        for column in range(points.shape[2]):
            of, gap = apart[:, :, column], means[rows, None, column] - means[None, :, column]
            spread = variances[rows, None, column] + variances[None, :, column]
            spread -= 2 * of[:, rows].T @ of
            spread = np.sqrt(np.maximum(spread / draws, 1e-30))
            np.minimum(score, np.where(gap == 0, np.inf, gap / spread), out=score)
        own = np.arange(len(score))
        score[own, own + start] = -np.inf
        found[rows] = np.argpartition(-score, kept - 1, axis=1)[:, :kept] if kept else 0
    return found


def dominated_by_one(
    points: Floats, feasible: NDArray[np.bool_], rivals: NDArray[np.int64]
) -> NDArray[np.int64]:
    """In how many draws each rival is feasible and dominates a configuration that is feasible, too.

    Draws of rates are never tied, so "nowhere larger" is domination.

    Args:
        points: Shape (draws, m, objectives), all minimised, one of them a rate.
        feasible: Shape (draws, m).
        rivals: Shape (m, count), of `likeliest`.

    Returns:
        Shape (m, count).
    """
    columns = np.ascontiguousarray(np.moveaxis(points, 2, 0))
    found = np.empty(rivals.shape, dtype=np.int64)
    for place, others in enumerate(rivals.T):
        wins = feasible & feasible[:, others]
        for column in columns:
            wins &= column[:, others] <= column
        found[:, place] = wins.sum(axis=0)
    return found
