"""Hypervolume: the volume of objective space that a set of points dominates, up to a reference point."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeper.errors import SweeperError


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume dominated by at least one point and bounded by the reference point, exactly.

    Zitzler and Thiele 1998 (doi:10.1007/BFb0056872). In two dimensions one sweep; in three, slices along
    the last axis, each swept (n^2 log n together).

    Args:
        points: Shape (n, 2) or (n, 3), everything minimised; a point that is not below the reference in
            every column adds nothing. NaN is not below anything. -inf gives an infinite volume.
        reference: Shape (2,) or (3,), finite.

    Raises:
        SweeperError: other shapes, or a reference that is not finite.
    """
    corner = np.asarray(reference, dtype=np.float64)
    found = np.asarray(points, dtype=np.float64).reshape(-1, *np.shape(points)[1:])
    if corner.shape not in ((2,), (3,)) or not np.isfinite(corner).all():
        raise SweeperError(f"a reference point has 2 or 3 finite values, but got {reference!r}")
    if found.size == 0:
        return 0.0
    if found.ndim != 2 or found.shape[1] != len(corner):
        raise SweeperError(f"points must have shape (n, {len(corner)}), but got {found.shape}")
    inside = found[(found < corner).all(axis=1)]
    if len(corner) == 2:
        return _area(inside, corner)
    return _volume(inside, corner)


def _area(points: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Two columns: strips between one point and the next, sorted by the first column."""
    if len(points) == 0:
        return 0.0
    x, y = points[np.lexsort((points[:, 1], points[:, 0]))].T
    before = np.minimum.accumulate(np.concatenate([[corner[1]], y[:-1]]))
    return float(np.sum((corner[0] - x) * np.maximum(0.0, before - y)))


def _volume(points: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """Three columns: between two values of the last one the cross-section stays the same."""
    ordered = points[np.argsort(points[:, 2])]
    heights = np.diff(np.append(ordered[:, 2], corner[2]))
    slices = [
        height * _area(ordered[: index + 1, :2], corner[:2])
        for index, height in enumerate(heights)
        if height > 0
    ]
    return float(sum(slices))
