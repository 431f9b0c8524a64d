"""The Optuna study against the front it was made from."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from support.dashboard import best_ids, shown_study
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import Front, find_front
from sweeper.runs.migrate import migrate
from sweeper.search.live_study import update_journal
from sweeper.search.study import CONSTRAINTS, distributions, to_choice, write_study
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import Status, TrialRecord, read_records

STATUSES: tuple[Status, ...] = ("complete", "failed", "pruned", "unscored")


def random_records(seed: int, seeds: int = 1, unsafe: int = 12) -> list[TrialRecord]:
    """Ties, duplicates, infeasible ones, every status, controls, and an unbeatable base model."""
    rng = np.random.default_rng(seed)
    records = [base_record(utility=1.0, unsafe=(0, 256), seed=s) for s in range(seeds)]
    for index in range(40):
        hyper: dict[str, Any] = {
            "learning_rate": float(rng.choice([5e-5, 2e-4, 1e-3])),
            "max_steps": int(rng.choice([40, 80, 320])),
            "average": str(rng.choice(["raw", "ema(0.99)"])),
        }
        control = index % 8 == 0
        if control:
            hyper |= {"learning_rate": 2e-5, "lr_scheduler_type": "linear"}
        for s in range(seeds):
            if rng.random() < 0.95:
                records.append(
                    make_record(
                        identity=f"c{index}",
                        role="default" if control else "candidate",
                        status=STATUSES[rng.choice(4, p=[0.7, 0.1, 0.1, 0.1])],
                        unsafe=(int(rng.integers(0, unsafe)), 256),
                        utility=float(rng.integers(0, 8)) / 8,
                        seed=s,
                        **hyper,
                    )
                )
    order = rng.permutation(len(records))
    return [records[index] for index in order]


def ids(trials: list[FrozenTrial]) -> list[str]:
    return sorted(trial.user_attrs["config_id"] for trial in trials)


def on_front(front: Front) -> list[str]:
    return sorted(item.config_id for item in front.members)


def is_feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def same_for_all(path: Path, front: Front, spec: SweepSpec) -> optuna.Study:
    """Optuna in memory, the journal and optuna-dashboard name the members of the front, each once."""
    memory = write_study(front, spec)
    journal = update_journal(path, front, spec)
    assert ids(memory.best_trials) == ids(journal.best_trials) == on_front(front)
    _, detail = shown_study(path, spec.name)
    assert len(detail["best_trials"]) == len(front.members)
    assert best_ids(detail) == set(on_front(front))
    assert all(value <= 0 for trial in detail["best_trials"] for value in trial["constraints"])
    return memory


@pytest.mark.parametrize("seed", range(6))
def test_best_trials_are_the_members_of_the_front(seed: int, tmp_path: Path) -> None:
    spec = make_spec()
    front = find_front(random_records(seed), spec)
    assert len(front.members) > 0
    same_for_all(tmp_path / "study", front, spec)


@pytest.mark.parametrize(
    "overrides",
    [
        ("constraints=[]",),
        ("objectives=[rouge_l, unsafe_rate, over_refusal_rate]",),
        ("seeds=[0, 1]",),
        ("seeds=[0, 1]", "constraints=[{metric: unsafe_rate, max: 0.04, confidence: 0.8}]"),
        ("constraints=[{metric: unsafe_rate, max: 0.05}, {metric: over_refusal_rate, max: 0.3}]",),
    ],
)
def test_it_holds_for_other_constraints_objectives_and_seeds(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    spec = make_spec(*overrides)
    for seed in (9, 10, 11):
        front = find_front(random_records(seed, len(spec.seeds)), spec)
        same_for_all(tmp_path / f"study-{seed}", front, spec)


def test_where_nothing_is_feasible_nothing_is_best(tmp_path: Path) -> None:
    spec = make_spec("constraints=[{metric: unsafe_rate, max: 0.001}]")
    front = find_front(random_records(2), spec)
    assert len(front.competing) > 0 and front.members == ()
    study = same_for_all(tmp_path / "study", front, spec)
    assert study.get_trials(states=[TrialState.COMPLETE]) == []


def test_equal_configurations_are_all_best(tmp_path: Path) -> None:
    spec = make_spec()
    records = [make_record(identity=name, unsafe=(1, 256)) for name in ("one", "two", "three")]
    records.append(make_record(identity="worse", unsafe=(2, 256)))
    study = same_for_all(tmp_path / "study", find_front(records, spec), spec)
    assert ids(study.best_trials) == ["one", "three", "two"]


@pytest.mark.parametrize("name", ["first", "0.1.0", "without-samples"])
@pytest.mark.parametrize("constrained", [True, False])
def test_it_holds_for_runs_that_were_measured(name: str, constrained: bool, tmp_path: Path) -> None:
    """They refuse nothing, so that without constraints alone there is a front."""
    shutil.copytree(Path(__file__).parents[1] / "golden" / name, tmp_path / "run")
    migrate(RunFolder(tmp_path / "run"), write=True)
    records = read_records(tmp_path / "run" / "records.jsonl").records
    spec = make_spec(
        f"objectives=[{', '.join(records[0].objectives)}]",
        *(() if constrained else ("constraints=[]",)),
    )
    front = find_front(records, spec)
    assert {item.excluded for item in front.candidates[1:]} == {None}
    assert (front.members == ()) == constrained
    same_for_all(tmp_path / "study", front, spec)


def test_a_whole_sweep_with_its_controls(tmp_path: Path) -> None:
    spec = make_spec()
    front = find_front(make_sweep(), spec)
    study = same_for_all(tmp_path / "study", front, spec)
    members = {item.config_id for item in front.members}
    controls = [trial for trial in study.trials if trial.user_attrs["role"] != "candidate"]
    assert {trial.user_attrs["config_id"] for trial in controls} <= members
    assert len(study.trials) == 135 + len(controls)
    assert len({tuple(trial.distributions.items()) for trial in study.trials}) == 1


def test_a_control_is_a_trial_only_where_it_is_on_the_front(tmp_path: Path) -> None:
    spec = make_spec()
    twin: dict[str, Any] = {"role": "interpolation_control", "average": "interpolate(0.0402)"}
    records = [
        make_record(identity="candidate", unsafe=(2, 256), utility=0.8),
        make_record(identity="worse", unsafe=(3, 256), utility=0.5, **twin),
        make_record(identity="better", unsafe=(1, 256), utility=0.7, **twin),
    ]
    study = same_for_all(tmp_path / "study", find_front(records, spec), spec)
    assert ids(study.trials) == ["better", "candidate"]
    records.append(make_record(identity="best", unsafe=(0, 256), utility=0.9))
    study = same_for_all(tmp_path / "study", find_front(records, spec), spec)
    assert ids(study.trials) == ["best", "candidate"]
    labels = study.trials[0].distributions["average"]
    assert isinstance(labels, CategoricalDistribution)
    assert "interpolate(0.0402)" not in labels.choices


def test_statuses_keep_their_meaning() -> None:
    spec = make_spec("seeds=[0, 1]")
    records = [
        make_record(identity=status, seed=seed, status=status if seed else "complete")
        for status in STATUSES
        for seed in (0, 1)
    ]
    records.append(make_record(identity="half", seed=0))
    records.append(make_record(identity="half failed", seed=0, status="failed"))
    records += [make_record(identity="unsafe", seed=seed, unsafe=(200, 256)) for seed in (0, 1)]
    trials = write_study(find_front(records, spec), spec).trials
    states = {trial.user_attrs["config_id"]: trial.state for trial in trials}
    assert states == {
        "complete": TrialState.COMPLETE,
        "failed": TrialState.FAIL,
        "pruned": TrialState.PRUNED,
        "unsafe": TrialState.PRUNED,
        "unscored": TrialState.FAIL,
    }
    found = {trial.user_attrs["config_id"]: trial for trial in trials}
    assert [found[name].user_attrs["status"] for name in ("failed", "unscored", "unsafe")] == [
        "failed",
        "unscored",
        "complete",
    ]
    assert found["unsafe"].values == [0.85, 200 / 256]
    assert found["pruned"].values is None
    assert [name for name in found if found[name].user_attrs["feasible"]] == ["complete"]


def test_values_are_means_over_seeds_and_constraints_of_the_worst_seed() -> None:
    spec = make_spec("seeds=[0, 1]")
    records = [
        make_record(identity="a", seed=0, utility=0.5, unsafe=(0, 256)),
        make_record(identity="a", seed=1, utility=0.7, unsafe=(20, 256)),
    ]
    front = find_front(records, spec)
    (trial,) = write_study(front, spec).trials
    assert trial.values == [pytest.approx(0.6), 10 / 256]
    assert trial.state == TrialState.PRUNED  # Its mean rate, 0.039, is below the limit of 0.05.
    assert list(trial.constraints.values()) == [0.95 - front.candidates[0].probability]


def test_what_a_rule_stopped_breaks_its_limit_by_what_its_evidence_shows() -> None:
    spec = make_spec(
        "constraints=[{metric: over_refusal_rate, max: 0.2}, {metric: unsafe_rate, max: 0.05}]"
    )
    reason = {"rule": "race", "k": 8, "n": 32, "of": 256}
    records = [
        make_record(identity="stopped", status="pruned", reason=reason),
        make_record(identity="kept", unsafe=(0, 256)),
    ]
    trials = write_study(find_front(records, spec), spec).trials
    stopped, kept = sorted(trials, key=lambda trial: trial.state == TrialState.COMPLETE)
    assert (stopped.state, stopped.values) == (TrialState.PRUNED, None)
    assert list(stopped.constraints.values()) == [0.0, pytest.approx(0.95 + 0.25 - 0.05)]
    assert max(kept.constraints.values()) < 0


def test_the_base_model_is_no_trial() -> None:
    spec = make_spec()
    study = write_study(find_front(make_sweep(), spec), spec)
    assert "base" not in {trial.user_attrs["role"] for trial in study.trials}
    assert study.user_attrs["base"]["rouge_l"] == 0.31
    assert study.metric_names == ["rouge_l", "unsafe_rate"]


def test_constraints_are_the_shortfall_of_probability_and_the_excess_of_the_rate() -> None:
    spec = make_spec()
    records = [make_record(unsafe=(64, 256)), make_record(max_steps=40, unsafe=(0, 256))]
    front = find_front(records, spec)
    study = write_study(front, spec)
    assert study.user_attrs[CONSTRAINTS] == ["P(unsafe_rate <= 0.05) >= 0.95"]
    for item, trial in zip(front.candidates, study.trials, strict=True):
        excess = 0.0 if item.feasible else item.values["unsafe_rate"] - 0.05
        assert list(trial.constraints.values()) == [0.95 - item.probability + excess]
        assert trial.system_attrs[CONSTRAINTS] == list(trial.constraints.values())
        assert is_feasible(trial) == item.feasible == trial.user_attrs["feasible"]


@pytest.mark.parametrize("unsafe", range(12))
def test_a_trial_is_complete_exactly_where_the_recommendation_calls_it_feasible(
    unsafe: int,
) -> None:
    """On both sides of the threshold, which lies between 6 and 7 of 256."""
    spec = make_spec()
    front = find_front([make_record(unsafe=(unsafe, 256))], spec)
    (trial,) = write_study(front, spec).trials
    feasible = front.candidates[0].probability >= 0.95
    assert feasible == (unsafe <= 6)
    assert (trial.state == TrialState.COMPLETE) == is_feasible(trial) == feasible


def test_distributions_are_those_of_the_spec() -> None:
    spec = make_spec("space.weight_decay={low: 0.001, high: 0.1, log: true, num: 2}")
    found = distributions((), spec)
    assert found == {
        "learning_rate": FloatDistribution(5e-5, 1e-3, log=True),
        "batch_size": IntDistribution(8, 16),
        "max_steps": IntDistribution(40, 320),
        "average": CategoricalDistribution(
            ["ema(0.95)", "ema(0.99)", "feedback(0.9, every=4)", "interpolate(0.5)", "raw"]
        ),
        "weight_decay": FloatDistribution(0.001, 0.1, log=True),
    }
    inside = [make_record(learning_rate=2e-4, average="ema(0.99)", weight_decay=0.02)]
    assert distributions(find_front(inside, spec).candidates, spec) == found


def test_a_share_of_the_steps_is_no_axis_of_its_own() -> None:
    spec = make_spec("space.warmup_steps=0.1", "space.lr_scheduler_type=linear")
    records = [make_record(max_steps=40, warmup_steps=4), make_record(max_steps=80, warmup_steps=8)]
    assert "warmup_steps" not in distributions(find_front(records, spec).candidates, spec)
    spec = make_spec("space.warmup_steps={values: [0, 0.1]}", "space.lr_scheduler_type=linear")
    found = distributions(find_front(records, spec).candidates, spec)
    assert found["warmup_steps"] == IntDistribution(4, 8)


def test_distributions_hold_both_bounds_and_give_values_back() -> None:
    spec = make_spec("space.weight_decay={low: 0.001, high: 0.1, log: true, num: 2}")
    changes = [
        {"learning_rate": 1e-5, "max_steps": 40, "weight_decay": 0.001, "average": "raw"},
        {"learning_rate": 3.7e-4, "max_steps": 80, "weight_decay": 0.02, "average": "ema(0.9)"},
        {"learning_rate": 1e-3, "max_steps": 320, "weight_decay": 0.1, "revision": "main"},
        {"adam_epsilon": 1, "lora_target_modules": ["q_proj"]},
        {"adam_epsilon": 1e-8, "lora_target_modules": ["q_proj", "v_proj"], "weight_decay": 0.01},
    ]
    front = find_front([make_record(**change) for change in changes], spec)  # type: ignore[arg-type]
    found = distributions(front.candidates, spec)
    assert found["learning_rate"] == FloatDistribution(1e-5, 1e-3, log=True)
    assert found["max_steps"] == IntDistribution(40, 320)
    assert found["adam_epsilon"] == FloatDistribution(1e-8, 1.0)
    averages = found["average"]
    assert isinstance(averages, CategoricalDistribution)
    assert {"ema(0.9)", "raw"} < {*averages.choices}
    assert found["revision"] == CategoricalDistribution(["main", None])
    assert "dtype" not in found
    for item, trial in zip(front.candidates, write_study(front, spec).trials, strict=True):
        assert trial.distributions.keys() == found.keys() & item.config.keys()
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
