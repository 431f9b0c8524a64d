"""Comparisons on the same prompts against exact sums, direct maximisation and simulation."""

import itertools
import math

import numpy as np
import pytest
from support.oracles import mean_difference_interval

from sweeper.errors import SweeperError
from sweeper.stats import (
    DiscordantPairs,
    Interval,
    discordant_pairs,
    mcnemar,
    mean_interval,
    paired_difference_interval,
    t_quantile,
)
from sweeper.stats.paired import constrained_share


def test_discordant_prompts_are_counted_by_side() -> None:
    assert discordant_pairs("11010", "10011") == DiscordantPairs(1, 1, 5)
    assert discordant_pairs("111", "000").difference == 1.0
    with pytest.raises(SweeperError, match="at least one, but got 3 and 2"):
        discordant_pairs("110", "11")
    with pytest.raises(SweeperError, match="but got 0 and 0"):
        discordant_pairs("", "")


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (12, 2), (3, 40), (0, 300)])
def test_mcnemar_is_a_binomial_test_of_a_fair_coin(first: int, second: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    pairs, total = DiscordantPairs(first, second, 1000), first + second
    exact = stats.binomtest(first, total).pvalue if total else 1.0
    assert mcnemar(pairs) == pytest.approx(exact, rel=1e-9)


def likelihood(pairs: DiscordantPairs, second: float, difference: float) -> float:
    cells = (second + difference, second, 1 - 2 * second - difference)
    counts = (pairs.first, pairs.second, pairs.n - pairs.first - pairs.second)
    return sum(
        k * math.log(share) if share > 0 else -math.inf
        for k, share in zip(counts, cells, strict=True)
        if k
    )


@pytest.mark.parametrize("cells", [(12, 2, 50), (3, 3, 40), (7, 0, 100), (0, 9, 30), (40, 25, 70)])
@pytest.mark.parametrize("difference", [-0.45, -0.1, 0.0, 0.02, 0.3])
def test_the_constrained_share_is_the_likeliest(
    cells: tuple[int, int, int], difference: float
) -> None:
    pairs = DiscordantPairs(*cells)
    found = constrained_share(pairs, difference)
    low, high = max(0.0, -difference), (1 - difference) / 2
    assert low <= found <= high
    best = likelihood(pairs, found, difference)
    for other in np.linspace(low, high, 2001):
        assert likelihood(pairs, float(other), difference) <= best + 1e-9


def test_tangos_interval_solves_the_score_equation() -> None:
    z = 1.959963984540054
    pairs = DiscordantPairs(12, 2, 50)
    interval = paired_difference_interval(pairs)
    assert interval == pytest.approx((0.0611124, 0.3447087), abs=1e-6)
    for bound in interval:
        share = constrained_share(pairs, bound)
        deviation = math.sqrt(pairs.n * (2 * share + bound * (1 - bound)))
        assert abs(10 - 50 * bound) / deviation == pytest.approx(z, abs=1e-9)


def test_tangos_interval_mirrors_and_keeps_the_estimate() -> None:
    for first, second in itertools.product((0, 1, 7, 20), repeat=2):
        low, high = paired_difference_interval(DiscordantPairs(first, second, 40))
        mirrored = paired_difference_interval(DiscordantPairs(second, first, 40))
        assert mirrored == pytest.approx((-high, -low), abs=1e-9)
        assert -1 <= low <= (first - second) / 40 <= high <= 1
    assert paired_difference_interval(DiscordantPairs(5, 0, 5)).high == 1.0


def test_zero_is_in_tangos_interval_where_mcnemars_chi_square_is_small() -> None:
    for first, second in itertools.product(range(0, 15, 2), range(1, 15, 2)):
        statistic = (first - second) ** 2 / (first + second)
        interval = paired_difference_interval(DiscordantPairs(first, second, 60))
        assert (interval.low <= 0 <= interval.high) == (statistic <= 1.959963984540054**2)


def test_an_interval_of_means_is_students() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(30), rng.random(30)
    gaps = first - second
    found = mean_interval(float(gaps.mean()), gaps, 0.9)
    expected = mean_difference_interval(first.tolist(), second.tolist(), 0.9)
    assert found == pytest.approx(expected, abs=1e-10)
    assert mean_interval(0.5, np.array([0.5, 0.5]), 0.95) == Interval(0.5, 0.5)


@pytest.mark.parametrize("degrees", [1, 2, 5, 95])
@pytest.mark.parametrize("share", [0.025, 0.3, 0.5, 0.9, 0.995])
def test_quantiles_of_t_invert_its_distribution(degrees: int, share: float) -> None:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    # P(T <= t) = 1/2 + the integral of cos(u)^(degrees - 1) up to atan(t / sqrt(degrees)), normalised.
    end = math.atan(t_quantile(share, degrees) / math.sqrt(degrees))
    inside = np.cos((nodes + 1) * end / 2) ** (degrees - 1)
    norm = math.sqrt(math.pi) * math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
    found = 0.5 + float((weights * inside).sum() * end / 2) / norm
    assert found == pytest.approx(share, abs=1e-9)


def test_impossible_pairs_are_refused() -> None:
    with pytest.raises(SweeperError, match="strictly between 0 and 1, but got 0"):
        paired_difference_interval(DiscordantPairs(1, 2, 5), 0)
    with pytest.raises(SweeperError, match="at least one prompt"):
        paired_difference_interval(DiscordantPairs(0, 0, 0))
