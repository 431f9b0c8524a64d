"""From the columns of published formats to conversations."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import SHARED, needs_real_rows, source
from support.world import write_jsonl

from sweeper.data.load import Example, Turn, load_examples, read_examples
from sweeper.errors import DataError

SAID = [("system", "Be brief."), ("user", "a?"), ("assistant", "b."), ("user", "c?")]
TALK = (Turn("system", "Be brief."), Turn("user", "a?"), Turn("assistant", "b."))


def said(role: str, content: str, *turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{role: who, content: what} for who, what in turns]


def messages(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": said("role", "content", *turns)}


def conversations(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": said("from", "value", *turns)}


@pytest.mark.parametrize(
    ("format", "row", "example"),
    [
        ("prompt_completion", {"prompt": "p", "completion": "c"}, Example("p", "c")),
        ("alpaca", {"instruction": "i", "input": "x", "output": "o"}, Example("i\n\nx", "o")),
        ("alpaca", {"instruction": "i", "input": " ", "output": "o"}, Example("i", "o")),
        ("alpaca", {"instruction": "i", "output": "o"}, Example("i", "o")),
        ("dolly", {"instruction": "i", "context": "x", "response": "o"}, Example("i\n\nx", "o")),
        ("dolly", {"instruction": "i", "context": None, "response": "o"}, Example("i", "o")),
        ("prompt_completion", {"prompt": 3, "completion": 0}, Example("3", "0")),
        (
            "orca",
            {"id": "x", "system_prompt": "Be brief.", "question": "q", "response": "r"},
            Example("q", "r", (Turn("system", "Be brief."),)),
        ),
        (
            "orca",
            {"id": "x", "system_prompt": "", "question": "q", "response": "r"},
            Example("q", "r"),
        ),
        (
            "orca",
            conversations(("system", "Be brief."), ("human", "q"), ("gpt", "r")),
            Example("q", "r", (Turn("system", "Be brief."),)),
        ),
        ("messages", messages(("user", "q"), ("assistant", "r")), Example("q", "r")),
        ("messages", messages(*SAID, ("assistant", "d.")), Example("c?", "d.", TALK)),
        (
            "messages",
            messages(*SAID, ("assistant", "d."), ("user", "e?")),
            Example("c?", "d.", TALK),
        ),
        ("messages", messages(*SAID), Example("a?", "b.", TALK[:1])),
    ],
)
def test_a_format_knows_its_published_columns(
    tmp_path: Path, format: str, row: dict[str, Any], example: Example
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    assert load_examples(source(path, format)) == [example]


def test_columns_map_our_names_to_those_of_the_file(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "p", "a": "c"}])
    mapped = source(path, columns={"prompt": "q", "completion": "a"})
    assert load_examples(mapped) == [Example("p", "c")]
    with pytest.raises(DataError, match="`columns` may map prompt, completion, system, found"):
        load_examples(replace(mapped, columns={"answer": "a"}))


def test_a_missing_column_is_named_with_its_row_and_what_is_there(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "answer": "c"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match=r"no column `completion` in row 2; it has prompt, answer; .*`columns`"
    ):
        load_examples(source(path))


def test_a_system_prompt_is_read_where_columns_maps_one(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c", "system": "s"}])
    assert load_examples(source(path)) == [Example("p", "c")]
    mapped = source(path, columns={"system": "system"})
    assert load_examples(mapped) == [Example("p", "c", (Turn("system", "s"),))]
    with pytest.raises(DataError, match="no column `rules` in row 1"):
        load_examples(replace(mapped, columns={"system": "rules"}))


@pytest.mark.parametrize(
    ("format", "row", "problem"),
    [
        (
            "prompt_completion",
            {"prompt": ["p"], "completion": "c"},
            "`prompt` is not text but a list",
        ),
        (
            "prompt_completion",
            {"prompt": "p", "completion": {"a": 1}},
            "`completion` is not text but a dict",
        ),
        ("orca", {"text": "x"}, r"no column `question` in row 2; it has text; map names with"),
        ("messages", {"text": "x"}, r"no column `messages` in row 2"),
        ("messages", {"messages": "hello"}, "`messages` is not a list of turns but a str"),
        ("messages", {"messages": ["hello"]}, "turn 1 of `messages` needs `role` and `content`"),
        (
            "messages",
            {"messages": [{"from": "gpt", "value": "x"}]},
            "turn 1 of `messages` needs `role`",
        ),
        (
            "messages",
            messages(("user", "a"), ("tool", "b")),
            "turn 2: the role 'tool' is none of system,",
        ),
        (
            "messages",
            messages(("user", [{"type": "text"}]), ("assistant", "b")),
            "`content` is not text but a list",
        ),
        (
            "messages",
            messages(("user", "a")),
            "`messages` has no turn of the assistant to train on",
        ),
        ("messages", {"messages": []}, "`messages` has no turn of the assistant to train on"),
        (
            "messages",
            messages(("assistant", "b")),
            "turn 1 is the assistant's, but it is the user's turn",
        ),
        (
            "messages",
            messages(("system", "s"), ("user", "a"), ("user", "b"), ("assistant", "c")),
            "turn 3 is the user's, but it is the assistant's turn",
        ),
    ],
)
def test_a_row_that_is_not_of_its_format_is_named(
    tmp_path: Path, format: str, row: dict[str, Any], problem: str
) -> None:
    good: Mapping[str, dict[str, Any]] = {
        "prompt_completion": {"prompt": "p", "completion": "c"},
        "orca": {"question": "q", "response": "r"},
        "messages": messages(("user", "q"), ("assistant", "r")),
    }
    path = write_jsonl(tmp_path / "a.jsonl", [good[format], row])
    with pytest.raises(DataError, match=rf"a\.jsonl: .*{problem}") as caught:
        load_examples(source(path, format))
    assert "row 2" in str(caught.value)


def test_rows_without_text_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "completion": " "},
        {"prompt": "p", "completion": "c"},
        {"prompt": "", "completion": "c"},
        {"prompt": "p", "completion": None},
        {"prompt": "p", "completion": float("nan")},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    found = read_examples(source(path))
    assert (found.kept, found.read) == ({2: Example("p", "c")}, 5)
    path = write_jsonl(tmp_path / "b.jsonl", rows[:1] * 3)
    with pytest.raises(
        DataError, match=r"each of 3 rows has a blank prompt or completion; map oth"
    ):
        load_examples(source(path))


@needs_real_rows
def test_the_real_rows_are_read_whole() -> None:
    alpaca = read_examples(source(SHARED / "alpaca_1k.json", "alpaca"))
    assert (len(alpaca.kept), alpaca.read) == (1000, 1000)
    assert alpaca.kept[1].completion.startswith("The US presidential election is wide open")
    dolly = read_examples(source(SHARED / "dolly_387.jsonl", "dolly"))
    assert (len(dolly.kept), dolly.read) == (387, 387)
    assert sum("\n\n" in row.prompt for row in dolly.kept.values()) > 100
