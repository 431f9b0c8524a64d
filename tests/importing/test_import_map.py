"""A map is guessed from names and values, written as YAML and read back; rows outside it are refused."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.data_samples import SHARED, needs_real_rows

from sweeper.errors import DataError, SpecError
from sweeper.importing.detect import read_table
from sweeper.importing.guess import Guess, guess_map
from sweeper.importing.known import known_metric
from sweeper.importing.mapping import (
    ConstraintMap,
    ImportMap,
    MetricMap,
    load_map,
    map_text,
    metric_value,
)
from sweeper.importing.table import ForeignRow, ForeignTable


def table_of(*rows: Mapping[str, object], **said: object) -> ForeignTable:
    found = tuple(ForeignRow(f"runs.csv:{i}", row) for i, row in enumerate(rows, start=2))
    return ForeignTable("csv", Path("my runs.csv"), found)._replace(**said)  # type: ignore[arg-type]


def guess(*rows: Mapping[str, object], **said: object) -> Guess:
    return guess_map(table_of(*rows, **said))


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("accuracy", "maximize"),
        ("eval/Rouge-L", "maximize"),
        ("valid accuracy", "maximize"),
        ("chrf", "maximize"),
        ("sacrebleu", "maximize"),
        ("pass_at_1", "maximize"),
        ("train_samples_per_second", "maximize"),
        ("eval_loss", "minimize"),
        ("word_perplexity", "minimize"),
        ("forgetting", "minimize"),
        ("unsafe_rate", "minimize"),
        ("over_refusal_rate", "minimize"),
        ("strong_reject_score", "minimize"),
        ("accelerator_memory_max", "minimize"),
        ("train_runtime", "minimize"),
        ("refusal_rate", None),
        ("harmful_refusal_rate", None),
        ("acc_stderr", None),
        ("start_time", None),
        ("member", None),
        ("rate", None),
        ("score", None),
    ],
)
def test_a_name_determines_a_direction_or_none(name: str, direction: str | None) -> None:
    known = known_metric(name)
    assert (known.direction if known else None) == direction


def test_settings_metrics_seed_and_step_are_told_apart() -> None:
    rows = [
        {"lr": lr, "method": m, "seed": s, "global_step": 10, "acc": 0.5, "asr": 0.1, "zeta": s}
        for lr in (1e-4, 2e-4)
        for m in ("lora", "full")
        for s in (0, 1)
    ]
    found = guess(*rows)
    assert found.map.parameters == {"learning_rate": "lr", "method": "method"}
    assert (found.map.seed, found.map.step) == ("seed", "global_step")
    assert found.map.metrics == {
        "acc": MetricMap(column="acc", direction="maximize", low=0, high=1),
        "asr": MetricMap(column="asr", direction="minimize", low=0, high=1),
    }
    assert found.map.objectives == ("acc", "asr")
    assert found.unmapped == ("zeta",)
    assert (found.map.name, found.map.kind) == ("my_runs", "csv")


def ranged(*values: float) -> Guess:
    return guess(*({"lr": i, "accuracy": value} for i, value in enumerate(values)))


def test_per_cent_are_recognised_said_and_not_divided() -> None:
    found = ranged(45.0, 50.5, 0.0)
    assert found.map.metrics["accuracy"].high == 100
    assert "values from 45 to 50.5 are read as per cent" in found.notes[0]


def test_one_value_outside_does_not_turn_shares_into_per_cent() -> None:
    found = ranged(0.4, 0.5, 1.7)
    assert found.map.metrics["accuracy"].high == 1
    assert "1 of 3 values are outside [0, 1]" in found.notes[0]
    assert ranged(0.4, 1.0).map.metrics["accuracy"].high == 1
    assert ranged(0.4, 1.0).notes == ranged(0.2, 0.3).notes


def test_values_that_fit_no_range_are_not_mapped() -> None:
    found = ranged(431.0, 522.0)
    assert found.map.metrics == {} and found.unmapped == ("accuracy",)
    assert "neither shares nor per cent" in found.notes[0]


def test_the_source_decides_over_names() -> None:
    rows = [
        {"params_a": i, "params_c": 1, "values_x": 7.0 * i, "constraints_0": -i} for i in (1, 2)
    ]
    found = guess(
        *rows,
        kind="optuna",
        parameters=("params_a", "params_c"),
        metrics=("values_x",),
        directions={"values_x": "maximize", "constraints_0": "minimize"},
        constraints=("constraints_0",),
    )
    assert found.map.parameters == {"a": "params_a"}
    assert found.map.metrics["x"] == MetricMap(column="values_x", direction="maximize")
    assert found.map.objectives == ("x",)
    assert found.map.constraints == (ConstraintMap(metric="constraints_0", max=0),)


def test_counts_come_from_their_columns() -> None:
    found = guess(
        {"lr": 1, "acc": 0.5, "acc.n": 100, "asr": 0.1, "k_asr": 4, "n": 40},
        {"lr": 2, "acc": 0.6, "acc.n": 100, "asr": 0.2, "k_asr": 8, "n": 40},
    )
    acc, asr = found.map.metrics["acc"], found.map.metrics["asr"]
    assert (acc.n, acc.k) == ("acc.n", None)
    assert (asr.n, asr.k) == ("n", "k_asr")
    assert "`n` is taken as the number of samples of `asr`" in found.notes


def test_settings_in_blocks_are_added_until_the_runs_differ() -> None:
    rows = [
        {"config.lr": lr, "config.odd": odd, "config.same": lr, "config.out_dir": f"{lr}{odd}"}
        for lr in (1, 2)
        for odd in (3, 4)
    ]
    found = guess(*rows)
    assert found.map.parameters == {"learning_rate": "config.lr", "odd": "config.odd"}
    assert "1 more columns in blocks of settings" in found.notes[0]


def test_names_stay_distinct_and_short() -> None:
    found = guess({"a.lr": 1, "b.lr": 1, "c d / e": 0}, {"a.lr": 2, "b.lr": 3, "c d / e": 0})
    assert found.map.parameters == {"learning_rate": "a.lr", "b_lr": "b.lr"}


@needs_real_rows
def test_the_guess_for_the_results_of_peft_finds_forgetting_and_every_choice() -> None:
    table = read_table(SHARED / "peft_metamathqa")
    found = guess_map(table)
    imported = found.map
    assert imported.objectives == ("test_accuracy", "forgetting")
    assert imported.metrics["valid_accuracy"].high == 1
    assert imported.metrics["accelerator_memory_max"].direction == "minimize"
    assert imported.step == "train_info.metrics.last.step"
    assert imported.seed == "run_info.train_config.seed"
    assert imported.parameters["learning_rate"].endswith("optimizer_kwargs.lr")
    columns = imported.parameters.values()
    choices = {tuple(repr(row.values.get(c)) for c in columns) for row in table.rows}
    assert len(choices) == 63
    assert found.unmapped == ("train_info.num_trainable_params", "train_info.num_total_params")
    for row in table.rows:
        for metric in imported.metrics.values():
            assert math.isfinite(metric_value(row, metric))


def sample() -> ImportMap:
    return ImportMap(
        kind="csv",
        name="runs",
        parameters={"learning_rate": "train.lr", "method": "é: #odd"},
        metrics={
            "acc": MetricMap(column="acc", direction="maximize", low=0, high=1, n="n", k="k"),
            "loss": MetricMap(column="loss", direction="minimize", n=100),
        },
        seed="seed",
        base={"method": "none", "rank": 0, "flag": True, "odd": None},
        objectives=("acc", "loss"),
        constraints=(ConstraintMap(metric="loss", max=0.5, confidence=0.9),),
    )


def test_a_map_survives_its_file(tmp_path: Path) -> None:
    text = map_text(sample())
    (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
    assert load_map(tmp_path / "map.yaml") == sample()
    assert text.startswith("# ") and "acc: {column: acc, direction: maximize, low: 0.0" in text


WRONG = {
    "metrics.acc.direction: found 'up'": "metrics: {acc: {column: a, direction: up}}",
    "metrics.acc: `low < high`": "metrics: {acc: {column: a, direction: minimize, low: 1, high: 1}}",
    "metrics.acc: `k` is a count": "metrics: {acc: {column: a, direction: minimize, k: b}}",
    "metrics.acc: `n >= 1`": "metrics: {acc: {column: a, direction: minimize, n: 0}}",
    "map: `loss` is an objective": "metrics: {}\nobjectives: [loss]",
    "map: the column `a` is used twice": "metrics: {}\nseed: a\nstep: a",
    "metrics: missing": "seed: a",
    "sed: unknown key": "metrics: {}\nsed: a",
    "cannot be read as YAML": "metrics: {",
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_wrong_map_names_its_problem(problem: str, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(f"kind: csv\nname: a\nparameters: {{}}\n{WRONG[problem]}\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_map(path)
    (found,) = caught.value.problems
    assert found.startswith(problem)


def test_a_map_that_is_not_there_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_map(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n", encoding="utf-8")
    with pytest.raises(SpecError, match="a mapping with"):
        load_map(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0.0, None),
        (1, None),
        (1.0001, "outside its range [0, 1]"),
        (-0.0001, "outside its range [0, 1]"),
        (math.nan, "nan is no measurement"),
        (math.inf, "inf is no measurement"),
        (10**400, "inf is no measurement"),
        (None, "missing"),
        (True, "expected a number"),
        ("n/a\x1b", "found `n/a\\x1b`"),
    ],
)
def test_a_value_is_in_its_range_or_refused(value: object, problem: str | None) -> None:
    row = ForeignRow("runs.csv:7", {"acc": value})
    metric = MetricMap(column="acc", direction="maximize", low=0, high=1)
    if problem is None:
        assert metric_value(row, metric) == value
        return
    with pytest.raises(DataError) as caught:
        metric_value(row, metric)
    assert str(caught.value).startswith("runs.csv:7: `acc`: ") and problem in str(caught.value)
    assert caught.value.code == "data.invalid_row"


@pytest.mark.parametrize(
    ("column", "values", "limited"),
    [
        ("unsafe_rate", (0.3, 0.1), "unsafe_rate"),
        ("attack_success", (0.3, 0.1), "attack_success"),
        ("over_refusal_rate", (0.3, 0.1), None),
        ("forgetting", (0.3, 0.1), None),
        ("toxicity", (30.0, 10.0), None),  # Per cent, of which no counts are known.
    ],
)
def test_an_unsafe_rate_gets_the_limit_of_a_sweep(
    column: str, values: tuple[float, float], limited: str | None
) -> None:
    """Else the most useful run would be recommended at any harm."""
    rows = [
        {"lr": 10.0**-i, "accuracy": 1 - i / 9, column: value, "n": 100}
        for i, value in enumerate(values, start=1)
    ]
    found = guess(*rows)
    expected = () if limited is None else (ConstraintMap(metric=limited, max=0.05),)
    assert found.map.constraints == expected
    assert any("the limit of a sweep, 0.05" in note for note in found.notes) is bool(limited)
    assert found.map.objectives[0] == "accuracy"
