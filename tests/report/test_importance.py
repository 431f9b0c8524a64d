"""Importance: Optuna's PED-ANOVA asked in the right direction, and who counts as the best."""

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
from support.factories import make_record, make_spec

from sweeper.analysis import find_front
from sweeper.report.figures.importance import Column, best, importance_info, importances
from sweeper.store.records import TrialRecord


def test_the_best_are_the_lowest_tenth_and_all_equal_to_the_last_of_them() -> None:
    losses = np.array([3.0, 1.0, 2.0, 1.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0])
    assert best(losses).tolist() == [x == 1.0 for x in losses]
    assert best(np.arange(20.0)).sum() == 2
    assert best(-np.arange(25.0))[-3:].all()


def test_what_decides_has_the_largest_share_and_what_does_not_vary_none() -> None:
    rng = np.random.default_rng(0)
    rate = 10 ** rng.uniform(-5, -3, 300)
    batch = rng.choice([8, 16, 32], 300)
    columns = {
        "rate": Column(rate.tolist(), FloatDistribution(rate.min(), rate.max(), log=True)),
        "batch": Column(batch.tolist(), IntDistribution(8, 32)),
        "fixed": Column([0.1] * 300, FloatDistribution(0.1, 0.1)),
    }
    found = importances(columns, rate)
    assert found["rate"] > 0.9 > 0.1 > found["batch"] > found["fixed"] == 0.0
    assert sum(found.values()) == pytest.approx(1)


def random_records(seed: int) -> list[TrialRecord]:
    """The best unsafe rates lie at small batches, the best utilities at a learning rate of about 1e-4."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(150):
        rate, steps = float(10 ** rng.uniform(-5, -3)), int(rng.integers(10, 700))
        batch = int(rng.choice([4, 8, 16]))
        record = make_record(
            identity=f"c{number}",
            learning_rate=rate,
            max_steps=steps,
            batch_size=batch,
            utility=float(1 - abs(np.log10(rate) + 4) / 2 + rng.normal(0, 0.02)),
            unsafe=(batch, 256),
        )
        records.append(record)
    return records


@pytest.mark.parametrize("seed", range(3))
def test_every_objective_is_ranked_towards_its_good_end(seed: int) -> None:
    records, spec = random_records(seed), make_spec()
    rates = [record.config["learning_rate"] for record in records]
    steps = [record.config["max_steps"] for record in records]
    distributions: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(min(rates), max(rates), log=True),
        "max_steps": IntDistribution(min(steps), max(steps)),
        "batch_size": CategoricalDistribution(["4", "8", "16"]),
    }
    study = optuna.create_study(directions=["maximize", "minimize"])
    for record in records:
        params = {name: record.config[name] for name in distributions}
        params["batch_size"] = str(params["batch_size"])
        values = [record.metrics[name].value for name in ("rouge_l", "unsafe_rate")]
        study.add_trial(
            optuna.create_trial(params=params, distributions=distributions, values=values)
        )
    info = importance_info(find_front(records, spec), spec)
    found = {(bar.metric, bar.hyperparameter): bar.share for bar in info.bars}
    for metric, target in (
        ("rouge_l", lambda trial: -trial.values[0]),
        ("unsafe_rate", lambda trial: trial.values[1]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = get_param_importances(
                study, evaluator=PedAnovaImportanceEvaluator(), target=target
            )
        assert {name: found[metric, name] for name in expected} == pytest.approx(expected, rel=1e-9)
    assert found["rouge_l", "learning_rate"] > 0.5
    assert found["unsafe_rate", "batch_size"] > 0.5
