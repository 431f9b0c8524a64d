"""Short spellings of a sweep: lists as values, a number of seeds, epochs instead of steps."""

import json
from pathlib import Path

import pytest
from support.world import World, spec_text

from sweeper.errors import SpecError
from sweeper.estimate.epochs import count_epoch_rows, epochs_text
from sweeper.planning import make_plan
from sweeper.search.study import distributions
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash


def spec(world: World, *overrides: str) -> SweepSpec:
    return parse_spec(spec_text(world), overrides=overrides)


def epochs(world: World, values: str, *overrides: str) -> SweepSpec:
    return spec(world, "space.max_steps=null", f"space.num_epochs={values}", *overrides)


def ids(found: SweepSpec) -> list[str]:
    return [item.config_id for item in make_plan(found).configurations]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("space.learning_rate=[1e-3, 4e-3]", "space.learning_rate={values: [1e-3, 4e-3]}"),
        ("space.learning_rate=[1e-3]", "space.learning_rate=1e-3"),
        ("space.average=[raw, {kind: ema, decay: 0.9}]", "seeds=[0]"),
        ("space.lora_r=[2, 4]", "space.lora_r={values: [2, 4]}"),
        (
            "space.lr_scheduler_type=[linear, wsd]",
            "space.lr_scheduler_type={values: [linear, wsd]}",
        ),
        ("seeds=3", "seeds=[0, 1, 2]"),
        ("seeds=1", "seeds=[0]"),
    ],
)
def test_a_short_spelling_is_the_long_one(tiny_world: World, short: str, long: str) -> None:
    one, other = spec(tiny_world, short), spec(tiny_world, long)
    assert one == other
    assert spec_hash(one) == spec_hash(other)
    assert ids(one) == ids(other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("space.learning_rate=[]", "space.learning_rate.values: found \\[\\]"),
        ("space.learning_rate=[1e-3, 1e-3]", "values must differ, but 0.001 is given twice"),
        ("space.learning_rate=[1e-3, high]", "space.learning_rate.values.1: found 'high'"),
        ("space.batch_size=[4, [8]]", "space.batch_size.values.1: found \\[8\\]"),
        ("seeds=0", "seeds: found 0; a number of seeds from 1 to 1000 is expected"),
        ("seeds=1001", "seeds: found 1001; a number of seeds"),
        ("seeds=true", "seeds: found True; a number of seeds"),
        ("seeds=1.5", "seeds: found 1.5"),
        ("space.num_epochs=2", "give `max_steps` or `num_epochs`, one of the two, but got both"),
        (
            "space.max_steps=null",
            "give `max_steps` or `num_epochs`, one of the two, but got neither",
        ),
        ("rows_per_epoch=24", "rows_per_epoch belongs to space.num_epochs, which is not given"),
    ],
)
def test_a_wrong_one_is_a_sentence_about_its_key(
    tiny_world: World, wrong: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        spec(tiny_world, wrong)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("wrong", ["0", "-1", "[1, 0]", "many"])
def test_epochs_are_positive_numbers(tiny_world: World, wrong: str) -> None:
    with pytest.raises(SpecError, match=r"space\.num_epochs\.values"):
        epochs(tiny_world, wrong)


def test_an_epoch_is_the_rows_that_are_trained_on(tiny_world: World) -> None:
    found = epochs(tiny_world, "[0.5, 1, 2]", "space.batch_size=[4, 16]")
    with pytest.raises(SpecError, match="the rows of an epoch are not counted yet"):
        make_plan(found)
    found = count_epoch_rows(found)
    assert found.rows_per_epoch == 24
    steps = {
        (c.values["batch_size"], c.step)
        for c in make_plan(found).configurations
        if c.role == "candidate"
    }
    assert steps == {(4, 3), (4, 6), (4, 12), (16, 1), (16, 2), (16, 3)}
    assert epochs_text(found) == (
        "steps by epochs of 24 rows: 0.5 = 3, 1 = 6, 2 = 12 at batch size 4; "
        "0.5 = 1, 1 = 2, 2 = 3 at batch size 16"
    )
    assert epochs_text(spec(tiny_world)) is None
    default = next(c for c in make_plan(found).configurations if c.role == "default")
    assert default.step == 6


def test_dropped_rows_are_in_no_epoch(tiny_world: World, tmp_path: Path) -> None:
    long = [{"prompt": f"Paint it {i} " * 40, "completion": "Done."} for i in range(3)]
    text = tiny_world.train.read_text() + "".join(f"{json.dumps(row)}\n" for row in long)
    (tmp_path / "rows.jsonl").write_text(text)
    path = f"data.train.path={tmp_path / 'rows.jsonl'}"
    for how, rows in (("error", 27), ("drop", 24)):
        counted = count_epoch_rows(epochs(tiny_world, "1", path, f"data.overlong_prompts={how}"))
        assert counted.rows_per_epoch == rows


def test_steps_written_as_epochs_are_the_same_configurations(tiny_world: World) -> None:
    steps = spec(tiny_world, "space.max_steps=[3, 6]")
    same = count_epoch_rows(epochs(tiny_world, "[0.5, 1]"))
    plans = [make_plan(each) for each in (same, steps)]
    both = [
        {
            (t.trajectory_id, c.config_id)
            for t in plan.trajectories
            for c in t.configurations
            if c.role == "candidate"
        }
        for plan in plans
    ]
    assert both[0] == both[1]
    assert len(both[0]) == 8


def test_a_counted_sweep_needs_its_data_no_more(tiny_world: World) -> None:
    counted = count_epoch_rows(epochs(tiny_world, "[1, 2]"))
    again = parse_spec(dump_spec(counted))
    assert again == counted
    assert count_epoch_rows(again) is again
    assert spec_hash(again) == spec_hash(counted)
    assert spec_hash(counted) != spec_hash(count_epoch_rows(epochs(tiny_world, "[1, 3]")))
    assert "num_epochs" not in json.dumps(sorted(distributions([], counted)))


@pytest.mark.parametrize("method", ["random", "optuna"])
def test_epochs_in_a_search(tiny_world: World, method: str) -> None:
    search = (f"search={{method: {method}, n_trials: 2}}", "space.batch_size=[4, 8]")
    found = count_epoch_rows(epochs(tiny_world, "[1, 2]", *search))
    for item in make_plan(found).configurations:
        if item.role == "candidate":
            assert item.step in (24 // item.values["batch_size"], 48 // item.values["batch_size"])
