"""JSON rows: lists and lines whatever the suffix, and what is refused with its line."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.data_samples import source
from support.raising import raises

from sweeper.data.files import read_file
from sweeper.data.load import load_examples, load_prompts

ROWS = [{"prompt": f"p{i}", "completion": "é \U0001f600\u2028"} for i in range(3)]
LIST = json.dumps(ROWS)
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".ndjson"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n\n"])
@pytest.mark.parametrize(
    "text",
    [LIST, json.dumps(ROWS, indent=2), LINES, LINES.replace("\n", "\r\n\r\n"), LINES + "\n \n"],
)
def test_a_list_and_lines_are_read_under_either_name(
    tmp_path: Path, text: str, before: str, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes((before + text).encode())
    assert read_file(path) == ROWS


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("a.jsonl", '{"a": "1"}\n{"a": "1", "b": 2, "a": "3"}', {"line": 2}),
        ("a.json", '[{"a": 1},\n {"b": {"a": 1, "a": 1}}]', {"line": 2}),
        ("a.json", '{"a": 1}\n{"a": 1', {"line": 2}),
        ("a.json", '{"a": 1}\n[2]', {"line": 2, "row": 2}),
        ("a.json", '{\n"a": 1\n}', {}),
        ("a.json", '{"train": [{"a": 1}]}', {}),
        ("a.json", '"text"', {}),
        ("a.json", '[{"a": 1}] x', {"line": 1}),
        ("a.json", '[{"a": 1}\n{"a": 2}]', {"line": 2}),
        ("a.json", '[{"a": 1},\n]', {"line": 2}),
        ("a.json", '[{"a": 1},\n', {"line": 2}),
        ("a.jsonl", '[{"a": 1}]\n[{"a": 2}]', {"line": 2}),
        ("a.jsonl", '{"a": 1} {"a": 2}', {"line": 1}),
        ("a.jsonl", '{"a": 1}\nnull', {"line": 2, "row": 2}),
        ("a.jsonl", '{"a": ' + "9" * 5000 + "}", {"line": 1}),
        ("a.jsonl", "[" * 100_000, {"line": 1}),
    ],
)
def test_what_is_not_rows_is_refused_with_its_line(
    tmp_path: Path, name: str, text: str, values: dict[str, Any]
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with raises("data.malformed", path=path, **values):
        read_file(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"data": ROWS}, "rows in `data` (3 objects); write that list alone into the file"),
        (
            {"version": 1, "my rows": ROWS, "dev": ROWS[:2]},
            "`my rows` (3 objects), `dev` (2 objects)",
        ),
        ({"prompt": ["a", "b"], "completion": ["c", "d"]}, 'pandas with `orient="records"`'),
        ({"prompt": {"0": "a"}, "completion": {"0": "c"}}, 'pandas with `orient="records"`'),
        (ROWS[0], "write it into a list if it is a row"),
        ({"meta": {"a": 1}, "data": []}, "a single object"),
        ({}, "a single object"),
    ],
)
def test_an_object_around_the_rows_is_refused_with_what_to_do(
    tmp_path: Path, content: dict[str, Any], found: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with raises("data.malformed", path=path) as caught:
        read_file(path)
    assert found in str(caught.value)
    assert "'.[\"my rows\"]'" in str(caught.value) or "my rows" not in content


@pytest.mark.parametrize("text", [LIST, LINES])
def test_utf_16_and_nul_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text.encode("utf-16"))
    with raises("data.unreadable", path=path):
        read_file(path)
    path.write_bytes(text.encode("utf-16-le", "surrogatepass"))
    with raises("data.unreadable", path=path):
        read_file(path)


@pytest.mark.parametrize(
    "row",
    [
        r'{"prompt": "a \ud83d b", "completion": "c"}',
        r'{"prompt": "a", "completion": "c \uDE00"}',
        r'{"prompt": "a", "completion": "c", "id": "\ude00\ud83d"}',
        r'{"prompt": "a", "completion": "c", "\ud83d": 1}',
        r'{"prompt": "a", "completion": "c", "tags": [{"x\udfff": ["y"]}]}',
    ],
)
def test_half_a_character_is_refused_with_its_row(tmp_path: Path, row: str) -> None:
    good = r'{"prompt": "a \ud83d\ude00", "completion": "c"}'
    for name, text in (("a.jsonl", f"{good}\n\n{row}\n"), ("b.json", f"[{good},\n\n{row}]")):
        path = tmp_path / name
        path.write_text(text)
        with raises("data.malformed", path=path, line=3, row=2):
            load_examples(source(path))
        with raises("data.malformed", path=path, line=3, row=2):
            load_prompts(source(path, "prompts"))
    path.write_text(good)
    with raises("data.malformed", path=path):  # One object in a .json file is no list.
        read_file(path)
    path.write_text(f"[{good}]")
    assert load_examples(source(path))[0].prompt == "a \U0001f600"
