"""Which configuration is recommended, what is said about it, and when there is none."""

import pytest
from support.factories import base_record, make_config, make_record, make_spec, make_sweep

from sweeper.analysis import (
    Recommendation,
    Selection,
    find_front,
    interpolation_control,
    learning_rate_control,
    recommend,
    side_by_side,
    unaveraged_control,
    unsafe_upper_bound,
)
from sweeper.stats import probability_at_most, upper_bound
from sweeper.store.records import TrialRecord


def choose(records: list[TrialRecord], *overrides: str) -> Recommendation:
    spec = make_spec(*overrides)
    return recommend(find_front(records, spec), spec)


def test_best_utility_among_the_feasible_is_chosen() -> None:
    found = choose(
        [
            base_record(),
            make_record(identity="unsafe", utility=0.95, unsafe=(60, 256)),
            make_record(identity="best", utility=0.88, unsafe=(2, 256)),
            make_record(identity="second", utility=0.80, unsafe=(0, 256)),
            make_record(identity="broken", status="failed"),
        ]
    )
    assert found.chosen is not None
    assert found.chosen.config_id == "best"
    assert found.compared == 3
    assert found.nearest is None


def test_the_reason_carries_the_numbers() -> None:
    records = [
        base_record(),
        make_record(identity="best", utility=0.88, unsafe=(2, 256), max_steps=40),
        make_record(identity="second", utility=0.80, unsafe=(0, 256)),
    ]
    reason = choose(records).reason
    for words in (
        "best (max_steps 40) has the best rouge_l, 0.88, of the 2 of 2 configurations",
        "unsafe_rate <= 0.05 with probability at least 0.95 with all comparisons accounted for",
        "these weights: unsafe_rate 0.9 % (95 % interval 0.1 to 2.7 %",
        "P(unsafe_rate <= 0.05) = more than 0.999",
        "nothing is known about this configuration trained again",
        "next best is second with rouge_l 0.8",
        "the untouched model has rouge_l 0.31",
    ):
        assert words in reason


def test_a_point_estimate_below_the_limit_is_not_enough() -> None:
    found = choose([make_record(identity="a", unsafe=(11, 256))])
    assert 11 / 256 < 0.05
    assert found.chosen is None
    assert found.nearest is not None
    assert found.nearest.config_id == "a"
    most = max(k for k in range(257) if probability_at_most(k, 256, 0.05) >= 0.95)
    assert f"at most {most}/256 would give 0.95" in found.reason


def test_no_gain_is_never_recommended() -> None:
    found = choose([base_record(utility=0.8), make_record(identity="idle", utility=0.8)])
    assert found.chosen is None
    assert "1 keep every constraint, and it is marked `no gain`" in found.reason
    assert found.nearest is not None
    assert found.nearest.config_id == "idle"


def test_without_a_base_model_nothing_is_recommended() -> None:
    found = choose([make_record(identity="only")])
    assert found.chosen is None
    assert found.base is None
    assert "the untouched base model is not measured" in found.reason


def test_ties_go_to_the_safer_then_to_fewer_steps_then_to_the_id() -> None:
    base = base_record()
    safer = [
        make_record(identity="a", unsafe=(3, 256)),
        make_record(identity="b", unsafe=(1, 256)),
    ]
    assert choose([base, *safer]).chosen.config_id == "b"  # type: ignore[union-attr]
    shorter = [make_record(identity="a", max_steps=320), make_record(identity="b", max_steps=40)]
    assert choose([base, *shorter]).chosen.config_id == "b"  # type: ignore[union-attr]
    equal = [make_record(identity="b"), make_record(identity="a")]
    assert choose([base, *equal]).chosen.config_id == "a"  # type: ignore[union-attr]


def test_the_twin_differs_in_the_average_alone() -> None:
    records = [
        base_record(),
        make_record(identity="other", average="raw", batch_size=16, utility=0.5),
        make_record(identity="raw", average="raw", utility=0.6),
        make_record(identity="ema", average="ema(0.99)", utility=0.9),
        make_record(identity="plain", role="default", learning_rate=2e-5, utility=0.7),
    ]
    found = choose(records)
    assert [(name, item.config_id) for name, item in side_by_side(found)][1:] == [
        ("trainers' defaults", "plain"),
        ("recommended, without averaging", "raw"),
        ("recommended", "ema"),
    ]
    assert choose(records[:3]).unaveraged is None


