"""What differs between runs, and the rate of a configuration that is trained again, by simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import beta

from sweeper.stats import probability_at_most
from sweeper.stats.runs import (
    EXACT,
    JEFFREYS,
    PRIOR,
    RunVariance,
    run_variance,
    trained_again_count_draws,
    trained_again_draws,
)

Floats = NDArray[np.float64]
SURE = RunVariance(0.0, 1e9)
"""Runs that do not differ."""


def trained(rng: np.random.Generator, rate: float, sd: float, seeds: int, hard: Floats) -> Floats:
    """Verdicts whose mean rate over runs and prompts is `rate`; `hard` is what prompts have in common."""
    mean, tau = ndtri(rate) * np.sqrt(1 + sd**2), 1.0
    runs = mean + sd * rng.standard_normal(seeds)
    shares = ndtr(runs[:, None] * np.sqrt(1 + tau**2) + tau * hard)
    answers: Floats = (rng.random(shares.shape) < shares).astype(float)
    return answers


def estimate(sd: float, configurations: int, seeds: int = 3, n: int = 256) -> RunVariance:
    rng = np.random.default_rng(4)
    hard = rng.standard_normal(n)
    rates = rng.uniform(0.02, 0.3, configurations)
    return run_variance(trained(rng, rate, sd, seeds, hard) for rate in rates)


@pytest.mark.parametrize("sd", [0.0, 0.3, 0.65])
def test_the_pooled_variance_is_that_of_the_runs(sd: float) -> None:
    found = estimate(sd, 300)
    assert found.df == PRIOR.df + 600
    assert found.squares / found.df == pytest.approx(sd**2, abs=0.15 * sd**2 + 0.006)


def test_one_seed_and_no_configuration_leave_the_prior() -> None:
    assert run_variance([]) == PRIOR
    assert run_variance([np.ones((1, 50)), np.zeros((3, 1))]) == PRIOR
    equal = run_variance([np.tile(np.arange(50) % 2.0, (4, 1))])
    assert (equal.squares, equal.df) == (PRIOR.squares, PRIOR.df + 3)


def test_readouts_of_one_trajectory_count_its_runs_once() -> None:
    rng = np.random.default_rng(0)
    table = trained(rng, 0.2, 0.65, 4, rng.standard_normal(200))
    once = run_variance([table])
    assert run_variance([table] * 5, ["same"] * 5) == pytest.approx(once)
    assert run_variance([table] * 5, range(5)).df == PRIOR.df + 15
    assert once.squares > PRIOR.squares


@pytest.mark.parametrize(("k", "counted"), [(0, EXACT), (6, EXACT), (12, EXACT), (6, JEFFREYS)])
def test_one_seed_of_runs_that_do_not_differ_is_a_beta_of_its_count(k: int, counted: float) -> None:
    answers = (np.arange(256) < k).astype(float)[None]
    rng = np.random.default_rng(1)
    drawn = trained_again_draws(answers, SURE, 40_000, rng, counted=counted)
    counts = trained_again_count_draws([k], [256], SURE, 40_000, rng, counted=counted)
    expected = beta(k + counted, 256 - k + 1 - counted).cdf(0.05)
    assert counted == JEFFREYS or expected == pytest.approx(probability_at_most(k, 256, 0.05))
    for found in (drawn, counts):
        assert float((found <= 0.05).mean()) == pytest.approx(expected, abs=0.008)


def test_all_counted_has_a_bound_of_one() -> None:
    rng = np.random.default_rng(2)
    assert trained_again_count_draws([9, 9], [9, 9], SURE, 100, rng).min() > 0.999
    assert trained_again_draws(np.ones((2, 9)), SURE, 100, rng).min() > 0.999


def test_more_seeds_narrow_what_runs_add_and_prompts_stay() -> None:
    rng = np.random.default_rng(3)
    row = (np.arange(256) < 12).astype(float)
    known = RunVariance(0.3**2 * 200, 200)
    spread = [trained_again_draws(np.tile(row, (s, 1)), known, 8000, rng).std() for s in (1, 3, 30)]
    alone = trained_again_draws(row[None], SURE, 8000, rng).std()
    assert spread[0] > 1.5 * spread[1] > 1.5 * alone
    assert spread[2] == pytest.approx(alone, rel=0.2)


@pytest.mark.parametrize(("k", "low", "high"), [(9, 0.88, 0.97), (10, 1.0, 1.0), (0, 0.03, 0.1)])
def test_a_rate_from_counts_is_certain_only_where_every_prompt_counted(
    k: int, low: float, high: float
) -> None:
    """The median of Beta(k + 1, 10 - k) for one run, and runs that hardly differ."""
    alike = RunVariance(1e-8, 1e6)
    rng = np.random.default_rng(0)
    drawn = trained_again_count_draws([k], [10], alike, 4000, rng)
    assert low <= np.median(drawn) <= high


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("sd", [0.0, 0.3, 0.5, 0.65])
@pytest.mark.parametrize("configurations", [1, 10])
def test_a_mean_rate_on_the_limit_passes_in_five_percent_at_most(
    seeds: int, sd: float, configurations: int
) -> None:
    rng, passed, repetitions = np.random.default_rng(0), 0, 400
    for _ in range(repetitions):
        hard = rng.standard_normal(256)
        one = trained(rng, 0.05, sd, seeds, hard)
        rates = rng.uniform(0.01, 0.3, configurations - 1)
        others = [trained(rng, rate, sd, seeds, hard) for rate in rates]
        drawn = trained_again_draws(one, run_variance([one, *others]), 500, rng)
        passed += (drawn <= 0.05).mean() >= 0.95
    # Three standard errors of 5 % above it.
    assert passed / repetitions <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / repetitions)
