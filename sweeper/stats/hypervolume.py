"""Hypervolume: the volume of objective space that a set of points dominates, up to a reference point."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sweeper.errors import SweeperError

Floats = NDArray[np.float64]


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
    return float(hypervolumes(found[None], corner)[0])


def hypervolumes(points: Floats, corner: Floats) -> Floats:
    """`hypervolume` of each of several sets of equally many points, at least one; shape (sets,).

    Args:
        points: Shape (sets, n, 2) or (sets, n, 3); as for `hypervolume`.
        corner: The reference point, shape (2,) or (3,).
    """
    # A point at the reference adds nothing, so it stands for those that are not below it.
    inside = np.where((points < corner).all(axis=2, keepdims=True), points, corner)
    return _areas(inside, corner) if len(corner) == 2 else _volumes(inside, corner)


def _areas(points: Floats, corner: Floats) -> Floats:
    """Two columns: strips between one point and the next, sorted by the first column."""
    order = np.lexsort((points[..., 1], points[..., 0]), axis=1)
    x, y = (np.take_along_axis(points[..., column], order, axis=1) for column in (0, 1))
    before = np.minimum.accumulate(y, axis=1)[:, :-1]
    before = np.concatenate([np.full((len(y), 1), corner[1]), before], axis=1)
    areas: Floats = ((corner[0] - x) * np.maximum(0.0, before - y)).sum(axis=1)
    return areas


def _volumes(points: Floats, corner: Floats) -> Floats:
    """Three columns: between two values of the last one the cross-section stays the same."""
    order = np.argsort(points[..., 2], axis=1)
    ordered = np.take_along_axis(points, order[..., None], axis=1)
    above = np.concatenate([ordered[:, 1:, 2], np.full((len(points), 1), corner[2])], axis=1)
    total = np.zeros(len(points))
    for index, height in enumerate((above - ordered[..., 2]).T):
        if (some := height > 0).any():
            areas = _areas(ordered[some, : index + 1, :2], corner[:2])
            total[some] += height[some] * areas
    return total
