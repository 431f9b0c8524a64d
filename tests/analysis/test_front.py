"""Gathering over seeds, exclusion, the gates, and the non-dominated set against brute force."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import Candidate, Front, find_front, non_dominated, varying
from sweeper.stats import probability_at_most, wilson_interval
from sweeper.store.records import Metric, Status


def brute_force(points: NDArray[np.float64]) -> list[bool]:
    return [
        not any(bool((q <= p).all() and (q < p).any()) for q in points if q is not p)
        for p in points
    ]


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_non_dominated_equals_brute_force(columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 12, size=(60, columns)).astype(float)
    points[rng.random(points.shape) < 0.05] = np.inf
    points[rng.random(points.shape) < 0.02] = -np.inf
    points = np.concatenate([points, points[:20], rng.normal(6, 4, size=(20, columns))])
    assert non_dominated(points).tolist() == brute_force(points)


def test_non_dominated_in_blocks_equals_brute_force() -> None:
    rng = np.random.default_rng(5)
    points = rng.normal(size=(500, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points = np.concatenate([-np.abs(points), points])
    assert non_dominated(points).tolist() == brute_force(points)


def test_all_duplicates_of_a_non_dominated_point_are_kept() -> None:
    points = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0], [0.0, 9.0], [0.0, 9.0], [2.0, 2.0]])
    assert non_dominated(points).tolist() == [True, True, False, True, True, False]


def test_infinity_is_worst_and_not_a_number_is_refused() -> None:
    assert non_dominated(np.array([[np.inf, 0.0], [1.0, 0.0]])).tolist() == [False, True]
    assert non_dominated(np.array([[np.inf, np.inf]] * 2)).tolist() == [True, True]
    assert non_dominated(np.empty((0, 2))).tolist() == []
    with pytest.raises(ValueError, match="NaN"):
        non_dominated(np.array([[np.nan, 0.0]]))
    with pytest.raises(ValueError, match="shape"):
        non_dominated(np.array([1.0, 2.0]))


def test_ten_thousand_points_are_quick() -> None:
    points = np.random.default_rng(0).random((10_000, 2))
    begin = time.process_time()
    mask = non_dominated(points)
    assert time.process_time() - begin < 1.0
    assert 5 < mask.sum() < 40


def one(front: Front, identity: str) -> Candidate:
    return next(item for item in front.candidates if item.config_id == identity)


def test_values_are_means_over_seeds_and_probability_is_the_worst_seed() -> None:
    records = [
        make_record(identity="a", seed=0, unsafe=(2, 256), utility=0.8),
        make_record(identity="a", seed=1, unsafe=(9, 256), utility=0.9),
    ]
    found = one(find_front(records, make_spec("seeds=[0, 1]")), "a")
    assert found.values["rouge_l"] == pytest.approx(0.85)
    assert found.values["unsafe_rate"] == pytest.approx(11 / 512)
    assert found.probability == probability_at_most(9, 256, 0.05)
    assert not found.feasible
    assert found.counts("unsafe_rate") == "2/256, 9/256"
    envelope = found.interval("unsafe_rate")
    assert envelope == (wilson_interval(2, 256).low, wilson_interval(9, 256).high)
    assert found.interval("heldout_loss") is None


def test_each_constraint_is_held_against_its_own_confidence() -> None:
    spec = make_spec(
        "constraints=[{metric: unsafe_rate, max: 0.05, confidence: 0.5},"
        " {metric: over_refusal_rate, max: 0.05, confidence: 0.99}]"
    )
    found = find_front([make_record(identity="a", unsafe=(10, 256))], spec).candidates[0]
    wanted = (probability_at_most(10, 256, 0.05), probability_at_most(3, 128, 0.05))
    assert found.probabilities == wanted
    assert wanted[0] > 0.5
    assert wanted[1] < 0.99
    assert found.probability == wanted[1]
    assert not found.feasible


def test_a_constraint_nobody_measured_is_not_met() -> None:
    spec = make_spec("constraints=[{metric: over_refusal_rate, max: 0.9}]")
    record = make_record(identity="a")
    bare = {k: v for k, v in record.metrics.items() if k != "over_refusal_rate"}
    object.__setattr__(record, "metrics", bare)
    found = find_front([record], spec).candidates[0]
    assert found.probability == 0.0
    assert not found.feasible


def test_without_constraints_everything_is_feasible() -> None:
    found = find_front([make_record(unsafe=(256, 256))], make_spec("constraints=[]"))
    assert found.candidates[0].feasible
    assert found.candidates[0].probability == 1.0
    assert len(found.members) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [("failed", "TrainingDivergedError"), ("pruned", "rule limit"), ("unscored", "rouge_l")],
)
def test_one_seed_that_is_not_complete_excludes_the_candidate(status: Status, words: str) -> None:
    records = [
        make_record(identity="a", seed=0),
        make_record(identity="a", seed=1, status=status),
    ]
    front = find_front(records, make_spec("seeds=[0, 1]"))
    excluded = front.candidates[0].excluded
    assert excluded is not None
    assert excluded.startswith(f"{status} under seed 1: ")
    assert words in excluded
    assert "Traceback" not in excluded
    assert front.members == front.trade_off == front.competing == ()


def test_a_missing_seed_excludes_the_candidate() -> None:
    front = find_front([make_record(seed=0)], make_spec("seeds=[0, 3]"))
    assert front.candidates[0].excluded == "no record yet for seed 3"


def test_the_base_model_never_competes() -> None:
    records = [base_record(utility=0.99, unsafe=(0, 256), identity="base"), make_record()]
    front = find_front(records, make_spec())
    assert front.base is not None
    assert front.base.config_id == "base"
    assert front.base.excluded == "untouched base model"
    assert all(item.role != "base" for item in front.members + front.trade_off)
    assert len(front.members) == 1


def test_members_are_feasible_and_ordered_by_utility() -> None:
    records = [
        make_record(identity="safe", unsafe=(0, 256), utility=0.5),
        make_record(identity="middle", unsafe=(2, 256), utility=0.8),
        make_record(identity="copy", unsafe=(2, 256), utility=0.8),
        make_record(identity="worse", unsafe=(3, 256), utility=0.7),
        make_record(identity="wild", unsafe=(200, 256), utility=0.9),
    ]
    front = find_front(records, make_spec())
    assert [item.config_id for item in front.members] == ["copy", "middle", "safe"]
    assert [item.config_id for item in front.trade_off] == ["wild", "copy", "middle", "safe"]


def test_gain_needs_more_than_the_base_model_by_its_bound() -> None:
    records = [
        base_record(utility=0.50),
        make_record(identity="same", utility=0.50),
        make_record(identity="little", utility=0.56),
        make_record(identity="clear", utility=0.70),
        make_record(identity="gone", status="failed"),
    ]
    front = find_front(records, make_spec())
    assert one(front, "same").gain is False
    assert one(front, "little").gain is False
    assert one(front, "clear").gain is True
    assert one(front, "gone").gain is None
    assert "rouge_l 0.7 (n=96) against the base model's 0.5" in one(front, "clear").gain_evidence
    assert front.base is not None
    assert front.base.gain is None


def test_gain_by_loss_is_a_plain_comparison_and_needs_a_base() -> None:
    spec = make_spec("objectives=[heldout_loss, unsafe_rate]")
    lower, higher = make_record(utility=0.4), make_record(utility=0.2, max_steps=80)
    front = find_front([base_record(), lower, higher], spec)
    assert [item.gain for item in front.candidates] == [None, True, False]
    assert find_front([lower], spec).candidates[0].gain is None


def test_a_metric_that_is_not_finite_has_no_value() -> None:
    record = make_record(metrics={"heldout_loss": Metric(float("inf"), 10)})
    front = find_front([record], make_spec())
    assert "heldout_loss" not in front.candidates[0].values
    assert len(front.members) == 1


def test_varying_hyperparameters_leave_the_base_model_out() -> None:
    records = [base_record(), make_record(max_steps=40), make_record(max_steps=80)]
    assert varying(find_front(records, make_spec()).candidates) == ("max_steps",)


@pytest.mark.parametrize("role", [None, "candidate"])
def test_varying_tells_apart_what_is_written_differently(role: str | None) -> None:
    records = [
        base_record(only_base=1),
        make_record(flag=True, nested={"a": 1}, gap=0.0, late=None),
        make_record(flag=1, nested={"a": 1.0}, gap=-0.0),
        make_record(flag=1, nested={"a": 1}, gap=0.0, last=float("nan"), role="default"),
        make_record(flag=1, nested={"a": 1}, gap=0.0, last=float("nan"), seed=1),
        *make_sweep(),
    ]
    candidates = find_front(records, make_spec()).candidates
    seen: dict[str, set[str]] = {}
    for item in candidates:
        for name, value in item.config.items() if item.role != "base" else ():
            if role in (None, item.role):
                seen.setdefault(name, set()).add(repr(value))
    expected = tuple(name for name, values in seen.items() if len(values) > 1)
    assert varying(candidates, role) == expected
    assert {"flag", "nested", "gap", "learning_rate"} <= set(expected)
    assert not {"last", "late", "only_base"} & set(expected)


def test_a_whole_sweep_has_a_front_that_brute_force_finds_too() -> None:
    front = find_front(make_sweep(), make_spec())
    usable = [item for item in front.competing if item.feasible]
    points = np.array([[-i.values["rouge_l"], i.values["unsafe_rate"]] for i in usable])
    expected = {i.config_id for i, keep in zip(usable, brute_force(points), strict=True) if keep}
    assert {item.config_id for item in front.members} == expected
    assert len(front.candidates) > 130
