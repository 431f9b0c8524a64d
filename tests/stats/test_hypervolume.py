"""Hypervolume against inclusion and exclusion, Optuna's, and known values."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeper.errors import SweeperError
from sweeper.stats import hypervolume, hypervolumes


def by_inclusion(points: NDArray[np.float64], corner: NDArray[np.float64]) -> float:
    """The union of boxes by inclusion and exclusion: the intersection of boxes is a box."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for some in itertools.combinations(points, size):
            sides = np.maximum(0.0, corner - np.max(some, axis=0))
            total += (-1) ** (size + 1) * float(np.prod(sides))
    return total


@pytest.mark.parametrize("columns", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_volumes_are_those_of_the_union_of_boxes(columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.random((8, columns)), rng.integers(0, 3, (3, columns)) / 2])
    corner = np.full(columns, 0.9)
    assert hypervolume(points, corner) == pytest.approx(by_inclusion(points, corner), abs=1e-12)


@pytest.mark.parametrize("columns", [2, 3])
def test_volumes_are_optunas(columns: int) -> None:
    optuna = pytest.importorskip("optuna._hypervolume")
    rng = np.random.default_rng(columns)
    points = rng.normal(size=(150, columns))
    points = np.concatenate([points, points[:20]])
    corner = np.full(columns, 1.5)
    inside = points[(points < corner).all(axis=1)]
    expected = optuna.compute_hypervolume(inside, corner)
    assert hypervolume(points, corner) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("columns", [2, 3])
def test_many_sets_have_the_volumes_that_each_has_alone(columns: int) -> None:
    rng = np.random.default_rng(7)
    sets = rng.normal(size=(40, 12, columns))
    sets[0] = 2.0  # None of these is below the reference.
    corner = np.full(columns, 1.0)
    found = hypervolumes(sets, corner)
    assert found[0] == 0.0 and (found[1:] > 0).all()
    assert found.tolist() == [hypervolume(one, corner) for one in sets]


def test_known_volumes() -> None:
    assert hypervolume([(0, 0)], (1, 1)) == 1.0
    assert hypervolume([(0, 0.5), (0.5, 0)], (1, 1)) == 0.75
    assert hypervolume([(0, 0.5), (0.5, 0), (0.6, 0.6)], (1, 1)) == 0.75
    assert hypervolume([(0, 0, 0), (-1, 0.5, 0.5)], (1, 1, 1)) == 1.25
    assert hypervolume([(1, 0), (0, 1), (2, -5), (np.nan, 0)], (1, 1)) == 0.0
    assert hypervolume([], (1, 1)) == 0.0
    assert hypervolume([(-np.inf, 0)], (1, 1)) == np.inf


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SweeperError, match="2 or 3 finite values"):
        hypervolume([(0, 0)], (1, np.inf))
    with pytest.raises(SweeperError, match="2 or 3 finite values"):
        hypervolume([(0,) * 4], (1,) * 4)
    with pytest.raises(SweeperError, match=r"shape \(n, 2\), but got \(1, 3\)"):
        hypervolume([(0, 0, 0)], (1, 1))
