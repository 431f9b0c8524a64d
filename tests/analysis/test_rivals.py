"""The one other configuration that most probably dominates: against brute force, and what it bounds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeper.analysis.membership import fronts
from sweeper.analysis.rivals import POOL, dominated_by_one, likeliest


def drawn(
    m: int, columns: int = 2, spread: float = 0.3
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(m)
    centres = rng.normal(size=(m, columns))
    shared = rng.normal(size=(200, 1, columns))
    return centres + spread * rng.normal(size=(200, m, columns)) + shared, rng.random(
        (200, m)
    ) < 0.9


def brute(points: NDArray[np.float64], feasible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Draws in which j, feasible, dominates i, feasible: shape (i, j)."""
    nowhere_larger = (points[:, None, :, :] <= points[:, :, None, :]).all(axis=3)
    both = feasible[:, None, :] & feasible[:, :, None]
    counts: NDArray[np.int64] = (nowhere_larger & both).sum(axis=0)
    np.fill_diagonal(counts, 0)
    return counts


@pytest.mark.parametrize("columns", [2, 3])
def test_all_others_are_counted_where_they_are_few(columns: int) -> None:
    points, feasible = drawn(12, columns)
    rivals = likeliest(points, feasible)
    assert [sorted(row) for row in rivals] == [[j for j in range(12) if j != i] for i in range(12)]
    found = dominated_by_one(points, feasible, rivals)
    expected = brute(points, feasible)
    assert (found == np.take_along_axis(expected, rivals, axis=1)).all()


def test_choosing_rivals_leaves_the_draws_as_they_are() -> None:
    points, feasible = drawn(12)
    columns = np.ascontiguousarray(np.moveaxis(points, 2, 0))  # As membership lays them out.
    likeliest(np.moveaxis(columns, 0, 2), feasible)
    assert (np.moveaxis(columns, 0, 2) == points).all()


def test_of_many_the_likeliest_is_among_those_counted() -> None:
    points, feasible = drawn(150)
    rivals = likeliest(points, feasible)
    assert rivals.shape == (150, 16)
    most = dominated_by_one(points, feasible, rivals).max(axis=1)
    exact = brute(points, feasible).max(axis=1)
    assert (most <= exact).all()
    assert (exact - most).max() <= 6  # Of 200 draws.


def test_the_bound_by_one_is_never_below_the_share_of_fronts() -> None:
    points, feasible = drawn(40)
    hits = fronts(points, feasible).sum(axis=0)
    most = dominated_by_one(points, feasible, likeliest(points, feasible)).max(axis=1)
    upper = feasible.sum(axis=0) - most
    assert (upper >= hits).all() and (upper > hits + 20).any()


def test_an_equal_value_in_one_objective_is_no_worse_and_one_alone_has_no_rival() -> None:
    rng = np.random.default_rng(0)
    points = np.stack([rng.normal((0, 3), size=(100, 2)), np.ones((100, 2))], axis=2)
    feasible = np.ones((100, 2), dtype=bool)
    rivals = likeliest(points, feasible)
    assert rivals.tolist() == [[1], [0]]
    assert dominated_by_one(points, feasible, rivals)[1, 0] > 90
    alone = likeliest(points[:, :1], feasible[:, :1])
    assert dominated_by_one(points[:, :1], feasible[:, :1], alone).shape == (1, 0)


def test_the_scale_of_an_objective_does_not_matter() -> None:
    points, feasible = drawn(60)
    wide = likeliest(points, feasible)
    for scale in (1e-4, 1e4):
        found = likeliest(points * np.array([scale, 1.0]), feasible)
        assert np.sort(found, axis=1).tolist() == np.sort(wide, axis=1).tolist()


def test_of_very_many_the_best_layers_are_considered() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(POOL + 300, 2))
    points = centres + 0.2 * rng.normal(size=(60, len(centres), 2))
    feasible = np.ones(points.shape[:2], dtype=bool)
    feasible[:, :40] = False
    rivals = likeliest(points, feasible)
    assert POOL // 20 < len(np.unique(rivals)) <= 2 * POOL and rivals.min() >= 40
    most = dominated_by_one(points, feasible, rivals).max(axis=1)
    exact = brute(points, feasible).max(axis=1)
    assert (most <= exact).all() and (most[exact == 60] == 60).mean() > 0.99
    none = likeliest(points, np.zeros_like(feasible))
    assert none.shape == (len(centres), 0)
