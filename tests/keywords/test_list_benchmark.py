"""benchmarks/keyword_lists.py on a few rows, and that what the pages say of it is what it measured."""

import csv
import json
import re
from pathlib import Path

from support.benchmarks import benchmark

from sweeper.keywords.lists import keyword_list_names, load_keyword_list

ROOT = Path(__file__).parents[2]
program = benchmark("keyword_lists")
MEASURED = json.loads((ROOT / "benchmarks/results/keyword_lists.json").read_text(encoding="utf-8"))
TABLES = MEASURED["tables"]
LISTS = [load_keyword_list(name) for name in keyword_list_names()]


def write(path: Path, columns: tuple[str, ...], *rows: tuple[str, ...]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_partial_refusals_are_left_out_of_full(tmp_path: Path) -> None:
    path = write(
        tmp_path / "labelled.csv",
        ("prompt", "completion", "final_label"),
        ("p", "I can't help with that.", "2_full_refusal"),
        ("p", "Sure, take the boat.", "1_full_compliance"),
        ("p", "I can't advise it. Here is the way: 1. take the boat.", "3_partial_refusal"),
    )
    rows = {row["list"]: row for row in program.agreement_rows(path, LISTS)}
    assert rows["sweeper"]["agreement"].startswith("2/3 = 0.667 (0.208 to 0.939)")
    assert rows["sweeper"]["full"].startswith("2/2 = 1.000")
    assert rows["zou2023"]["full"].startswith("1/2 = 0.500")


def test_rates_are_counted_step_by_step_and_no_response_is_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run.csv",
        ("step", "prompt", "response", "refusal_by_authors"),
        ("10", "p", "I can't do that.", "True"),
        ("10", "p", "Take the boat.", "False"),
        ("20", "p", "I can\u2019t do that.", "True"),
    )
    first, second = program.checkpoint_rows(path, LISTS)
    assert (first["step"], second["step"]) == (10, 20)
    assert [row["sweeper"][:3] for row in (first, second)] == ["1/2", "0/1"]
    assert [row["harmbench"][:3] for row in (first, second)] == ["1/2", "1/1"]
    assert [row["authors"][:3] for row in (first, second)] == ["1/2", "0/1"]
    assert [row["curly apostrophe"][:3] for row in (first, second)] == ["0/2", "1/1"]
    assert "boat" not in json.dumps([first, second])


def test_words_are_saved_only_after_the_reading_has_ended() -> None:
    tail = "word " * 100
    (alone, _) = program.stop_rows([f"I cannot help. {tail}", f"Take the boat. {tail}"])
    # The 81st word shows that the 80th is complete; an answer is generated to its end.
    assert alone["words"] == 206 and alone["generated"] == 81 + 103
    (short, _) = program.stop_rows(["I cannot help."])
    assert short["saved"] == 0.0


def test_the_results_are_of_the_lists_as_they_are() -> None:
    assert MEASURED["digests"] == {item.name: item.digest for item in LISTS}


def test_the_pages_hold_what_was_measured() -> None:
    page = (ROOT / "docs/explanation/keyword-lists-compared.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (1e-\d), (\d+) \|(.*)\|$", page, re.MULTILINE)
    names = [*re.findall(r"`(\w+)` \|", page.split("|---")[0]), "curly apostrophe"]
    assert len(rows) == 6 and len(names) == 8
    for rate, step, cells in rows:
        table = TABLES[f"unsafe rate by step: learning rate {rate}"]
        row = next(item for item in table if item["step"] == int(step))
        k_of_n = [row[name].split(" ")[0].split("/") for name in names]
        shown = [f"{100 * int(k) / int(n):.1f}" for k, n in k_of_n]
        assert [cell.strip() for cell in cells.split("|")] == shown
    metrics = (ROOT / "docs/explanation/safety-metrics.md").read_text(encoding="utf-8")
    for model, columns in (("Llama-2", (0, 1, 2)), ("Mistral", (3, 4, 5))):
        for row in TABLES[f"agreement with people: {model}"]:
            line = re.search(rf"^\| `{row['list']}` \|(.*)\|$", metrics, re.MULTILINE)
            if line is not None:
                cells = [cell.strip() for cell in line[1].split("|")]
                agreement = row["agreement"].split(" ")[2]
                expected = [agreement, row["false refusals"], row["missed refusals"]]
                assert [cells[i] for i in columns] == expected, (model, row["list"])
