"""PED-ANOVA: how much each hyperparameter has to do with being among the best.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023 (arXiv:2304.10255). Grid, bandwidth and prior are those of Optuna's evaluator,
which tests hold this one against.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

QUANTILE = 0.1
"""The share of configurations that count as the best."""

_CELLS = 50
_NARROWEST = 0.5 / 1.64
_NOTHING = 1e-12


class Column(NamedTuple):
    """One hyperparameter of all configurations: `values` of shape (n,).

    With `levels` the values are codes 0 to levels - 1 of unordered choices. Otherwise they are numbers,
    on a log scale where `log` says so, and whole ones where `whole` does.
    """

    values: Floats
    levels: int | None = None
    log: bool = False
    whole: bool = False


def best(losses: Floats, quantile: float = QUANTILE) -> NDArray[np.bool_]:
    """Which of the losses, shape (n,), are among the lowest `quantile`; equal ones all are."""
    place = math.ceil(quantile * losses.size) - 1
    chosen: NDArray[np.bool_] = losses <= np.partition(losses, place)[place]
    return chosen


def divergence(column: Column, chosen: NDArray[np.bool_]) -> float:
    """Pearson divergence of the density of the chosen from that of all, at least 0.

    Densities are Parzen estimates on a grid (or over the choices) with a prior of weight 1.
    """
    cells, size = _cells(column)
    smooth = _choices_density if column.levels is not None else _number_density
    among_best = smooth(np.bincount(cells[chosen], minlength=size)) + _NOTHING
    among_all = smooth(np.bincount(cells, minlength=size)) + _NOTHING
    return float(among_all @ (among_best / among_all - 1) ** 2)


def importances(columns: list[Column], chosen: NDArray[np.bool_]) -> Floats | None:
    """The share of each column in the sum of divergences; None where all are zero.

    A column with one value has no share. The chosen must be some, and not all.
    """
    each = np.array(
        [0.0 if np.ptp(column.values) == 0 else divergence(column, chosen) for column in columns]
    )
    total = each.sum()
    return None if total <= _NOTHING else each / total


def _cells(column: Column) -> tuple[Ints, int]:
    """Where each value lies on the grid, and how many cells that has."""
    if column.levels is not None:
        return column.values.astype(np.int64), column.levels
    low, high = float(column.values.min()), float(column.values.max())
    size = _CELLS
    if column.whole:
        span = high - low + 1
        size = min(size, math.ceil(math.log2(span)) + 1 if column.log else round(span))
    values = np.log(column.values) if column.log else column.values
    low, high = (math.log(low), math.log(high)) if column.log else (low, high)
    places = np.ceil((values - low) / ((high - low) / (size - 1)) - 0.5).astype(np.int64)
    return np.clip(places, 0, size - 1), size


def _choices_density(counts: Ints) -> Floats:
    """Each choice that was seen is a kernel that leaves a little weight on the others."""
    seen = np.flatnonzero(counts)
    kernels = np.full((seen.size + 1, counts.size), 1 / (seen.size + 1))
    kernels[np.arange(seen.size), seen] += 1
    kernels /= kernels.sum(axis=1, keepdims=True)
    weights = np.append(counts[seen], 1)
    density: Floats = weights @ kernels / weights.sum()
    return density


def _number_density(counts: Ints) -> Floats:
    """Normal kernels cut to the grid, as wide as Scott's rule says, and a wide one as prior."""
    seen = np.flatnonzero(counts)
    weights = counts[seen]
    total, running = int(weights.sum()), np.cumsum(weights)
    mean = (seen @ weights) / total
    spread = math.sqrt(((seen - mean) ** 2 @ weights) / max(1, total - 1))
    lower = np.searchsorted(running, total // 4, side="left")
    upper = np.searchsorted(running, total * 3 // 4, side="right")
    middle = float(seen[min(seen.size - 1, int(upper))] - seen[lower])
    width = max(1.059 * min(middle / 1.34, spread) * total**-0.2, _NARROWEST)
    centres = np.append(seen, (counts.size - 1) / 2)
    widths = np.append(np.full(seen.size, width), counts.size)
    edges = np.arange(counts.size + 1) - 0.5
    below = _normal((edges - centres[:, None]) / widths[:, None])
    kernels = np.diff(below, axis=1) / (below[:, -1:] - below[:, :1])
    shares = np.append(weights, 1)
    density: Floats = shares @ kernels / shares.sum()
    return density


def _normal(at: Floats) -> Floats:
    """The standard normal distribution function."""
    values = [0.5 * math.erfc(-x / math.sqrt(2)) for x in at.ravel()]
    return np.array(values).reshape(at.shape)