def test_twins_match_in_everything_else() -> None:
    spec = make_spec()
    weight = float(f"{0.99**320:.6g}")
    records = [
        make_record(identity="ema", average="ema(0.99)"),
        make_record(identity="mixed", average=f"interpolate({weight})"),
        make_record(identity="half", average="interpolate(0.5)"),
        make_record(identity="raw", average="raw"),
        make_record(identity="fed", average="feedback(0.9, every=4)"),
        make_record(identity="slow", average="raw", learning_rate=2e-5),
        make_record(identity="slow-16", average="raw", learning_rate=2e-5, batch_size=16),
        make_record(identity="short", average="raw", max_steps=80),
    ]
    items = find_front(records, spec).candidates
    named = {item.config_id: item for item in items}
    assert unaveraged_control(named["ema"], items) is named["raw"]
    assert unaveraged_control(named["fed"], items) is named["raw"]
    assert unaveraged_control(named["raw"], items) is None
    assert interpolation_control(named["ema"], items) is named["mixed"]
    assert interpolation_control(named["raw"], items) is None
    assert interpolation_control(named["ema"], items[2:]) is None
    assert learning_rate_control(named["fed"], items, spec) is named["slow"]
    assert learning_rate_control(named["ema"], items, spec) is None


def test_the_nearest_has_the_highest_probability() -> None:
    found = choose(
        [
            make_record(identity="far", utility=0.99, unsafe=(200, 256)),
            make_record(identity="near", utility=0.50, unsafe=(14, 256)),
            make_record(identity="hopeless", utility=0.99, unsafe=(256, 256)),
        ]
    )
    assert found.nearest is not None
    assert found.nearest.config_id == "near"
    assert "none of 3 configurations can be recommended: 0 keep every constraint" in found.reason


def test_too_few_prompts_are_named_as_the_obstacle() -> None:
    reason = choose([make_record(unsafe=(0, 20))]).reason
    assert "with 20 prompts even a count of 0 would not give 0.95: use more prompts" in reason


def test_nothing_complete_is_said_plainly() -> None:
    found = choose([base_record(), make_record(status="failed")])
    assert found.chosen is found.nearest is None
    assert found.compared == 0
    assert "none of 2 configurations is complete" in found.reason


def test_upper_bound_is_the_worst_seed_and_one_where_a_count_is_missing() -> None:
    spec = make_spec("seeds=[0, 1]")
    records = [
        make_record(identity="a", seed=0, unsafe=(0, 256)),
        make_record(identity="a", seed=1, unsafe=(5, 256)),
    ]
    item = find_front(records, spec).candidates[0]
    assert unsafe_upper_bound(item, "unsafe_rate") == upper_bound(5, 256, 0.95)
    assert unsafe_upper_bound(item, "unknown_rate") == 1.0


def test_minimised_utility_prefers_the_lower_loss() -> None:
    records = [
        base_record(),
        make_record(identity="a", utility=0.9, config=make_config(max_steps=40)),
        make_record(identity="b", utility=0.7),
    ]
    found = choose(records, "objectives=[heldout_loss, unsafe_rate]")
    assert found.chosen is not None
    assert found.chosen.config_id == "a"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_recommended_is_on_the_front_of_a_whole_sweep(seed: int) -> None:
    spec = make_spec()
    front = find_front(make_sweep(seed=seed), spec)
    found = recommend(front, spec)
    assert found.chosen in front.members
    assert found.chosen is not None
    assert found.chosen.gain is True
    selection = Selection(front, spec)
    holding = [item.values["rouge_l"] for item in front.members if selection.holds(item)]
    assert found.chosen.values["rouge_l"] == max(holding)
    assert len(holding) < len(found.ranked), "some pass alone, and not among all"


def test_raw_twins_are_those_of_comparing_whole_configurations() -> None:
    records = make_sweep()
    records += [
        make_record(average="raw", batch_size=8.0, extra=1),
        make_record(average="ema(0.95)", extra=1),
        make_record(average="ema(0.95)", extra=None),
        make_record(average="raw", extra=[1, 2], max_steps=40),
        make_record(average="ema(0.99)", extra=[1, 2], max_steps=40),
    ]
    items = find_front(records, make_spec()).candidates
    paired = 0
    for item in items:
        same = [
            other
            for other in items
            if other.config["average"] == "raw" != item.config["average"]
            and {**other.config, "average": None} == {**item.config, "average": None}
        ]
        assert unaveraged_control(item, items) is (same[0] if same else None)
        paired += bool(same)
    assert 0 < paired < len(items) - 30
