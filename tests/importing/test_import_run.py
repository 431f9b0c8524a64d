"""Runs made of foreign tables: what their records claim, and what they cannot."""

import json
from pathlib import Path

import pytest
from support.command import Command, refused
from support.world import write_jsonl

import sweeper
from sweeper.errors import ImportMapError, RunFolderError
from sweeper.importing.build import count_of, import_table, places_of
from sweeper.importing.detect import read_table
from sweeper.importing.mapping import ImportMap, load_map

MAP = """
version: 1
kind: json
name: fine
parameters: {learning_rate: lr}
step: step
seed: seed
metrics:
  accuracy: {column: acc, direction: maximize, low: 0, high: 1, n: 100}
  unsafe_rate: {column: unsafe, direction: minimize, low: 0, high: 1, n: 400, k: bad}
objectives: [accuracy, unsafe_rate]
constraints: [{metric: unsafe_rate, max: 0.05}]
base: {lr: null}
"""

ROWS: list[dict[str, object]] = [
    {"lr": None, "step": 0, "seed": 0, "acc": 0.1, "unsafe": 0.0, "bad": 0},
    {"lr": 1e-5, "step": 10, "seed": 0, "acc": 0.7, "unsafe": 0.005, "bad": 2},
    {"lr": 1e-4, "step": 10, "seed": 0, "acc": 0.8, "unsafe": 0.1, "bad": 40},
    {"lr": 1e-4, "step": 20, "seed": 0, "acc": 0.85, "unsafe": 0.02, "bad": 8},
]


def imported(tmp_path: Path, rows: list[dict[str, object]], text: str = MAP) -> sweeper.Run:
    source, mapping = write_jsonl(tmp_path / "runs.jsonl", rows), tmp_path / "map.yaml"
    mapping.write_text(text, encoding="utf-8")
    return sweeper.import_run(source, tmp_path / "run", map=mapping).run


def test_counted_rates_are_recommended_within_their_limit(tmp_path: Path) -> None:
    run = imported(tmp_path, ROWS)
    found = run.recommend()
    assert found.chosen is not None
    assert dict(found.chosen.config) == {"learning_rate": 1e-4, "max_steps": 20}
    assert found.chosen.counts("unsafe_rate") == "8/400"
    assert "nothing is known about this configuration trained again" in found.reason
    assert "decision stage" not in found.reason
    assert found.chosen.gain is True  # 85 of 100 against 10 of 100.
    beside = run.front().base
    assert beside is not None
    assert beside.values["accuracy"] == 0.1
    record = next(record for record in run.records if record.readout["step"] == 20)
    assert record.provenance["imported"]["where"].endswith("runs.jsonl: row 4")
    assert record.key == (found.chosen.config_id, 0)


def test_a_rate_without_counts_keeps_no_limit_and_has_no_place(tmp_path: Path) -> None:
    uncounted = MAP.replace(", n: 400, k: bad", "")
    run = imported(tmp_path, ROWS, uncounted)
    found = run.recommend()
    assert found.chosen is None
    assert "without the number of prompts nothing can be said" in found.reason
    places = run.front().certainty
    assert {(place.p_front, place.p_front_upper) for place in places.memberships.values()} == {
        (0.0, 1.0)
    }
    assert places.notes == (
        "no sample size of unsafe_rate: nothing is known about how sure any place on the front is",
    )
    shown = run.show(run.front().analysis.competing[0].config_id)
    assert shown.candidate.interval("unsafe_rate") is None
    assert shown.candidate.interval("accuracy") is not None


def test_a_name_is_no_claim(tmp_path: Path) -> None:
    """Neither the untouched model nor a limit: something is recommended, and what it lacks is said."""
    text = MAP.replace("base: {lr: null}\n", "").replace(
        "constraints: [{metric: unsafe_rate, max: 0.05}]\n", ""
    )
    found = imported(tmp_path, ROWS[1:], text).recommend()
    assert found.chosen is not None
    assert found.chosen.values["accuracy"] == 0.85
    lacking = " ".join(found.analysis.caveats)
    assert "The untouched model was not imported" in lacking
    assert "Nothing limits unsafe_rate" in lacking
    assert found.chosen.gain is None


def test_every_row_is_a_record_or_refused_with_its_reason(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        {**ROWS[1], "acc": 0.6},  # The same settings and seed.
        {**ROWS[1], "seed": 1, "acc": 1.2},
        {**ROWS[1], "seed": 1, "acc": float("nan")},
        {**ROWS[1], "seed": 1, "bad": 3},  # 3/400 is not 0.005.
        {**ROWS[1], "seed": 1.5},
        {**ROWS[1], "seed": 1, "acc": None},
        {**ROWS[1], "seed": 2, "acc": 0.5},
    ]
    run = imported(tmp_path, rows)
    assert len(run.records) == 5
    left = [json.loads(line) for line in (tmp_path / "run/refused.jsonl").read_text().splitlines()]
    reasons = [item["reason"] for item in left]
    assert [item["where"].rpartition(" ")[2] for item in left] == ["5", "6", "7", "8", "9", "10"]
    for reason, text in zip(
        reasons,
        ("the same settings and seed as", "outside its range", "nan", "3/400", "1.5", "missing"),
        strict=True,
    ):
        assert text in reason


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("lr}", "rate}", "no column `rate`"),
        ("[accuracy, unsafe_rate]", "[accuracy]", "1 objectives; at least two"),
        ("unsafe, direction: minimize", "unsafe, direction: maximize", "must be minimized"),
        (
            "unsafe, direction: minimize, low: 0, high: 1",
            "unsafe, direction: minimize",
            "is a share",
        ),
        ("max: 0.05", "max: 5", "is no rate|from 0 to 1"),
        ("metric: unsafe_rate, max", "metric: loss, max", "none of `metrics`"),
    ],
)
def test_a_map_that_does_not_suit_is_refused(
    command: Command, tmp_path: Path, old: str, new: str, says: str
) -> None:
    assert old in MAP
    source, mapping = write_jsonl(tmp_path / "runs.jsonl", ROWS), tmp_path / "map.yaml"
    mapping.write_text(MAP.replace(old, new), encoding="utf-8")
    refused(command("import", source, "--out", tmp_path / "run", "--map", mapping), says)
    assert not (tmp_path / "run").exists()


