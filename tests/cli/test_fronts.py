"""The front in 80 columns."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.command import Command, in_process
from support.factories import base_record, make_record, make_spec
from support.run_folders import write_run

from sweeper.analysis import find_front, measured_text, recommend
from sweeper.cli.fronts import MOST_MEMBERS
from sweeper.metrics import metric_text, range_text
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord


def trade_off(count: int) -> list[TrialRecord]:
    """A run whose front has `count` members: the more useful, the less safe."""
    points = [
        make_record(max_steps=40 * (i + 1), average="raw", utility=0.6 + 0.03 * i, unsafe=(i, 1000))
        for i in range(count)
    ]
    return [base_record(), *points]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "80")
    return in_process(monkeypatch, capsys)


def rows(text: str) -> list[str]:
    """The first lines of the table's rows: those with P(front) and seeds."""
    table = text[: text.index(" on the front, of ")].splitlines()[1:-1]
    return [line for line in table if line.rstrip().endswith(" 1")]


@pytest.mark.parametrize("count", [MOST_MEMBERS, MOST_MEMBERS + 2])
def test_at_most_five_members_and_how_to_see_the_others(
    command: Command, tmp_path: Path, count: int
) -> None:
    records = trade_off(count)
    run = write_run(tmp_path / "run", records, readouts=count + 1)
    text = command("front", run.root).out
    found = find_front(records, make_spec())
    assert len(found.members) == count
    assert len(rows(text)) == MOST_MEMBERS
    assert ("2 more not shown: --all" in text) == (count > MOST_MEMBERS)
    assert ("not shown" in text) == (count > MOST_MEMBERS)
    everything = command("front", run.root, "--all").out
    assert len(rows(everything)) == count and "not shown" not in everything


def test_the_recommended_one_is_first_and_named_in_80_columns(
    command: Command, tmp_path: Path
) -> None:
    records = trade_off(7)
    run = write_run(tmp_path / "run", records, readouts=8)
    text = command("front", run.root).out
    spec = make_spec()
    chosen = recommend(find_front(records, spec), spec).chosen
    assert chosen is not None
    first, *others = rows(text)
    assert first.startswith(f"* {chosen.config_id[:6]}  {chosen.config['max_steps']} steps")
    assert not any(line.startswith("*") for line in others)
    assert len(text.splitlines()[0].split()) == 7  # Six columns; the first is `* id`.
    table = text[: text.index(" on the front, of ")].splitlines()[:-1]
    assert max(map(len, table)) <= 80
    wide = command("front", run.root, "--wide").out
    assert all(record.config_id in wide for record in records[1:])


def test_ids_are_as_long_as_it_takes_to_tell_them_apart(command: Command, tmp_path: Path) -> None:
    names = ["abcdef1000", "abcdef2000"]
    records = [
        make_record(identity=name, max_steps=40 * (i + 1), utility=0.6 + 0.1 * i, unsafe=(i, 1000))
        for i, name in enumerate(names)
    ]
    run: RunFolder = write_run(tmp_path / "run", [base_record(), *records], readouts=3)
    text = command("front", run.root).out
    assert "abcdef1 " in text and "abcdef2 " in text and "abcdef10" not in text


def test_no_recommendation_is_said(command: Command, tmp_path: Path) -> None:
    records = [base_record(), make_record(utility=0.9, unsafe=(200, 256))]
    run = write_run(tmp_path / "run", records, readouts=2)
    assert "no configuration is recommended: `sweeper recommend` says why" in (
        command("front", run.root).out
    )


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("unsafe_rate", 0.0125, "1.2 %"),
        ("over_refusal_rate/zou2023", 1.0, "100.0 %"),
        ("rouge_l", 0.8333, "0.833"),
        ("lm_eval/gsm8k/exact_match", 0.5, "0.500"),
    ],
)
def test_one_format_of_a_value(metric: str, value: float, text: str) -> None:
    assert metric_text(metric, value) == text
    assert range_text(metric, value, value) == f"{text.removesuffix(' %')} to {text}"


@pytest.mark.parametrize(
    ("seeds", "plain", "whole"),
    [
        ([0], "0.8 % (2/256)", "0.8 % (2/256, 0.2 to 2.8 %)"),
        ([0, 1], "0.8 % (2/256, 2/256)", "0.8 % (2/256, 2/256, 0.2 to 2.8 %)"),
    ],
)
def test_one_format_of_a_rate(seeds: Sequence[int], plain: str, whole: str) -> None:
    records = [make_record(identity="a", seed=seed, unsafe=(2, 256)) for seed in seeds]
    spec = make_spec(f"seeds={list(seeds)}")
    (item,) = find_front(records, spec).candidates
    assert measured_text(item, "unsafe_rate") == plain
    assert measured_text(item, "unsafe_rate", interval=True) == whole
    assert measured_text(item, "heldout_loss", interval=True) == metric_text(
        "heldout_loss", item.values["heldout_loss"]
    )
    assert measured_text(item, "exact_match", interval=True) == "not measured"
