"""Rows of responses: judged as a sweep judges its own, a record per group, nothing left out silently."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.command import Command, refused
from support.data_samples import SHARED, needs_real_rows
from support.world import write_jsonl

import sweeper
from sweeper.errors import ImportMapError
from sweeper.importing.detect import read_table
from sweeper.importing.guess import guess_responses
from sweeper.importing.mapping import ConstraintMap, ImportMap, ResponsesMap, load_map, map_text
from sweeper.keywords.lists import load_keyword_list
from sweeper.runs.imported import ImportResult

NO = "I can't help with that."
YES = "Sure, here is how to bake it: take flour and water."
PROMPTS = [f"How is cake number {number} made?" for number in range(4)]

Rows = Sequence[dict[str, Any]]

MAP = """
version: 1
kind: csv
name: cakes
parameters: {learning_rate: lr}
metrics:
  chrf: {column: chrf, direction: maximize, low: 0, high: 1}
responses: {prompt: prompt, response: response}
step: step
objectives: [chrf, unsafe_rate]
"""


def table(path: Path, rows: Rows) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def group(lr: float, step: int, answers: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"lr": lr, "step": step, "prompt": prompt, "response": answer}
        for prompt, answer in zip(PROMPTS, answers, strict=True)
    ]


ROWS = [
    *group(1e-4, 10, [NO, YES, NO, YES]),
    *group(1e-5, 10, [NO, NO, NO, YES]),
    *group(1e-5, 20, [NO, NO, NO, NO]),
]
VALUES: list[dict[str, Any]] = [
    {"step": 10, "lr": 0.0001, "chrf": 0.5},
    {"step": 10, "lr": 1e-5, "chrf": 0.4},
    {"step": 20, "lr": 1e-5, "chrf": 0.3},
]


def imported(
    tmp_path: Path, rows: Rows = ROWS, values: Rows = VALUES, text: str | None = MAP
) -> ImportResult:
    mapping = None
    if text is not None:
        mapping = tmp_path / "map.yaml"
        mapping.write_text(text, encoding="utf-8")
    return sweeper.import_run(
        table(tmp_path / "rows.csv", rows),
        tmp_path / "run",
        map=mapping,
        values=table(tmp_path / "values.csv", values) if values else None,
    )


def by_choice(found: ImportResult) -> dict[tuple[Any, Any], str]:
    """The verdicts by learning rate and step."""
    return {
        (record.config.get("learning_rate"), record.readout["step"]): str(
            record.samples["unsafe_rate"]
        )
        for record in found.run.records
    }


def test_groups_become_records_with_their_verdicts_in_the_order_of_the_prompts(
    tmp_path: Path,
) -> None:
    found = imported(tmp_path, [*ROWS[:8], *reversed(ROWS[8:])])
    assert by_choice(found) == {(1e-4, 10): "0101", (1e-5, 10): "0001", (1e-5, 20): "0000"}
    assert found.responses == (12, 12)
    assert found.refused == ()
    assert found.summary == "12 of 12 responses judged by sweeper, 3 records"
    record = found.run.records[0]
    assert record.metrics["unsafe_rate"].counts == (2, 4)
    assert record.metrics["chrf"].value == 0.5
    assert record.metrics["degenerate_rate/harmful"].counts == (0, 4)
    assert record.provenance["keyword_lists"] == {"sweeper": load_keyword_list("sweeper").digest}
    assert record.provenance["imported"]["where"] == "rows.csv:2 and 3 more"


def test_prompts_are_paired_in_comparisons_and_responses_are_stored(tmp_path: Path) -> None:
    run = imported(tmp_path).run
    high, low, _ = (record.config_id for record in run.records)
    frame = run.compare(high, low).frame().set_index("metric")
    assert frame.loc["unsafe_rate", "difference"] == -0.25
    assert (
        frame.loc["unsafe_rate", "p_value"] == 1.0
    )  # One prompt of four flipped: an exact McNemar test.
    frame = run.responses(high)
    assert list(frame["response"]) == [NO, YES, NO, YES]
    assert list(frame["prompt"]) == PROMPTS
    assert list(frame["refusal"]) == [True, False, True, False]
    assert list(frame["prompt_id"]) == ["1", "2", "3", "4"]


def test_texts_that_look_like_values_are_responses(tmp_path: Path) -> None:
    """A cell `None`, `123` or `nan` is what the model wrote; a blank one is a blank response."""
    rows = [*group(1e-4, 10, ["123", "None", "nan", ""]), *ROWS[4:]]
    found = imported(tmp_path, rows)
    assert by_choice(found)[(1e-4, 10)] == "1111"
    assert list(found.run.responses(found.run.records[0].config_id)["response"]) == [
        "123",
        "None",
        "nan",
        "",
    ]
    assert found.run.records[0].metrics["degenerate_rate/harmful"].k == 1
    assert "1 blank responses count as unsafe and degenerate" in found.notes


def test_a_group_that_lacks_a_prompt_is_refused_and_counted(tmp_path: Path) -> None:
    found = imported(tmp_path, [*ROWS[:3], *ROWS[4:]])
    assert set(by_choice(found)) == {(1e-5, 10), (1e-5, 20)}
    assert {record.metrics["unsafe_rate"].n for record in found.run.records} == {4}
    ((where, why),) = found.refused
    assert where == "rows.csv:2 and 2 more"
    assert "responses to 3 of 4 prompts, not to number 4" in why
    assert found.responses == (11, 8)


@pytest.mark.parametrize(
    ("second", "kept", "says"),
    [(NO, 3, "the prompt and response of rows.csv:2 again"), (YES, 2, "two responses to one")],
)
def test_a_prompt_twice_in_a_group(tmp_path: Path, second: str, kept: int, says: str) -> None:
    """An equal response is left out; two different ones have no rate, and none is chosen."""
    found = imported(tmp_path, [*ROWS, {**ROWS[0], "response": second}])
    assert len(found.run.records) == kept
    ((_, why),) = found.refused
    assert says in why


def test_values_and_groups_without_each_other_are_refused(tmp_path: Path) -> None:
    found = imported(tmp_path, values=[*VALUES[1:], {"step": 99, "lr": 1e-5, "chrf": 0.9}])
    assert set(by_choice(found)) == {(1e-5, 10), (1e-5, 20)}
    reasons = dict(found.refused)
    assert "0 rows of values.csv are of this group" in reasons["rows.csv:2 and 3 more"]
    assert reasons["values.csv:4"] == "values without responses"


def test_two_rows_of_values_for_a_group_give_it_none(tmp_path: Path) -> None:
    found = imported(tmp_path, values=[*VALUES, {**VALUES[0], "chrf": 0.6}])
    assert (1e-4, 10) not in by_choice(found)
    assert "2 rows of values.csv" in found.refused[0][1]


def test_the_untouched_model_may_have_values_alone(tmp_path: Path) -> None:
    values = [*VALUES, {"step": 0, "lr": "", "chrf": 0.1}]
    found = imported(tmp_path, values=values, text=f"{MAP}base: {{step: 0}}\n")
    assert found.refused == ()
    base = found.run.front().base
    assert base is not None
    assert (base.values["chrf"], "unsafe_rate" in base.values) == (0.1, False)


def test_columns_of_steps_are_groups(tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "response_step_10": YES, "response_20": NO, "category": "cakes"}
        for prompt in PROMPTS
    ]
    values = [{"step": 10, "chrf": 0.5}, {"step": 20, "chrf": 0.4}]
    found = imported(tmp_path, rows, values, None)
    assert by_choice(found) == {(None, 10): "1111", (None, 20): "0000"}
    assert found.responses == (8, 8)
    mapping = load_map(tmp_path / "run/import.yaml")
    assert mapping.responses == ResponsesMap(
        prompt="prompt", response={"response_step_10": 10, "response_20": 20}
    )
    assert mapping.objectives == ("chrf", "unsafe_rate")


def test_a_folder_of_files_is_read_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, answers in (("a", [YES] * 4), ("b", [NO] * 4)):
        rows = [
            {"prompt": prompt, "completion": answer, "topic": prompt[-2]}
            for prompt, answer in zip(PROMPTS, answers, strict=True)
        ]
        table(folder / f"{name}.csv", rows)
    (folder / "torn.csv").write_text('prompt,completion\n"a', encoding="utf-8")
    (folder / "b.tsv").write_text("prompt\tcompletion\nx\ty\n", encoding="utf-8")
    values = table(tmp_path / "v.csv", [{"file": "a", "acc": 0.5}, {"file": "b", "acc": 0.4}])
    found = sweeper.import_run(folder, tmp_path / "run", values=values)
    assert {r.config["file"]: r.samples["unsafe_rate"] for r in found.run.records} == {
        "a": "1111",
        "b": "0000",
    }
    reasons = dict(found.refused)
    assert "never closed" in reasons["torn.csv"]
    assert reasons["b.tsv"] == "has the name of b.csv; rename one of them"


def test_names_of_files_that_look_like_numbers_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "rates"
    folder.mkdir()
    for name in ("1e-4", "1e-5"):
        rows = [{"prompt": prompt, "response": NO} for prompt in PROMPTS]
        table(folder / f"{name}.csv", rows)
    values = table(tmp_path / "v.csv", [{"file": "1e-4", "acc": 1}, {"file": "1e-5", "acc": 0}])
    found = sweeper.import_run(folder, tmp_path / "run", values=values)
    assert {record.config["file"] for record in found.run.records} == {"1e-4", "1e-5"}


def test_columns_of_other_settings_are_settings(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "response_base": NO, "response_tuned": YES} for prompt in PROMPTS]
    values = [{"variant": "base", "acc": 0.1}, {"variant": "tuned", "acc": 0.9}]
    found = imported(tmp_path, rows, values, None)
    assert {r.config["variant"]: r.samples["unsafe_rate"] for r in found.run.records} == {
        "base": "0000",
        "tuned": "1111",
    }


def test_settings_of_the_values_alone_name_the_groups(tmp_path: Path) -> None:
    """Files are told apart by their names, and the choices by what the values say of them."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for name, answers in (("a", [YES] * 4), ("b", [NO] * 4)):
        pairs = zip(PROMPTS, answers, strict=True)
        table(folder / f"{name}.csv", [{"prompt": p, "response": r} for p, r in pairs])
    values = table(
        tmp_path / "v.csv",
        [{"file": "a", "lr": 1e-4, "acc": 0.5}, {"file": "b", "lr": 1e-5, "acc": 0.4}],
    )
    mapping = tmp_path / "map.yaml"
    mapping.write_text(MAP.replace("step: step\n", "").replace("chrf", "acc"), encoding="utf-8")
    found = sweeper.import_run(folder, tmp_path / "run", map=mapping, values=values)
    assert by_choice(found) == {(1e-4, 0): "1111", (1e-5, 0): "0000"}


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    """In JSON a number, a list of turns and null are no responses; their groups lack these prompts."""
    rows = [
        {"file": name, "prompt": prompt, "response": NO, "acc": 0.5}
        for name in ("a", "b")
        for prompt in PROMPTS
    ]
    for number, bad in enumerate((123, [{"role": "assistant"}], None)):
        rows[number]["response"] = bad  # type: ignore[assignment]
    found = sweeper.import_run(write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "run")
    assert [record.config["file"] for record in found.run.records] == ["b"]
    reasons = [why for _, why in found.refused]
    assert reasons[0] == "`response`: found int; a text in quotation marks is expected"
    assert "found list" in reasons[1]
    assert reasons[2] == "`response`: missing"
    assert "responses to 1 of 4 prompts, not to number 1" in reasons[3]


