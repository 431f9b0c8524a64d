"""Front membership against known truths, smaller than benchmarks/front_calibration.py."""

import pytest
from support.benchmarks import benchmark

benchmark("recovery")
simulated = benchmark("front_calibration")


@pytest.mark.parametrize("seeds", [1, 3])
def test_of_a_sharp_trade_off_hardly_any_is_called_off(seeds: int) -> None:
    case = simulated.Case("sharp trade-off", 0.3 if seeds > 1 else 0.0, seeds)
    rows = {row["group"]: row for row in simulated.calibration(case, 3, draws=400)}
    lost = rows["truly on it and labelled off"]
    assert lost["of"] == 300 and lost["share"] <= 0.03
    # The share of draws alone would call them off.
    assert rows["lower bound 0 to 0.01"]["of"] > 20


@pytest.mark.parametrize(("run_sd", "seeds"), [(0.3, 1), (0.3, 3)])
def test_labels_are_right_where_configurations_are_unlike(run_sd: float, seeds: int) -> None:
    case = simulated.Case("unlike", run_sd, seeds)
    rows = {row["group"]: row for row in simulated.calibration(case, 4, draws=400)}
    on, off = rows["label on"], rows["label off"]
    assert on["of"] >= 4 and on["share"] >= 0.9
    assert off["of"] > 60 and off["share"] <= 0.01
    assert {row["about"] for row in rows.values()} == {
        "these weights" if seeds == 1 else "trained again"
    }


def test_the_truth_of_one_seed_is_that_of_its_weights() -> None:
    case = simulated.Case("sharp trade-off", 0.3, 1)
    true = [item.true for item in simulated.measured(simulated.np.random.default_rng(0), case, 250)]
    assert 5 <= sum(true) <= 30  # Of 100 that are all on the front of their configurations.
