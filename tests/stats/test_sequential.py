"""The confidence sequence: its mixture is a martingale, and bounds are where it begins to refute."""

import math

import pytest
from support.oracles import rate_sequence

from sweeper.errors import SweeperError
from sweeper.stats import refutes_rate, wilson_interval
from sweeper.stats.sequential import log_mixture


@pytest.mark.parametrize("n", [1, 7, 60])
def test_the_mixture_over_the_likelihood_of_the_truth_has_mean_one(n: int) -> None:
    # The truth's likelihood cancels, so this holds for every true rate.
    mean = sum(math.comb(n, k) * math.exp(log_mixture(k, n)) for k in range(n + 1))
    assert mean == pytest.approx(1.0, rel=1e-9)


def test_one_prompt_gives_the_closed_form() -> None:
    # After one counted prompt the mixture is 1/2, and rate p has likelihood p: refuted below alpha / 2.
    assert refutes_rate(1, 1, 0.05 - 1e-12, 0.1) and not refutes_rate(1, 1, 0.05 + 1e-12, 0.1)
    assert refutes_rate(0, 1, 0.95 + 1e-12, 0.1) and not refutes_rate(0, 1, 0.95 - 1e-12, 0.1)


@pytest.mark.parametrize(("k", "n"), [(0, 256), (13, 256), (256, 256), (3, 4), (500, 1000)])
def test_rates_are_refuted_from_the_bounds_on(k: int, n: int) -> None:
    low, high = rate_sequence(k, n)
    assert low <= k / n <= high
    wilson = wilson_interval(k, n)
    assert low <= wilson.low and high >= wilson.high
    for bound, step in ((low, -1e-6), (high, 1e-6)):
        assert not refutes_rate(k, n, bound - step)
        if 0 < bound < 1:
            assert refutes_rate(k, n, bound + step)


def test_an_impossible_rate_is_refuted_and_without_prompts_none_is() -> None:
    assert refutes_rate(1, 10, 0.0) and refutes_rate(9, 10, 1.0)
    assert not refutes_rate(0, 10, 0.0) and not refutes_rate(10, 10, 1.0)
    assert not any(refutes_rate(0, 0, rate) for rate in (0.0, 0.3, 1.0))


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(SweeperError, match="k=3, n=2"):
        refutes_rate(3, 2, 0.5)
    with pytest.raises(SweeperError, match="alpha lies strictly between"):
        refutes_rate(1, 2, 0.5, 0.0)