def test_of_harmless_prompts_refusals_count_and_a_blank_is_none(tmp_path: Path) -> None:
    text = MAP.replace("response: response}", "response: response, metric: over_refusal_rate}")
    text = text.replace("unsafe_rate]", "over_refusal_rate]")
    rows = [*group(1e-4, 10, [NO, "", NO, YES]), *ROWS[4:]]
    found = imported(tmp_path, rows, text=text)
    rates = [record.metrics["over_refusal_rate"].counts for record in found.run.records]
    assert rates == [(3, 4), (4, 4)]
    assert found.refused[0] == ("rows.csv:3", "`response`: blank")


def test_metrics_that_differ_within_a_group_are_none_of_it(tmp_path: Path) -> None:
    rows = [{**row, "chrf": 0.5 if number else 0.1} for number, row in enumerate(ROWS)]
    found = imported(tmp_path, rows, values=())
    assert set(by_choice(found)) == {(1e-5, 10), (1e-5, 20)}
    assert "`chrf` differs within a group" in found.refused[0][1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("prompt: prompt", "prompt: question", "no column `question`, which `responses`"),
        ("response: response}", "response: prompt}", "column `prompt` is used twice"),
        ("  chrf: {", "  unsafe_rate: {", "judged from responses"),
        ("response}", "response, metric: loss}", "responses.metric: found 'loss'"),
        ("response: response}", "response: {a: 1, b: 2}}", "are the step already"),
        ("low: 0, high: 1}", "low: 0, high: 100}", "divide per cent by 100"),
        ("lr: lr", "lr: lr", "no column `lr`"),
    ],
)
def test_a_map_or_values_that_do_not_suit_have_one_message(
    command: Command, tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = MAP.replace("learning_rate: lr", "lr: lr")
    assert old in text
    (tmp_path / "map.yaml").write_text(text.replace(old, new), encoding="utf-8")
    values: Rows = [{"step": 10, "chrf": 0.5}] if old == new else VALUES
    words = ("--values", table(tmp_path / "values.csv", values), "--map", tmp_path / "map.yaml")
    source = table(tmp_path / "rows.csv", ROWS)
    refused(command("import", source, "--out", tmp_path / "run", *words), says)
    assert not (tmp_path / "run").exists()


def test_values_for_rows_without_responses_are_refused(command: Command, tmp_path: Path) -> None:
    source = table(tmp_path / "values.csv", VALUES)
    words = ("import", source, "--out", tmp_path / "run", "--values", source)
    refused(command(*words), "has no responses that its rows would be joined with")


def test_no_usable_group_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(
        ImportMapError, match=r"no group of 1 can be used; .*expected one"
    ) as caught:
        imported(tmp_path, ROWS[:4], [VALUES[2]])
    assert caught.value.code == "import.no_rows"


def test_the_guess_is_shown_and_is_read_back(command: Command, tmp_path: Path) -> None:
    table(tmp_path / "rows.csv", [{**row, "kind": row["prompt"][-2]} for row in ROWS])
    table(tmp_path / "values.csv", VALUES)
    words = ("rows.csv", "--values", "values.csv")
    answer = command("import", *words, "--out", "run")
    assert answer.code == 0, answer.err
    assert "12 of 12 responses judged by sweeper, 3 records" in answer.out
    mapping = load_map(tmp_path / "run/import.yaml")
    assert dict(mapping.parameters) == {"learning_rate": "lr"}
    assert mapping.constraints == (ConstraintMap(metric="unsafe_rate", max=0.05),)
    assert (mapping.step, mapping.seed) == ("step", None)
    again = command("import", *words, "--out", "again", "--map", "run/import.yaml")
    assert again.code == 0, again.err
    first, second = ((tmp_path / name / "records.jsonl").read_bytes() for name in ("run", "again"))
    assert first == second
    for name in ("front", "recommend", "report"):
        assert command(name, "run").code == 0
    assert "sweeper export" not in command("report", "run").out
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Unsafe rate against chrf" in page
    assert YES not in command("import", *words, "--out", "third").out


def test_a_map_without_responses_stays_as_it_was() -> None:
    plain = ImportMap(kind="csv", name="a", parameters={"lr": "lr"}, metrics={})
    assert "responses" not in map_text(plain)
    assert plain.of_groups() is plain


def test_tables_without_responses_are_no_responses(tmp_path: Path) -> None:
    runs = [{"prompt": "a", "output": 1.5}, {"prompt": "b", "output": 2.5}]
    assert guess_responses(read_table(table(tmp_path / "a.csv", runs))) is None
    assert guess_responses(read_table(table(tmp_path / "b.csv", VALUES))) is None


@needs_real_rows
def test_real_responses_have_the_rates_of_the_default_list(tmp_path: Path) -> None:
    values = [
        {"file": f"lora_lr1e-{rate}", "step": step, "chrf": 0.7}
        for rate in (4, 5)
        for step in (148, 296, 444, 591)
    ]
    found = sweeper.import_run(
        SHARED / "llama32_1b_translation",
        tmp_path / "run",
        values=table(tmp_path / "values.csv", values),
    )
    counts = {
        (record.config["file"][-1], record.readout["step"]): record.metrics["unsafe_rate"].counts
        for record in found.run.records
    }
    assert {place: count[0] for place, count in counts.items() if count} == {
        **dict(zip([("4", step) for step in (148, 296, 444, 591)], (26, 76, 98, 90), strict=True)),
        **dict(zip([("5", step) for step in (148, 296, 444, 591)], (9, 9, 10, 10), strict=True)),
    }
    assert {count[1] for count in counts.values() if count} == {520}
    assert json.loads((tmp_path / "run/run.json").read_text())["imported"] == "csv_folder"


def test_the_how_to_says_what_was_measured() -> None:
    """The numbers of the how-to about falling rates are those of the committed result."""
    root = Path(__file__).parents[2]
    found = json.loads((root / "benchmarks/results/falling_rates.json").read_text("utf-8"))
    text = (root / "docs/how-to/import.md").read_text("utf-8")
    path = found["paths"]["lora_lr1e-4"]
    assert [(rate["k"], rate["n"]) for rate in path["rates"]] == [
        (26, 520),
        (76, 520),
        (98, 520),
        (90, 520),
    ]
    for rate in path["rates"]:
        low, high = (f"{100 * end:.1f}" for end in rate["interval"])
        assert f"{rate['step']}: 0.7" in text
        assert f"{rate['k']} ({low} to {high} %)" in text
    fall = path["from_step_to_step"][-1]
    low, high = sorted(-100 * end for end in fall["interval"])
    assert (
        f"{-100 * fall['difference']:.1f} points from step 444 to 591 ({low:.1f} to {high:.1f}"
        in text
    )
    errors = [
        row["wrong_at_worst_limit"] for each in found["paths"].values() for row in each["prune"]
    ]
    assert max(errors) == 0.001
    assert found["error"] == 0.05
