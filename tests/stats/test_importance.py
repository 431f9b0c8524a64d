"""PED-ANOVA against Optuna's own evaluator, and where it has nothing to say."""

import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from sweeper.stats.importance import Column, best, divergence, importances

CHOICES = ["raw", "ema(0.9)", "ema(0.99)", "interpolate(0.5)"]


def space(values: dict[str, np.ndarray]) -> dict[str, BaseDistribution]:
    """As a study of these values has it: both bounds were seen."""
    return {
        "rate": FloatDistribution(values["rate"].min(), values["rate"].max(), log=True),
        "decay": FloatDistribution(values["decay"].min(), values["decay"].max()),
        "batch": IntDistribution(int(values["batch"].min()), int(values["batch"].max())),
        "steps": IntDistribution(int(values["steps"].min()), int(values["steps"].max()), log=True),
        "average": CategoricalDistribution(CHOICES),
    }


def drawn(rng: np.random.Generator, n: int, *, grid: bool) -> dict[str, np.ndarray]:
    rates = np.geomspace(1e-5, 1e-3, 7)
    return {
        "rate": rng.choice(rates, n) if grid else 10 ** rng.uniform(-5, -3, n),
        "decay": rng.choice([0.0, 0.1], n) if grid else rng.uniform(0, 0.3, n),
        "batch": rng.choice([8, 16, 32], n) if grid else rng.integers(4, 200, n),
        "steps": rng.choice([20, 40, 80, 160], n) if grid else rng.integers(10, 700, n),
        "average": rng.integers(0, len(CHOICES), n),
    }


@pytest.mark.parametrize("seed", range(12))
def test_shares_are_those_of_optunas_evaluator(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(50, 400))
    values = drawn(rng, n, grid=seed % 2 == 0)
    loss = np.abs(np.log10(values["rate"]) + 4) + 0.3 * (values["average"] == 2)
    loss = np.round(loss + rng.normal(0, 0.2, n), 1 if seed % 3 == 0 else 6)
    params = space(values)
    study = optuna.create_study(direction="minimize")
    for row in range(n):
        given = {
            name: CHOICES[values[name][row]] if name == "average" else values[name][row].item()
            for name in params
        }
        study.add_trial(
            optuna.create_trial(params=given, distributions=params, value=float(loss[row]))
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    columns = [
        Column(values["rate"], log=True),
        Column(values["decay"]),
        Column(values["batch"].astype(float), whole=True),
        Column(values["steps"].astype(float), log=True, whole=True),
        Column(values["average"].astype(float), levels=len(CHOICES)),
    ]
    ours = importances(columns, best(loss))
    assert ours is not None
    assert ours == pytest.approx([oracle[name] for name in params], rel=1e-6, abs=1e-9)


def test_the_best_are_the_lowest_tenth_and_all_equal_to_the_last_of_them() -> None:
    losses = np.array([3.0, 1.0, 2.0, 1.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0])
    assert best(losses).tolist() == [x == 1.0 for x in losses]
    assert best(np.arange(20.0)).sum() == 2
    assert best(-np.arange(25.0))[-3:].all()


def test_what_decides_has_the_largest_share_and_what_does_not_vary_none() -> None:
    rng = np.random.default_rng(0)
    rate = 10 ** rng.uniform(-5, -3, 300)
    columns = [
        Column(rate, log=True),
        Column(rng.choice([8.0, 16.0, 32.0], 300), whole=True),
        Column(np.full(300, 0.1)),
    ]
    found = importances(columns, best(rate))
    assert found is not None
    assert found[0] > 0.9 > 0.1 > found[1] > found[2] == 0.0
    assert found.sum() == pytest.approx(1)


def test_equal_densities_have_no_divergence_and_no_shares() -> None:
    codes = Column(np.tile([0.0, 1.0], 50), levels=2)
    every = np.ones(100, dtype=bool)
    assert divergence(codes, every) == pytest.approx(0, abs=1e-12)
    assert importances([codes], every) is None
