"""The Optuna projection against the front it was made from."""

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import find_front
from sweeper.errors import RunFolderError
from sweeper.search.study import distributions, open_study, project, to_choice
from sweeper.store.records import Status, TrialRecord

optuna.logging.set_verbosity(optuna.logging.WARNING)


def random_records(seed: int) -> list[TrialRecord]:
    """Ties, duplicates, infeasible ones, every kind of end, and an unbeatable base model."""
    rng = np.random.default_rng(seed)
    states: list[Status] = ["complete", "complete", "complete", "failed", "pruned", "unscored"]
    records = [base_record(utility=1.0, unsafe=(0, 256))]
    for index in range(40):
        records.append(
            make_record(
                identity=f"c{index}",
                status=states[rng.integers(len(states))],
                unsafe=(int(rng.integers(0, 12)), 256),
                utility=float(rng.integers(0, 8)) / 8,
                learning_rate=float(rng.choice([1e-5, 3e-4, 1e-3])),
                max_steps=int(rng.choice([40, 80, 320])),
                average=str(rng.choice(["raw", "ema(0.99)"])),
            )
        )
    return records


def ids(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    return sorted(trial.user_attrs["config_id"] for trial in trials)


@pytest.mark.parametrize("seed", range(6))
def test_best_trials_are_the_members_of_the_front(seed: int) -> None:
    spec = make_spec()
    front = find_front(random_records(seed), spec)
    study = project(front, spec, None)
    assert ids(study.best_trials) == sorted(item.config_id for item in front.members)
    assert len(front.members) > 0


@pytest.mark.parametrize(
    "overrides", [("constraints=[]",), ("objectives=[rouge_l, unsafe_rate, over_refusal_rate]",)]
)
def test_it_holds_without_constraints_and_with_three_objectives(overrides: tuple[str]) -> None:
    spec = make_spec(*overrides)
    front = find_front(random_records(9), spec)
    study = project(front, spec, None)
    assert ids(study.best_trials) == sorted(item.config_id for item in front.members)


def test_the_file_is_replaced_and_reopens_equal(tmp_path: Path) -> None:
    spec, path = make_spec(), tmp_path / "study.sqlite3"
    project(find_front([make_record(identity="old")], spec), spec, path)
    front = find_front(random_records(3), spec)
    written = project(front, spec, path)
    read = open_study(path, "synthetic")
    assert ids(read.best_trials) == sorted(item.config_id for item in front.members)
    assert ids(read.trials) == ids(written.trials)
    assert "old" not in ids(read.trials)
    memory = project(front, spec, None)
    assert [t.values for t in read.trials] == [t.values for t in memory.trials]
    assert [t.params for t in read.trials] == [t.params for t in memory.trials]
    assert [t.constraints for t in read.trials] == [t.constraints for t in memory.trials]
    assert [path.name for path in tmp_path.iterdir()] == ["study.sqlite3"]


def test_ends_keep_their_meaning() -> None:
    spec = make_spec("seeds=[0, 1]")
    statuses: tuple[Status, ...] = ("complete", "failed", "pruned", "unscored")
    records = [
        make_record(identity=status, seed=seed, status=status if seed else "complete")
        for status in statuses
        for seed in (0, 1)
    ]
    records.append(make_record(identity="half", seed=0))
    trials = project(find_front(records, spec), spec, None).trials
    states = {trial.user_attrs["config_id"]: trial.state for trial in trials}
    assert states == {
        "complete": TrialState.COMPLETE,
        "failed": TrialState.FAIL,
        "pruned": TrialState.PRUNED,
        "unscored": TrialState.FAIL,
    }
    assert {t.user_attrs["status"] for t in trials if t.state == TrialState.FAIL} == {
        "failed",
        "unscored",
    }


def test_what_a_rule_stopped_breaks_its_limit_by_what_its_evidence_shows() -> None:
    spec = make_spec(
        "constraints=[{metric: over_refusal_rate, max: 0.2}, {metric: unsafe_rate, max: 0.05}]"
    )
    reason = {"rule": "race", "k": 8, "n": 32, "of": 256}
    records = [
        make_record(identity="stopped", status="pruned", reason=reason),
        make_record(identity="kept", unsafe=(0, 256)),
    ]
    trials = project(find_front(records, spec), spec, None).trials
    stopped, kept = sorted(trials, key=lambda trial: trial.state == TrialState.COMPLETE)
    assert (stopped.state, stopped.values) == (TrialState.PRUNED, None)
    assert list(stopped.constraints.values()) == [0.0, pytest.approx(0.95 + 0.25 - 0.05)]
    assert max(kept.constraints.values()) < 0


def test_the_base_model_is_no_trial() -> None:
    spec = make_spec()
    study = project(find_front(random_records(1), spec), spec, None)
    assert len(study.trials) == 40
    assert study.user_attrs["base"]["rouge_l"] == 1.0
    assert study.metric_names == ["rouge_l", "unsafe_rate"]


def test_constraints_are_the_shortfall_of_probability_and_the_excess_of_the_rate() -> None:
    spec = make_spec()
    records = [make_record(unsafe=(64, 256)), make_record(max_steps=40, unsafe=(0, 256))]
    front = find_front(records, spec)
    for item, trial in zip(front.candidates, project(front, spec, None).trials, strict=True):
        excess = 0.0 if item.feasible else item.values["unsafe_rate"] - 0.05
        assert list(trial.constraints.values()) == [0.95 - item.probability + excess]
        assert (max(trial.constraints.values()) <= 0) == item.feasible


def test_distributions_hold_both_bounds_and_give_values_back() -> None:
    spec = make_spec("space.weight_decay={low: 0.001, high: 0.1, log: true, num: 2}")
    changes = [
        {"learning_rate": 1e-5, "max_steps": 40, "weight_decay": 0.001, "average": "raw"},
        {"learning_rate": 3.7e-4, "max_steps": 80, "weight_decay": 0.02, "average": "ema(0.9)"},
        {"learning_rate": 1e-3, "max_steps": 320, "weight_decay": 0.1, "revision": "main"},
        {"adam_epsilon": 1, "lora_target_modules": ["q_proj"]},
        {"adam_epsilon": 1e-8, "lora_target_modules": ["q_proj", "v_proj"], "weight_decay": 0.01},
    ]
    front = find_front([base_record(), *(make_record(**change) for change in changes)], spec)  # type: ignore[arg-type]
    found = distributions(front.candidates, spec)
    assert found["learning_rate"] == FloatDistribution(1e-5, 1e-3, log=True)
    assert found["max_steps"] == IntDistribution(40, 320)
    assert found["adam_epsilon"] == FloatDistribution(1e-8, 1.0)
    assert found["average"] == CategoricalDistribution(["ema(0.9)", "raw"])
    assert found["revision"] == CategoricalDistribution(["main", None])
    assert "batch_size" not in found
    for item, trial in zip(front.candidates[1:], project(front, spec, None).trials, strict=True):
        for name, distribution in trial.distributions.items():
            internal = distribution.to_internal_repr(trial.params[name])
            assert distribution._contains(internal)
            assert distribution.to_external_repr(internal) == to_choice(item.config[name])


def test_log_scale_follows_the_axis_where_every_value_is_positive() -> None:
    spec = make_spec("space.weight_decay={low: 0.001, high: 0.1, log: true, num: 2}")
    records = [make_record(weight_decay=0.001), make_record(weight_decay=0.1)]
    found = distributions(find_front(records, spec).candidates, spec)
    assert found["weight_decay"] == FloatDistribution(0.001, 0.1, log=True)
    records.append(make_record(weight_decay=0.0))
    found = distributions(find_front(records, spec).candidates, spec)
    assert found["weight_decay"] == FloatDistribution(0.0, 0.1)


def test_a_whole_sweep_goes_into_a_file(tmp_path: Path) -> None:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    study = project(front, spec, tmp_path / "study.sqlite3")
    assert ids(study.best_trials) == sorted(item.config_id for item in front.members)


def test_files_that_cannot_be_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="rebuild it from the records"):
        open_study(tmp_path / "none.sqlite3", "synthetic")
