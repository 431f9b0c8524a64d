"""The simulations of benchmarks/coverage.py, smaller: levels hold, and the front is found more often."""

import numpy as np
import pytest
from support.benchmarks import benchmark

from sweeper.stats import wilson_interval

simulations, recovery = benchmark("simulations"), benchmark("recovery")


def rng() -> np.random.Generator:
    return np.random.default_rng(17)


@pytest.mark.parametrize("n", [100, 256])
def test_intervals_of_one_rate_cover_at_their_level_on_average(n: int) -> None:
    for interval in (wilson_interval, simulations.credible_interval):
        found = simulations.counts_coverage(interval, n, 0.01, 0.2)
        assert 0.94 < found["coverage"] < 0.96
    exact = simulations.counts_coverage(simulations.clopper_pearson_interval, n, 0.01, 0.2)
    assert exact["least"] >= 0.95 and exact["coverage"] < 0.975


def test_intervals_of_pairs_cover_at_their_level() -> None:
    # 1,000 repetitions have a standard error of 0.007.
    assert 0.93 < simulations.pairs_coverage(rng(), 256, 1000)["coverage"] < 0.97
    means = simulations.means_coverage(rng(), 96, 1000)
    assert 0.93 < means["student"] < 0.97 and 0.93 < means["bootstrap"] < 0.97
    draws = simulations.differences_coverage(rng(), 256, 600)
    assert 0.93 < draws["paired"] < 0.98
    assert draws["as if independent"] > draws["paired"] and draws["width"] < 0.9


def test_spread_of_seeds_covers_where_prompts_alone_do_not() -> None:
    runs = simulations.Runs(seeds=3, logit=-1.0, prompts=1.0, runs=1.0)
    found = simulations.seeds_coverage(rng(), runs, 256, 400)
    assert 0.92 < found["verdicts"] < 0.98
    assert found["prompts alone"] < 0.5
    same = simulations.Runs(seeds=3, logit=-3.0, prompts=1.0, runs=0.0)
    assert simulations.seeds_coverage(rng(), same, 256, 300)["verdicts"] > 0.95


@pytest.mark.parametrize("rate", [0.01, 0.16])
def test_a_sequence_is_hardly_ever_wrong_where_peeking_often_is(rate: float) -> None:
    found = simulations.rate_errors(rng(), rate, 300, 200)
    assert found["sequence"] <= 0.05 < 0.2 < found["wilson"]


@pytest.mark.parametrize("toy", recovery.TOYS, ids=lambda toy: f"{toy.name}, {toy.prompts}")
def test_the_front_by_probability_is_found_at_least_as_often_as_by_estimates(
    toy: recovery.Toy,  # type: ignore[name-defined]
) -> None:
    found = recovery.recovery(rng(), toy, 20, draws=500)
    assert found["on or uncertain: whole"] >= found["estimates: whole"]
    assert found["on or uncertain: share"] > found["estimates: share"]
    assert found["most probable, as many: share"] >= found["estimates: share"]


def test_probabilities_of_being_on_the_front_are_met() -> None:
    rows = recovery.calibration(rng(), 40, draws=500)
    share = {row["group"]: row["on the true front"] for row in rows}
    count = {row["group"]: row["configurations"] for row in rows}
    assert count["P 0.95 to 1"] > 100 and share["P 0.95 to 1"] > 0.95
    assert count["P 0 to 0.01"] > 300 and share["P 0 to 0.01"] < 0.02
    assert 0.3 < share["P 0.3 to 0.5"] < 0.65
    assert sum(row["configurations"] for row in rows[:-2]) == 40 * 30
