"""The simulations of benchmarks/nulls.py, smaller: what does not differ is seldom said to."""

import pytest
from support.benchmarks import benchmark

nulls = benchmark("nulls")


def case(
    seeds: int, spread: float, pooled: str = "pair", level: float | str = 0.05
) -> dict[str, object]:
    return {"level": level, "seeds": seeds, "between runs": spread, "pooled": pooled}


@pytest.mark.parametrize("metric", ["rate", "score", "loss"])
@pytest.mark.parametrize(
    ("seeds", "spread", "pooled"), [(1, 0.0, "-"), (3, 0.5, "pair"), (3, 0.5, "sweep")]
)
def test_equal_configurations_seldom_differ(
    metric: str, seeds: int, spread: float, pooled: str
) -> None:
    found = nulls.pairs(3, metric, case(seeds, spread, pooled), 40)
    # 240 pairs at 5 %: three standard errors are 4.2 %.
    assert found["excluded"] <= 0.092


def test_one_seed_cannot_speak_for_other_runs() -> None:
    """What a difference of these weights is, read as one of configurations, is nearly always there."""
    found = nulls.pairs(3, "rate", case(1, 0.5, "-", 0.15), 40)
    assert found["excluded"] > 0.4


@pytest.mark.parametrize("controls", ["same run", "own runs", "four runs"])
def test_averages_that_do_nothing_seldom_have_a_mean_effect(controls: str) -> None:
    found = nulls.averaging(
        3, {"controls": controls, "level": 0.05, "seeds": 1, "between runs": 0.5}, 300
    )
    assert found["excluded"] <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
