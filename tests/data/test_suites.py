"""Prompts of suites: ids, halves, and published suites by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import SHARED, cached, jsonl, needs_real_rows, pairs, source
from support.raising import raises
from support.world import write_jsonl

from sweeper.data.load import Prompt, load_examples, load_prompts, load_suite
from sweeper.data.prompt_hash import prompt_split_of
from sweeper.data.suites import PUBLISHED
from sweeper.errors import DataError
from sweeper.task import SUITES, PromptSuite


def named(suite: str, path: Path | str = "", **fields: Any) -> PromptSuite:
    return PromptSuite(str(path), suite=suite, **{"prompt_split": "all", **fields})


def texts(source: PromptSuite) -> list[str]:
    return [prompt.text for prompt in load_prompts(source)]


def test_prompts_are_called_by_their_id_or_their_row(tmp_path: Path) -> None:
    named = write_jsonl(
        tmp_path / "a.jsonl", [{"id": "x", "prompt": "p"}, {"id": 7, "prompt": "q"}]
    )
    assert load_prompts(source(named, "prompts")) == [Prompt("x", "p"), Prompt("7", "q")]
    bare = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "p"}, {"prompt": "q"}])
    assert load_prompts(source(bare, "prompts")) == [Prompt("1", "p"), Prompt("2", "q")]
    mapped = source(named, "prompts", columns={"id": "prompt"})
    assert load_prompts(mapped) == [Prompt("p", "p"), Prompt("q", "q")]


def test_the_id_of_a_prompt_is_the_same_whatever_part_is_taken(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i}", "kind": i % 2} for i in range(30)]
    everything = source(write_jsonl(tmp_path / "a.jsonl", rows), "prompts")
    whole = {prompt.id: prompt.text for prompt in load_prompts(everything)}
    assert list(whole) == [str(number) for number in range(1, 31)]
    for fields in (
        {"where": {"kind": "1"}},
        {"prompt_split": "confirm"},
        {"rows": 4, "sample_seed": 3},
    ):
        part = load_prompts(replace(everything, **fields))
        assert 0 < len(part) < 30
        assert all(whole[prompt.id] == prompt.text for prompt in part)


def test_two_prompts_with_one_id_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "prompt": "p"}, {"id": "1", "prompt": "q"}])
    with raises("data.duplicate", path=path, id="1"):
        load_prompts(source(path, "prompts"))


@pytest.mark.parametrize("format", ["prompts", "prompt_completion"])
@pytest.mark.parametrize("gap", [{"id": None}, {"id": ""}, {"id": " "}, {}])
def test_a_row_without_an_id_beside_rows_with_one_is_refused(
    tmp_path: Path, gap: dict[str, Any], format: str
) -> None:
    rows = [{"id": 2, "prompt": "p"}, {"prompt": "q", **gap}]
    path = write_jsonl(tmp_path / "a.jsonl", [{**row, "completion": "c"} for row in rows])
    with raises("data.blank", path=path, row=2, column="id"):
        load_prompts(source(path, format))
    path = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "p", "completion": "c", **gap}] * 1)
    assert load_prompts(source(path, format)) == [Prompt("1", "p")]


def test_a_blank_prompt_of_a_suite_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p"}, {"prompt": " "}])
    with pytest.raises(DataError, match="row 2 has a blank prompt"):
        load_prompts(source(path, "prompts"))


def test_training_rows_can_be_asked_unless_they_need_more_than_a_prompt(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(2))
    with pytest.raises(DataError, match="format `prompts` has no completions"):
        load_examples(source(path, "prompts"))
    assert load_prompts(source(path)) == [Prompt("1", "p0"), Prompt("2", "p1")]
    orca = write_jsonl(
        tmp_path / "b.jsonl", [{"system_prompt": "s", "question": "q", "response": "r"}]
    )
    with pytest.raises(DataError, match="row 1 has a system prompt or earlier turns, but a suite"):
        load_prompts(source(orca, "orca"))


def test_several_sources_are_one_suite_with_their_names_in_the_ids(tmp_path: Path) -> None:
    a, b = (write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": name}]) for name in "ab")
    both = [source(a, "prompts"), source(b, "prompts")]
    assert load_suite(both) == [Prompt("a/1", "a"), Prompt("b/1", "b")]
    assert load_suite(both[:1]) == [Prompt("1", "a")]
    with pytest.raises(DataError, match="two sources of one suite are named `a`"):
        load_suite(both[:1] * 2)


def test_halves_part_the_prompts_whatever_their_order_case_and_punctuation(tmp_path: Path) -> None:
    rows = [{"id": i, "prompt": f"Question {i}?"} for i in range(200)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    search, confirm = (
        {prompt.id for prompt in load_prompts(source(path, "prompts", prompt_split=half))}
        for half in ("search", "confirm")
    )
    assert search | confirm == {str(i) for i in range(200)}
    assert not search & confirm
    assert 80 <= len(search) <= 120
    shuffled = [{**row, "prompt": str(row["prompt"]).upper() + "!"} for row in rows[::-1]]
    other = source(write_jsonl(tmp_path / "b.jsonl", shuffled), "prompts", prompt_split="search")
    assert {prompt.id for prompt in load_prompts(other)} == search
    few = load_prompts(replace(other, rows=10))
    assert len(few) == 10 and {prompt.id for prompt in few} <= search


def test_an_empty_half_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p"}])
    other = {"search": "confirm", "confirm": "search"}[prompt_split_of("p")]
    with raises("data.empty", path=path, key="prompt_split", found=other):
        load_prompts(source(path, "prompts", prompt_split=other))


def test_the_suites_of_the_sweep_file_are_the_published_ones() -> None:
    assert set(PUBLISHED) == set(SUITES)


HARMBENCH = [
    {
        "Behavior": f"Do {kind}",
        "FunctionalCategory": kind,
        "ContextString": "Once." if kind == "contextual" else "",
        "BehaviorID": f"do_{kind}",
    }
    for kind in ("standard", "contextual", "copyright")
]
XSTEST = [
    {"id": i, "prompt": f"{label} {i}", "label": label}
    for i, label in enumerate(("safe", "unsafe", "safe"), start=1)
]


@pytest.mark.parametrize(
    ("suite", "rows", "expected"),
    [
        ("advbench", [{"goal": "g", "target": "t"}], [Prompt("1", "g")]),
        ("advbench", [{"prompt": "g", "target": "t"}], [Prompt("1", "g")]),
        ("harmbench", HARMBENCH, [Prompt("do_standard", "Do standard")]),
        ("jailbreakbench", [{"Index": 0, "Goal": "g", "Target": "t"}], [Prompt("0", "g")]),
        ("jailbreakbench-benign", [{"Index": 9, "Goal": "g"}], [Prompt("9", "g")]),
        ("strongreject", [{"category": "c", "forbidden_prompt": "f"}], [Prompt("1", "f")]),
        ("hex-phi", [{"instruction": "i", "category": "c"}], [Prompt("1", "i")]),
        ("xstest-safe", XSTEST, [Prompt("1", "safe 1"), Prompt("3", "safe 3")]),
        ("xstest-unsafe", XSTEST, [Prompt("2", "unsafe 2")]),
    ],
)
def test_a_published_suite_knows_the_columns_of_its_authors_file(
    tmp_path: Path, suite: str, rows: list[dict[str, Any]], expected: list[Prompt]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert load_prompts(named(suite, path)) == expected


def test_what_the_sweep_file_says_of_a_suite_comes_first(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", HARMBENCH)
    contextual = named("harmbench", path, where={"FunctionalCategory": "contextual"})
    assert load_prompts(contextual) == [Prompt("do_contextual", "Once.\n\n---\n\nDo contextual")]
    mapped = named("harmbench", path, columns={"prompt": "BehaviorID", "id": "Behavior"})
    assert load_prompts(mapped) == [Prompt("Do standard", "do_standard")]
    with pytest.raises(DataError, match="defines its own columns; remove `format: alpaca`"):
        load_prompts(replace(mapped, format="alpaca"))
    with pytest.raises(
        DataError, match=r"row 1 has no column `goal`; it has Behavior, .*`columns`"
    ):
        load_prompts(named("advbench", path))


def test_suites_are_found_on_the_hub(offline_hub: Path, tmp_path: Path) -> None:
    card = "---\nconfigs:\n- config_name: behaviors\n  data_files:\n"
    card += "  - {split: harmful, path: harmful.csv}\n  - {split: benign, path: benign.csv}\n---\n"
    files = {
        "README.md": card,
        "harmful.csv": "Index,Goal\n0,bad\n",
        "benign.csv": "Index,Goal\n0,good\n",
    }
    cached(offline_hub, "JailbreakBench/JBB-Behaviors", files)
    cached(offline_hub, "Paul/XSTest", {"train.jsonl": jsonl(XSTEST, tmp_path)})
    assert texts(named("jailbreakbench")) == ["bad"]
    assert texts(named("jailbreakbench-benign")) == ["good"]
    assert texts(named("xstest-safe")) == ["safe 1", "safe 3"]
    assert load_suite([named("xstest-unsafe"), named("jailbreakbench")]) == [
        Prompt("xstest-unsafe/2", "unsafe 2"),
        Prompt("jailbreakbench/0", "bad"),
    ]
    with pytest.raises(DataError, match="`walledai/StrongREJECT` is not a local file or folder"):
        load_prompts(named("strongreject"))


def test_hex_phi_has_files_without_a_header(offline_hub: Path, tmp_path: Path) -> None:
    files = {"category_1.csv": '"a, b"\nc\n', "category_10.csv": "d\n", "README.md": "x"}
    cached(offline_hub, "LLM-Tuning-Safety/HEx-PHI", files)
    expected = [Prompt("1", "a, b"), Prompt("2", "c"), Prompt("3", "d")]
    assert load_prompts(named("hex-phi")) == expected
    with pytest.raises(DataError, match="one column and no splits; remove `where`"):
        load_prompts(named("hex-phi", where={"category": "1"}))
    folder = tmp_path / "phi"
    folder.mkdir()
    with pytest.raises(DataError, match=r"no category_\*\.csv in "):
        load_prompts(named("hex-phi", folder))
    for name, text in files.items():
        (folder / name).write_text(text)
    assert load_prompts(named("hex-phi", folder)) == expected
    (folder / "category_1.csv").write_text("a, b\n")
    with pytest.raises(DataError, match=r"category_1\.csv:1: expected 1 columns"):
        load_prompts(named("hex-phi", folder))


@needs_real_rows
@pytest.mark.parametrize(
    ("suite", "file", "size", "search", "confirm"),
    [
        ("advbench", "advbench_harmful_behaviors.csv", 520, 266, 254),
        ("xstest-safe", "xstest_prompts.csv", 250, 118, 132),
        ("xstest-unsafe", "xstest_prompts.csv", 200, 106, 94),
    ],
)
def test_the_halves_of_the_real_suites(
    suite: str, file: str, size: int, search: int, confirm: int
) -> None:
    whole = named(suite, SHARED / file)
    sizes = [
        len(load_prompts(replace(whole, prompt_split=half)))
        for half in ("all", "search", "confirm")
    ]
    assert sizes == [size, search, confirm]
