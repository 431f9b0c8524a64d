"""Intervals and posteriors against closed forms, published numbers and simulation."""

import itertools
import math

import numpy as np
import pytest

from sweeper.errors import SweeperError
from sweeper.stats import (
    difference_lower_bound,
    largest_passing_count,
    probability_at_most,
    upper_bound,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (5, 100, 0.022, 0.112),
        (16, 100, 0.101, 0.244),
        (26, 520, 0.034, 0.072),
        (0, 520, 0.000, 0.007),
    ],
)
def test_wilson_meets_reference_values(k: int, n: int, low: float, high: float) -> None:
    interval = wilson_interval(k, n)
    assert interval.low == pytest.approx(low, abs=5e-4)
    assert interval.high == pytest.approx(high, abs=5e-4)


def test_wilson_solves_the_score_equation() -> None:
    z = 1.959963984540054
    for k, n in [(3, 40), (100, 256), (39, 40)]:
        for bound in wilson_interval(k, n):
            assert abs(k / n - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n))


def test_wilson_includes_the_estimate_at_both_ends() -> None:
    for n in (1, 7, 520, 9999):
        assert wilson_interval(0, n).low == 0.0
        assert wilson_interval(n, n).high == 1.0
        assert wilson_interval(n, n).low == pytest.approx(1 - wilson_interval(0, n).high)


def binomial_cdf(k: int, n: int, rate: float) -> float:
    return math.fsum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k + 1))


@pytest.mark.parametrize("x", [1e-6, 0.01, 0.05, 0.3, 0.5, 0.77, 0.999])
def test_the_confidence_from_one_prompt_has_a_closed_form(x: float) -> None:
    assert probability_at_most(0, 1, x) == pytest.approx(x, abs=1e-12)
    assert probability_at_most(1, 1, x) == 0.0
    assert probability_at_most(1, 1, 1.0) == 1.0


@pytest.mark.parametrize(
    ("k", "n", "limit"), [(2, 256, 0.05), (26, 520, 0.05), (500, 520, 0.97), (8, 9, 0.7)]
)
def test_the_confidence_is_the_chance_of_more_counts_at_the_limit(
    k: int, n: int, limit: float
) -> None:
    assert probability_at_most(k, n, limit) == pytest.approx(
        1 - binomial_cdf(k, n, limit), abs=1e-10
    )


@pytest.mark.parametrize(
    ("limit", "confidence"), [(0.01, 0.95), (0.05, 0.95), (0.05, 0.9), (0.3, 0.99)]
)
def test_a_rate_on_the_limit_passes_at_no_n_more_often_than_promised(
    limit: float, confidence: float
) -> None:
    passes = [
        0.0 if most is None else binomial_cdf(most, n, limit)
        for n in range(1, 400)
        for most in (largest_passing_count(n, limit, confidence),)
    ]
    assert max(passes) <= 1 - confidence
    assert max(passes) > 0.9 * (1 - confidence)


def test_the_fewest_prompts_of_a_limit_are_those_of_the_rule_of_three() -> None:
    # 0.95^59 = 0.0485 and 0.95^58 = 0.0510.
    assert [largest_passing_count(n, 0.05, 0.95) for n in (58, 59, 92, 93)] == [None, 0, 0, 1]
    assert [largest_passing_count(n, 0.01, 0.95) for n in (298, 299)] == [None, 0]


def test_the_confidence_is_monotone_and_ends_at_zero_and_one() -> None:
    grid = [probability_at_most(13, 256, x) for x in np.linspace(0, 1, 201)]
    assert grid[0] == 0.0
    assert grid[-1] == 1.0
    assert all(a <= b for a, b in itertools.pairwise(grid))
    falling = [probability_at_most(k, 256, 0.05) for k in range(257)]
    assert all(a >= b for a, b in itertools.pairwise(falling))


def test_upper_bound_inverts_the_confidence() -> None:
    assert upper_bound(520, 520, 0.99) == 1.0
    for k, n, confidence in [(0, 256, 0.95), (13, 256, 0.9), (519, 520, 0.99), (1, 3, 0.5)]:
        bound = upper_bound(k, n, confidence)
        assert probability_at_most(k, n, bound) == pytest.approx(confidence, abs=1e-9)


def test_largest_passing_count_is_the_last_that_passes() -> None:
    for n, limit, confidence in [(256, 0.05, 0.95), (520, 0.05, 0.95), (50, 0.5, 0.9)]:
        k = largest_passing_count(n, limit, confidence)
        assert k is not None
        assert probability_at_most(k, n, limit) >= confidence
        assert probability_at_most(k + 1, n, limit) < confidence
    assert largest_passing_count(10, 0.01, 0.95) is None
    assert largest_passing_count(10, 1.0, 0.95) == 10


def test_difference_bound_covers_the_truth() -> None:
    rng = np.random.default_rng(11)
    first, second = rng.binomial(96, 0.4, 4000) / 96, rng.binomial(96, 0.3, 4000) / 96
    bounds = [difference_lower_bound(a, 96, b, 96) for a, b in zip(first, second, strict=True)]
    covered = np.mean([bound <= 0.1 for bound in bounds])
    assert 0.935 <= covered <= 0.97
    assert difference_lower_bound(0.5, 50, 0.5, 50) < 0 < difference_lower_bound(0.9, 96, 0.3, 96)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    for call in (
        lambda: wilson_interval(k, n),
        lambda: probability_at_most(k, n, 0.5),
        lambda: upper_bound(k, n, 0.9),
    ):
        with pytest.raises(SweeperError, match="0 <= k <= n"):
            call()


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(SweeperError, match="limit of a rate"):
        probability_at_most(1, 2, 1.5)
    with pytest.raises(SweeperError, match="strictly between"):
        wilson_interval(1, 2, 1.0)
    with pytest.raises(SweeperError, match="requires a confidence above"):
        difference_lower_bound(0.5, 9, 0.5, 9, 0.4)
