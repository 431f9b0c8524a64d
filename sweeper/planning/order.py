"""The order of paths under a budget: whichever prefix of it is trained covers the space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_SPREAD = 10_000
"""So many paths are spread out; those after them come cheapest first."""


def coverage_order(points: Sequence[Mapping[str, Any]], costs: Sequence[float]) -> list[int]:
    """The cheapest point, then always the one whose settings differ most from all before it.

    Farthest-first traversal (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5). Settings differ by the sum
    over their axes: of numbers the difference of their ranks in [0, 1], else 0 or 1. Among equally
    different points the cheapest is next, then the one that was given first.

    Args:
        points: The settings of each path by axis; an axis that is missing has a value of its own.
        costs: Of each path, in any unit.

    Returns:
        The indices of all points.
    """
    if not points:
        return []
    at, cost = _coordinates(points), np.asarray(costs, dtype=np.float64)
    cheapest = np.argsort(cost, kind="stable")
    chosen, distance = [int(cheapest[0])], np.full(len(points), np.inf)
    while len(chosen) < min(len(points), MOST_SPREAD):
        last = chosen[-1]
        np.minimum(distance, np.abs(at - at[last]).sum(axis=1), out=distance)
        distance[last] = -1.0
        farthest = np.flatnonzero(distance >= distance.max() - 1e-9)
        chosen.append(int(farthest[np.argmin(cost[farthest])]))
        # Equal points have distance 0 and come at the end; a chosen one is never farthest again.
        distance[chosen[-1]] = -1.0
    taken = set(chosen)
    return chosen + [int(item) for item in cheapest if int(item) not in taken]


def _coordinates(points: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Shape (points, coordinates): one for an axis of numbers, one for each value of another axis."""
    columns = [np.zeros(len(points))]
    for name in sorted({name for point in points for name in point}):
        values = [point.get(name) for point in points]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        texts = values if numbers else [repr(value) for value in values]
        distinct, index = np.unique(np.array(texts), return_inverse=True)
        if len(distinct) < 2:
            continue
        if numbers:
            columns.append(index / (len(distinct) - 1))
        else:
            columns += [0.5 * (index == number) for number in range(len(distinct))]
    return np.column_stack(columns)
