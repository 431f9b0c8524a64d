"""A task is complete and survives JSON bit for bit."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.factories import make_spec

from sweeper.errors import SweeperError
from sweeper.planning import make_plan, make_tasks
from sweeper.task import (
    TASK_VERSION,
    Average,
    OptimizerSettings,
    TrajectoryTask,
    equal_parts,
)


def tasks(*overrides: str) -> tuple[TrajectoryTask, ...]:
    spec = make_spec(*overrides)
    return make_tasks(make_plan(spec), spec, lambda path: f"/opened/{path}", "cpu")


WSD = ("space.lr_scheduler_type=wsd", "space.max_steps={values: [4, 8]}", "seeds=[3]")
ALL = [*tasks(*WSD), *tasks("tuning={method: lora}", "data.train.where={split: train}")]


def test_every_kind_of_task_reads_back_equal() -> None:
    assert {len(task.segments) for task in ALL} == {1, 3}
    assert {task.optimizer.feedback is None for task in ALL} == {True, False}
    kinds = {readout.average.kind for task in ALL for readout in task.readouts}
    assert kinds == {"raw", "ema", "interpolate"}
    for task in ALL:
        copy = TrajectoryTask.from_json(task.to_json())
        assert copy == task
        assert [item.config for item in copy.readouts] == [item.config for item in task.readouts]
        assert copy.to_json() == task.to_json()


def test_tails_and_feedback_come_back_as_their_own_types() -> None:
    fed = next(task for task in ALL if task.optimizer.feedback is not None)
    copy = TrajectoryTask.from_json(fed.to_json())
    assert copy.optimizer.feedback is not None
    assert (copy.optimizer.feedback.decay, copy.optimizer.feedback.every) == (0.9, 4)
    tailed = next(task for task in ALL if len(task.segments) == 3)
    trunk, first, second = TrajectoryTask.from_json(tailed.to_json()).segments
    assert (trunk.start, trunk.stop) == (0, 7)
    assert [(item.start, item.stop, item.decay_steps) for item in (first, second)] == [
        (3, 4, 1),
        (7, 8, 1),
    ]


@settings(max_examples=40, deadline=None)
@given(st.floats(min_value=5e-324, max_value=1e300), st.floats(min_value=0, max_value=1e300))
def test_floats_survive_bit_for_bit(rate: float, decay: float) -> None:
    optimizer = OptimizerSettings(learning_rate=rate, batch_size=1, weight_decay=decay)
    copy = TrajectoryTask.from_json(replace(ALL[0], optimizer=optimizer).to_json())
    assert copy.optimizer.learning_rate.hex() == rate.hex()
    assert copy.optimizer.weight_decay.hex() == decay.hex()


def test_a_task_with_a_number_that_is_none_is_not_written() -> None:
    optimizer = OptimizerSettings(learning_rate=math.nan, batch_size=1)
    with pytest.raises(ValueError, match="JSON"):
        replace(ALL[0], optimizer=optimizer).to_json()


def test_text_that_is_not_json_is_refused_with_the_way_out() -> None:
    with pytest.raises(SweeperError, match=r"not JSON.*sweeper plan"):
        TrajectoryTask.from_json("{")


@pytest.mark.parametrize("version", [0, TASK_VERSION + 1, None, "1"])
def test_another_version_is_refused_before_the_fields_are_looked_at(version: Any) -> None:
    with pytest.raises(
        SweeperError, match=rf"version {version!r} is unknown.*reads {TASK_VERSION}"
    ):
        TrajectoryTask.from_json(json.dumps({"version": version, "nonsense": 1}))


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "{}", "null"])
def test_json_that_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(SweeperError, match="version None is unknown"):
        TrajectoryTask.from_json(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("unknown", 1),
        ("optimizer", {"learning_rate": 1.0, "batch_size": 1, "momentum": 0.9}),
        ("optimizer", "text"),
        ("readouts", [{"step": 1}]),
        ("readouts", ["ab"]),
        ("data", None),
        ("segments", [[0, 1]]),
    ],
)
def test_unknown_or_malformed_fields_are_refused(key: str, value: Any) -> None:
    raw = {**json.loads(ALL[0].to_json()), key: value}
    with pytest.raises(SweeperError, match="does not have the expected fields"):
        TrajectoryTask.from_json(json.dumps(raw))


def test_a_missing_field_is_refused_by_name() -> None:
    raw = json.loads(ALL[0].to_json())
    del raw["seed"]
    with pytest.raises(SweeperError, match="expected fields: TrajectoryTask: seed"):
        TrajectoryTask.from_json(json.dumps(raw))


def test_reading_a_file_says_which_one_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    with pytest.raises(SweeperError, match=r"cannot read the task .*task\.json"):
        TrajectoryTask.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SweeperError, match=r"task\.json is not UTF-8"):
        TrajectoryTask.read(path)
    path.write_text(ALL[0].to_json())
    assert TrajectoryTask.read(path) == ALL[0]


@pytest.mark.parametrize(
    ("average", "label"),
    [
        (Average(), "raw"),
        (Average("ema", decay=0.99), "ema(0.99)"),
        (Average("interpolate", weight=0.5), "interpolate(0.5)"),
    ],
)
def test_an_average_is_labelled_as_people_write_it(average: Average, label: str) -> None:
    assert average.label == label


@pytest.mark.parametrize(
    ("fields", "law"),
    [
        ({"kind": "ema"}, "`decay` belongs to `ema` only"),
        ({"kind": "raw", "decay": 0.9}, "`decay` belongs to `ema` only"),
        ({"kind": "interpolate"}, "`weight` belongs to `interpolate` only"),
        ({"kind": "ema", "decay": 0.9, "weight": 0.5}, "`weight` belongs to `interpolate` only"),
    ],
)
def test_an_average_without_its_own_number_cannot_be_made(fields: dict[str, Any], law: str) -> None:
    with pytest.raises(SweeperError, match=law):
        Average(**fields)


def test_parts_are_few_nearly_equal_and_in_order() -> None:
    assert equal_parts(range(7), 3) == [range(2), range(2, 4), range(4, 7)]
    assert equal_parts("abcd", 4) == ["abcd"]
    assert equal_parts([], 4) == []