def test_a_count_is_known_only_where_the_written_digits_leave_one() -> None:
    assert count_of(632 / 1319, 1319, 16) == 632
    assert count_of(0.479, 100, 3) is None  # No k of 100.
    assert count_of(0.48, 100, 2) == 48
    assert count_of(0.48, 1000, 2) is None  # 475 to 485.
    assert count_of(0.0, 1319, 1) is None
    assert count_of(0.0, 1319, 16) == 0
    assert places_of([0.5, 0.25, 1, "x", None]) == 2
    assert places_of([1e-05]) == 5


def test_commands_of_an_imported_run(command: Command, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "runs.jsonl", ROWS)
    (tmp_path / "map.yaml").write_text(MAP)
    answer = command("import", "runs.jsonl", "--out", "run", "--map", "map.yaml")
    assert answer.code == 0, answer.err
    assert "4 of 4 rows imported" in answer.out
    assert "limit: unsafe_rate <= 0.05 with probability 0.95" in answer.out
    for words in (("front",), ("recommend",), ("report",), ("status",)):
        assert command(*words, "run").code == 0
    assert "finished" in command("status", "run").out
    assert "confirm" not in command("recommend", "run").out
    for words in (("verify",), ("export",), ("resume",)):
        refused(command(*words, "run"), "imported")
    refused(command("import", "runs.jsonl", "--out", "run"), "holds a run")
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Use it: files" not in page


def test_seeds_that_all_have_are_needed_of_each(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[1], "seed": 1}, {**ROWS[2], "seed": 1}, {**ROWS[3], "seed": 1}]
    table = read_table(write_jsonl(tmp_path / "runs.jsonl", rows))
    (tmp_path / "map.yaml").write_text(MAP)
    mapping = load_map(tmp_path / "map.yaml")
    assert import_table(table, mapping).spec.seeds == (0, 1)
    fewer = table._replace(rows=table.rows[:-1])
    assert import_table(fewer, mapping).spec.seeds == (0,)


def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path) -> None:
    imported(tmp_path, ROWS)
    before = (tmp_path / "run/records.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="holds a run"):
        sweeper.import_run(tmp_path / "runs.jsonl", tmp_path / "run")
    assert (tmp_path / "run/records.jsonl").read_bytes() == before


def test_no_usable_row_is_no_run(tmp_path: Path) -> None:
    table = read_table(write_jsonl(tmp_path / "runs.jsonl", [{**ROWS[1], "acc": 7}]))
    (tmp_path / "map.yaml").write_text(MAP.replace("base: {lr: null}\n", ""))
    mapping: ImportMap = load_map(tmp_path / "map.yaml")
    with pytest.raises(
        ImportMapError, match=r"none of 1 rows can be imported; .*outside its range"
    ):
        import_table(table, mapping)


TWO = """
version: 1
kind: json
name: two
parameters: {method: method}
metrics:
  accuracy: {column: acc, direction: maximize}
  kept: {column: kept, direction: maximize}
objectives: [accuracy, kept]
"""


def test_a_second_metric_to_maximise_is_better_to_the_right(tmp_path: Path) -> None:
    """Neither axis is called unsafe, nothing is limited; the line joins what is not dominated."""
    rows: list[dict[str, object]] = [
        {"method": "a", "acc": 0.2, "kept": 1.9},
        {"method": "b", "acc": 0.5, "kept": 0.5, "rank": 8},
        {"method": "c", "acc": 0.1, "kept": 0.4},
    ]
    run = imported(tmp_path, rows, TWO.replace("method}", "method, rank: rank}"))
    figure = run.plot("front")
    line = next(trace for trace in figure.data if trace.name == "front")
    assert (list(line.x), list(line.y), line.line.shape) == ([1.9, 0.5], [0.2, 0.5], "hv")
    assert figure.layout.xaxis.title.text == "kept"
    low, high = figure.layout.xaxis.range
    assert low < 0.4
    assert high > 1.9
    assert not figure.layout.shapes
    run.report()
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "<h2>Kept against accuracy</h2>" in page
    assert "Better is up and to the right." in page
    assert "Unsafe answers" not in page


def test_settings_that_only_some_rows_have_are_blank(command: Command, tmp_path: Path) -> None:
    text = TWO.replace("method}", "method, rank: rank}")
    rows: list[dict[str, object]] = [
        {"method": "a", "acc": 0.2, "kept": 1.9},
        {"method": "b", "acc": 0.5, "kept": 0.5, "rank": 8},
        {"method": "c", "acc": 0.4, "kept": 0.6, "rank": 16},
    ]
    imported(tmp_path, rows, text)
    answer = command("front", "run", "--wide")
    assert answer.code == 0, answer.err
    assert "3 on the front" in answer.out


def test_a_score_of_ours_in_per_cent_is_refused(command: Command, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "runs.jsonl", ROWS)
    text = MAP.replace("accuracy", "rouge_l").replace("high: 1, n: 100", "high: 100, n: 100")
    (tmp_path / "map.yaml").write_text(text, encoding="utf-8")
    words = ("import", source, "--out", tmp_path / "run", "--map", tmp_path / "map.yaml")
    refused(command(*words), "metrics.rouge_l: .*divide per cent by 100")
