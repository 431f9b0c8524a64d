"""Which points no other one dominates."""

import numpy as np
from numpy.typing import NDArray

_PAIRWISE_BLOCK = 512


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row dominates, everything minimised.

    A row dominates another when it is nowhere larger and somewhere smaller. Equal rows do not
    dominate each other, so every copy of a non-dominated row is kept. +inf is the worst value, -inf
    the best.

    Args:
        points: Shape (n, m), m >= 1.

    Returns:
        Mask of shape (n,). Two columns cost one sort; more cost n times the size of the front.

    Raises:
        ValueError: a NaN, which has no place in any order, or not a matrix with a column.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 1:
        raise ValueError(f"points must have shape (n, m) with m >= 1, but got {points.shape}")
    if np.isnan(points).any():
        raise ValueError("points must not hold NaN; leave unmeasured candidates out")
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    # Sorted by the first column, then the others, no row can be dominated by a later one.
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    kept = _sweep(unique[:, 1]) if points.shape[1] == 2 else _filter(unique)
    mask: NDArray[np.bool_] = kept[inverse.reshape(-1)]
    return mask


def _sweep(second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Two columns, rows unique and sorted: a row stays when its second value is a new minimum."""
    before = np.minimum.accumulate(second)[:-1]
    return np.concatenate([[True], second[1:] < before])


def _filter(unique: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Any number of columns, rows unique and sorted: compare with the front so far, by blocks."""
    kept = np.zeros(len(unique), dtype=np.bool_)
    front = np.empty((0, unique.shape[1]))
    for start in range(0, len(unique), _PAIRWISE_BLOCK):
        block = unique[start : start + _PAIRWISE_BLOCK]
        indices = np.flatnonzero(~_covered(block, front))
        block = block[indices]
        # Rows are unique, so "nowhere larger" by another row is domination.
        covers = np.array((block[:, None, :] <= block[None, :, :]).all(axis=2))
        np.fill_diagonal(covers, False)
        inside = ~covers.any(axis=0)
        kept[start + indices[inside]] = True
        front = np.concatenate([front, block[inside]])
    return kept


def _covered(block: NDArray[np.float64], front: NDArray[np.float64]) -> NDArray[np.bool_]:
    covered = np.zeros(len(block), dtype=np.bool_)
    for start in range(0, len(front), _PAIRWISE_BLOCK):
        part = front[start : start + _PAIRWISE_BLOCK]
        covered |= (part[:, None, :] <= block[None, :, :]).all(axis=2).any(axis=0)
    return covered
