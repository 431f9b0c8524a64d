"""Confidence sequences: the mixture is a martingale, and bounds are where it begins to refute."""

import math

import pytest

from sweeper.errors import SweeperError
from sweeper.stats import (
    DiscordantPairs,
    difference_sequence,
    rate_sequence,
    refutes_difference,
    refutes_rate,
    wilson_interval,
)
from sweeper.stats.sequences import _log_mixture


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_the_mixture_over_the_likelihood_of_the_truth_has_mean_one(rate: float) -> None:
    for n in (1, 7, 60):
        mean = sum(
            math.comb(n, k) * math.exp(_log_mixture((k, n - k)))  # The truth's likelihood cancels.
            for k in range(n + 1)
        )
        assert mean == pytest.approx(1.0, rel=1e-9)


def test_the_mixture_of_three_cells_has_mean_one() -> None:
    n = 12
    mean = sum(
        math.comb(n, a) * math.comb(n - a, b) * math.exp(_log_mixture((a, b, n - a - b)))
        for a in range(n + 1)
        for b in range(n + 1 - a)
    )
    assert mean == pytest.approx(1.0, rel=1e-9)


def test_one_prompt_gives_the_closed_form() -> None:
    # After one counted prompt the mixture is 1/2, and rate p has likelihood p: refuted below alpha / 2.
    assert rate_sequence(1, 1, 0.1) == pytest.approx((0.05, 1.0), abs=1e-12)
    assert rate_sequence(0, 1, 0.1) == pytest.approx((0.0, 0.95), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 256), (13, 256), (256, 256), (3, 4), (500, 1000)])
def test_bounds_are_where_rates_begin_to_be_refuted(k: int, n: int) -> None:
    low, high = rate_sequence(k, n)
    assert low <= k / n <= high
    wilson = wilson_interval(k, n)
    assert low <= wilson.low and high >= wilson.high
    for bound, step in ((low, -1e-6), (high, 1e-6)):
        assert not refutes_rate(k, n, bound)
        if 0 < bound < 1:
            assert refutes_rate(k, n, bound + step)


@pytest.mark.parametrize("cells", [(0, 0, 50), (12, 2, 50), (30, 30, 100), (50, 0, 50)])
def test_bounds_of_differences_are_where_they_begin_to_be_refuted(
    cells: tuple[int, int, int],
) -> None:
    pairs = DiscordantPairs(*cells)
    low, high = difference_sequence(pairs)
    assert low <= pairs.difference <= high
    for bound, step in ((low, -1e-6), (high, 1e-6)):
        assert not refutes_difference(pairs, bound)
        if abs(bound) < 1:
            assert refutes_difference(pairs, bound + step)
    swapped = difference_sequence(DiscordantPairs(pairs.second, pairs.first, pairs.n))
    assert swapped == pytest.approx((-high, -low), abs=1e-9)


def test_without_prompts_nothing_is_refuted() -> None:
    assert rate_sequence(0, 0) == (0.0, 1.0)
    assert difference_sequence(DiscordantPairs(0, 0, 0)) == (-1.0, 1.0)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(SweeperError, match="k=3, n=2"):
        rate_sequence(3, 2)
    with pytest.raises(SweeperError, match="alpha lies strictly between"):
        refutes_rate(1, 2, 0.5, 0.0)
    with pytest.raises(SweeperError, match="cells of pairs"):
        difference_sequence(DiscordantPairs(3, 3, 5))
