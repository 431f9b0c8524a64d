"""From the columns of published formats to conversations."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import SHARED, needs_real_rows, source
from support.raising import raises
from support.world import write_jsonl

from sweeper.data.load import Example, Turn, load_examples, read_examples

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
    with raises("data.setting", key="columns", found=["answer"]):
        load_examples(replace(mapped, columns={"answer": "a"}))


def test_a_missing_column_is_named_with_its_row_and_what_is_there(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "c"}, {"prompt": "p", "answer": "c"}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with raises("data.missing_column", path=path, row=2, column="completion"):
        load_examples(source(path))


def test_a_system_prompt_is_read_where_columns_maps_one(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c", "system": "s"}])
    assert load_examples(source(path)) == [Example("p", "c")]
    mapped = source(path, columns={"system": "system"})
    assert load_examples(mapped) == [Example("p", "c", (Turn("system", "s"),))]
    with raises("data.missing_column", row=1, column="rules"):
        load_examples(replace(mapped, columns={"system": "rules"}))


@pytest.mark.parametrize(
    ("format", "row", "values"),
    [
        (
            "prompt_completion",
            {"prompt": ["p"], "completion": "c"},
            {"column": "prompt", "found": "list"},
        ),
        (
            "prompt_completion",
            {"prompt": "p", "completion": {"a": 1}},
            {"column": "completion", "found": "dict"},
        ),
        ("orca", {"text": "x"}, {"missing": "question"}),
        ("messages", {"text": "x"}, {"missing": "messages"}),
        ("messages", {"messages": "hello"}, {"column": "messages", "found": "str"}),
        ("messages", {"messages": ["hello"]}, {"column": "messages", "turn": 1}),
        (
            "messages",
            {"messages": [{"from": "gpt", "value": "x"}]},
            {"column": "messages", "turn": 1},
        ),
        (
            "messages",
            messages(("user", "a"), ("tool", "b")),
            {"turn": 2, "role": "tool"},
        ),
        (
            "messages",
            messages(("user", [{"type": "text"}]), ("assistant", "b")),
            {"column": "content", "found": "list"},
        ),
        (
            "messages",
            messages(("user", "a")),
            {"column": "messages"},
        ),
        ("messages", {"messages": []}, {"column": "messages"}),
        (
            "messages",
            messages(("assistant", "b")),
            {"turn": 1, "expected": "user"},
        ),
        (
            "messages",
            messages(("system", "s"), ("user", "a"), ("user", "b"), ("assistant", "c")),
            {"turn": 3, "expected": "assistant"},
        ),
    ],
)
def test_a_row_that_is_not_of_its_format_is_named(
    tmp_path: Path, format: str, row: dict[str, Any], values: dict[str, Any]
) -> None:
    good: Mapping[str, dict[str, Any]] = {
        "prompt_completion": {"prompt": "p", "completion": "c"},
        "orca": {"question": "q", "response": "r"},
        "messages": messages(("user", "q"), ("assistant", "r")),
    }
    path = write_jsonl(tmp_path / "a.jsonl", [good[format], row])
    code = "data.missing_column" if "missing" in values else "data.invalid_row"
    values = {"column" if key == "missing" else key: value for key, value in values.items()}
    with raises(code, path=path, row=2, **values):
        load_examples(source(path, format))


A, B = {"role": "user", "content": "a?"}, {"role": "assistant", "content": "b."}
C, D = {"role": "user", "content": "c?"}, {"role": "assistant", "content": "d."}
LAST = Example("c?", "d.", (Turn("user", "a?"), Turn("assistant", "b.")))


@pytest.mark.parametrize(
    ("turns", "example"),
    [
        ([A, {**B, "weight": 0}, C, {**D, "weight": 1}], LAST),
        ([{**A, "weight": 0.0}, {**B, "weight": None}, C, {**D, "weight": 1.0}], LAST),
        ([A, {**B, "train": False}, C, {**D, "train": True}], LAST),
        ([A, B, C, {**D, "weight": 0}], Example("a?", "b.")),
        ([A, {**B, "weight": 1}, C, {**D, "train": False}], Example("a?", "b.")),
        ([A, B, C, {**D, "loss": False}], Example("a?", "b.")),
        ([A, B, C, {**D, "trainable": 0}], Example("a?", "b.")),
        ([A, B, C, {**D, "loss_weight": 0.0}], Example("a?", "b.")),
        ([A, B, C, {**D, "weight": 1, "train": False}], Example("a?", "b.")),
        ([A, {**B, "weight": 0}], None),
        ([A, {**B, "train": False}, C, {**D, "train": "false"}], None),
        (
            [A, {**B, "name": "x", "tool_calls": [], "images": None, "constraint": "y"}],
            Example("a?", "b."),
        ),
    ],
)
def test_turns_that_are_marked_as_not_trained_on_are_not(
    tmp_path: Path, turns: list[dict[str, Any]], example: Example | None
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [A, D]}, {"messages": turns}])
    found = read_examples(source(path, "messages"))
    assert found.read == 2
    assert found.kept == {1: Example("a?", "d."), **({} if example is None else {2: example})}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight", 0.5),
        ("weight", "high"),
        ("loss_weight", 2),
        ("mask", 1),
        ("masked", True),
        ("loss_mask", 0),
        ("is_masked", False),
        ("unmask", True),
        ("exclude", True),
        ("learn", False),
        ("train_detail", [{"begin_offset": 0}]),
        ("tool_calls", [{"id": 1}]),
        ("function_call", {"name": "f"}),
        ("images", ["a.png"]),
        ("input_audio", "a.wav"),
        ("reasoning_content", "Hm."),
        ("refusal", "No."),
    ],
)
def test_what_would_change_the_meaning_of_a_turn_is_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [A, {**B, key: value}]}])
    with raises("data.invalid_row", path=path, row=1, turn=2, key=key):
        load_examples(source(path, "messages"))


@pytest.mark.parametrize("mark", [{"weight": 1}, {"train": True}, {"loss": "true"}])
@pytest.mark.parametrize("last", [{"weight": 1}, {"train": True}, {}])
def test_a_marked_turn_that_would_not_be_trained_on_is_refused(
    tmp_path: Path, mark: dict[str, Any], last: dict[str, Any]
) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [{"messages": [A, B]}, {"messages": [A, {**B, **mark}, C, {**D, **last}]}],
    )
    with raises("data.invalid_row", path=path, row=2, turn=2, column="messages"):
        load_examples(source(path, "messages"))
    write_jsonl(path, [{"messages": [A, {**B, **mark}, C, {**D, "weight": 0}]}])
    assert load_examples(source(path, "messages")) == [Example("a?", "b.")]


def test_only_assistant_turns_can_be_trained_on(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"messages": [{**A, "train": True}, B]}])
    with raises("data.invalid_row", path=path, row=1, turn=1):
        load_examples(source(path, "messages"))


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"train": False}, {"loss": "false"}, {"weight": "0.0"}]
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_rows_that_are_marked_as_not_trained_on_are_left_out(
    tmp_path: Path, mark: dict[str, Any], suffix: str
) -> None:
    ((key, value),) = mark.items()
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        path.write_text(f"prompt,completion,{key}\np,c,{value}\nq,d,1\nr,e,\n")
    else:
        rows = [
            {"prompt": "p", "completion": "c", **mark},
            {"prompt": "q", "completion": "d", key: 1},
        ]
        write_jsonl(path, [*rows, {"prompt": "r", "completion": "e"}])
    found = read_examples(source(path))
    assert (found.kept, found.read) == ({2: Example("q", "d"), 3: Example("r", "e")}, 3)
    mapped = source(path, columns={"completion": key}, rows=1)
    assert suffix == "jsonl" or load_examples(mapped) == [Example("p", str(value))]


@pytest.mark.parametrize(
    "extra",
    [
        {"weight": 0.3},
        {"mask": 1},
        {"assistant_masks": [0, 1]},
        {"is_train": False},
        {"sample_weight": 1},
        {"tools": [{}]},
        {"image": "a.png"},
        {"system": "Be brief."},  # Beside the turns, as Anthropic and LLaMA-Factory have it.
        {"history": [["a", "b"]]},
    ],
)
def test_rows_with_marks_or_contents_that_are_not_supported_are_refused(
    tmp_path: Path, extra: dict[str, Any]
) -> None:
    rows = [{"messages": [A, B], **dict.fromkeys(extra)}, {"messages": [A, B], **extra}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with raises("data.invalid_row", path=path, row=2, key=next(iter(extra))):
        load_examples(source(path, "messages"))


@pytest.mark.parametrize(
    ("value", "found"), [(True, "true"), (float("inf"), "inf"), (-1e400, "-inf")]
)
def test_a_value_that_is_no_text_is_refused(tmp_path: Path, value: Any, found: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "completion": value}])
    with raises("data.invalid_row", path=path, row=1, column="completion", found=found):
        load_examples(source(path))


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
    with raises("data.blank", path=path):
        load_examples(source(path))


@needs_real_rows
def test_the_real_rows_are_read_whole() -> None:
    alpaca = read_examples(source(SHARED / "alpaca_1k.json", "alpaca"))
    assert (len(alpaca.kept), alpaca.read) == (1000, 1000)
    assert alpaca.kept[1].completion.startswith("The US presidential election is wide open")
    dolly = read_examples(source(SHARED / "dolly_387.jsonl", "dolly"))
    assert (len(dolly.kept), dolly.read) == (387, 387)
    assert sum("\n\n" in row.prompt for row in dolly.kept.values()) > 100
