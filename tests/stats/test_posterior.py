"""Draws: their margins are the stated posteriors, shared prompts cancel, seeds are spread."""

import numpy as np
import pytest

from sweeper.stats.posterior import (
    beta_draws,
    interaction_variance,
    prompt_weights,
    rate_draws,
    ratio_draws,
    seed_noise,
    seed_spread,
    shifted,
)

DRAWS = 40_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("k", "n"), [(0, 40), (3, 40), (40, 40)])
def test_a_rate_alone_has_jeffreys_posterior(k: int, n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    answers = (np.arange(n) < k).astype(float)
    drawn = rate_draws(prompt_weights(n, DRAWS, rng()), answers[None], rng(1))[:, 0]
    expected = stats.beta(k + 0.5, n - k + 0.5)
    assert stats.kstest(drawn, expected.cdf).pvalue > 0.001
    counted = beta_draws(np.array([k / n]), np.array([n]), DRAWS, rng(2))[:, 0]
    assert stats.kstest(counted, expected.cdf).pvalue > 0.001


def test_what_two_share_on_the_same_prompts_cancels() -> None:
    n = 256
    first = (np.arange(n) < 40).astype(float)
    second = (np.arange(n) < 30).astype(float)
    drawn = rate_draws(prompt_weights(n, DRAWS, rng()), np.stack([first, second]), rng(1))
    apart = beta_draws(np.array([40 / n, 30 / n]), np.array([n, n]), DRAWS, rng(2))
    better, by_chance = ((d[:, 1] < d[:, 0]).mean() for d in (drawn, apart))
    assert better > 0.995
    assert by_chance == pytest.approx(0.90, abs=0.02)
    assert np.std(drawn[:, 0] - drawn[:, 1]) < 0.6 * np.std(apart[:, 0] - apart[:, 1])


def test_means_and_ratios_have_the_bootstraps_moments() -> None:
    n = 50
    scores, tokens = rng(3).random(n), (5 + np.arange(n) % 7).astype(np.float64)
    weights = prompt_weights(n, DRAWS, rng())
    (means,) = ratio_draws(weights, scores[None], np.ones(n)).T
    assert means.mean() == pytest.approx(scores.mean(), abs=1e-3)
    assert means.std() == pytest.approx(scores.std() / np.sqrt(n + 1), rel=0.02)
    losses = np.stack([tokens * 0.5, tokens * 0.25])
    assert ratio_draws(weights, losses, tokens) == pytest.approx(np.array([[0.5, 0.25]] * DRAWS))
    own = ratio_draws(weights[:9], losses, np.stack([tokens, tokens / 2]))
    assert own == pytest.approx(np.full((9, 2), 0.5))


def test_seeds_that_differ_beyond_their_prompts_are_students_t() -> None:
    stats = pytest.importorskip("scipy.stats")
    values, seeds = [np.array([0.1, 0.2, 0.3]), np.array([0.4])], np.array([3, 1])
    noise = seed_noise(seed_spread(values), seeds, DRAWS, rng())
    for column, count in enumerate(seeds):
        scaled = noise[:, column] / (0.1 / np.sqrt(count))
        assert stats.kstest(scaled, stats.t(2).cdf).pvalue > 0.001
    assert not seed_noise(seed_spread([np.full(3, 0.2)]), seeds[:1], 5, rng()).any()
    assert seed_spread(values[1:]) == (0.0, 0.0, 0.0)
    assert not seed_noise(seed_spread(values[1:]), seeds[1:], 5, rng()).any()


def test_seeds_of_several_configurations_are_pooled_and_those_of_one_path_averaged() -> None:
    first, second = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.7])
    assert seed_spread([first, second]) == pytest.approx((0.02 + 0.02, 0, 3))
    assert seed_spread([first, second], [0.001, 0.004]).within == pytest.approx(0.006)
    same = seed_spread([first, second, first], None, ["a", "b", "a"])
    assert same == pytest.approx(seed_spread([first, second]))


def test_what_prompts_explain_is_taken_off_the_spread() -> None:
    values, seeds = [np.array([0.1, 0.12, 0.14])], np.array([3])
    whole = np.abs(seed_noise(seed_spread(values), seeds, DRAWS, rng()))
    rest = np.abs(seed_noise(seed_spread(values, [0.0004]), seeds, DRAWS, rng()))
    assert np.quantile(rest, 0.5) < 0.6 * np.quantile(whole, 0.5)
    assert (rest == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)  # chi^2_2 >= 2


def test_interaction_is_what_rows_and_columns_leave() -> None:
    rows, columns = rng(1).random(30), rng(2).random((4, 1))
    assert interaction_variance((rows + columns)[None]) == pytest.approx(0, abs=1e-20)
    noise = rng(3).normal(0, 0.5, (1, 40, 200))
    assert interaction_variance(rows[:1] + noise)[0] == pytest.approx(0.25 / 200, rel=0.05)


def test_shifted_rates_stay_rates_and_move_as_told() -> None:
    moved = shifted(np.full((3, 1), 0.2), np.array([[0.01], [-0.01], [60.0]]))[:, 0]
    assert moved[:2] == pytest.approx([0.2016, 0.1984], abs=2e-5)
    assert 0.999 < moved[2] <= 1
    assert shifted(np.array([0.0, 1.0]), np.zeros(2)) == pytest.approx([0, 1], abs=1e-9)
