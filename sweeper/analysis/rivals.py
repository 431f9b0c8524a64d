"""Which single other configuration most probably dominates each one, by Monte Carlo."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.front import non_dominated

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

RIVALS = 16
"""How many others are counted for each configuration; see `likeliest`."""

POOL = 512
"""Of more configurations than this, only the best layers are considered as rivals, for speed."""

_PILOT = 500
"""Draws that select: standard errors of a score are at most 0.05."""

_CELLS = 1_000_000
_CACHED = 65_536
"""Draws of rivals compared at a time: they fit into a processor's cache."""
_NORMAL = NormalDist()


def likeliest(points: Floats, feasible: NDArray[np.bool_], count: int = RIVALS) -> Places:
    """The others that most probably dominate each configuration, by a normal approximation.

    The score of j against i is the smallest, over objectives, of the mean difference in standard deviations
    of paired draws, and of the normal quantile of P(j is feasible). It only selects whom to count: leaving
    one out can raise an upper bound of P(on front), never lower it.

    Args:
        points: Draws, shape (draws, m, objectives), finite, all objectives minimised.
        feasible: Shape (draws, m).
        count: How many.

    Returns:
        Indices, shape (m, at most min(count, m - 1)), in no order.
    """
    points, feasible = points[:_PILOT], feasible[:_PILOT]
    draws, m, _ = points.shape
    shares = (feasible.sum(axis=0) + 0.5) / (draws + 1)
    columns = np.array(np.moveaxis(points, 2, 0), order="C")  # A copy: it is centred below.
    means = columns.mean(axis=1)
    columns -= means[:, None]
    variances = np.square(columns).sum(axis=1)
    pool = np.arange(m) if m <= POOL else _best(means.T, np.flatnonzero(shares > 0.5))
    ceiling = np.array([_NORMAL.inv_cdf(float(share)) for share in shares[pool]])
    kept = max(0, min(count, len(pool) - 1))
    found = np.empty((m, kept), dtype=np.int64)
    for start in range(0, m if kept else 0, block := max(1, _CELLS // max(1, len(pool)))):
        rows = np.arange(start, min(m, start + block))
        score = np.tile(ceiling, (len(rows), 1))
        for apart, mean, variance in zip(columns, means, variances, strict=True):
            gap = mean[rows, None] - mean[pool]
            spread = variance[rows, None] + variance[pool] - 2 * apart[:, rows].T @ apart[:, pool]
            spread = np.sqrt(np.maximum(spread / draws, 1e-30))
            np.minimum(score, np.where(gap == 0, np.inf, gap / spread), out=score)
        score[rows[:, None] == pool] = -np.inf
        found[rows] = pool[np.argpartition(-score, kept - 1, axis=1)[:, :kept]]
    return found


def _best(means: Floats, left: Places) -> Places:
    """Layer after layer of what is not dominated among `left`, by means, until they are POOL."""
    found: list[Places] = []
    while len(left) and sum(map(len, found)) < POOL:
        kept = non_dominated(means[left])
        found.append(left[kept])
        left = left[~kept]
    return np.sort(np.concatenate(found)) if found else left


def dominated_by_one(
    points: Floats, feasible: NDArray[np.bool_], rivals: Places
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
    columns = np.ascontiguousarray(np.moveaxis(points, 0, 2))  # Draws last: a rival is one block.
    possible = np.ascontiguousarray(feasible.T)
    found = np.zeros(rivals.shape, dtype=np.int64)
    block = max(1, _CACHED // max(1, len(points) * rivals.shape[1]))
    ever = np.flatnonzero(possible.any(axis=1))
    for start in range(0, len(ever), block):
        rows = ever[start : start + block]
        others = rivals[rows]
        wins = possible[rows, None] & possible[others]
        for column in range(columns.shape[1]):
            wins &= columns[others, column] <= columns[rows, None, column]
        found[rows] = wins.sum(axis=2)
    return found
