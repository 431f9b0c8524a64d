"""Rows of files as they stand there, and which of them are taken."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.data_samples import pairs, source
from support.raising import raises
from support.world import write_jsonl

from sweeper.data.load import Example, load_examples
from sweeper.data.rows import Row, read_rows, rows_hash
from sweeper.errors import DataError


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a, b", "completion": 'he said "x"\nand é'},
        {"prompt": "c", "completion": "d"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    write_jsonl(tmp_path / "a.jsonl", rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    text = 'prompt,completion\n"a, b","he said ""x""\nand é"\nc,d\n'
    (tmp_path / "a.csv").write_text(text, encoding="utf-8-sig")
    for name in ("a.json", "a.jsonl", "a.csv", "a.parquet"):
        found = read_rows(source(tmp_path / name))
        assert found == [Row(1, rows[0]), Row(2, rows[1])]


def test_blank_lines_of_a_jsonl_file_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"prompt": "a", "completion": "b"}\n   \n')
    assert load_examples(source(path)) == [Example("a", "b")]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": \n', ("malformed", {"line": 2})),
        ("a.jsonl", b'\n\n{"a": 1} x\n', ("malformed", {"line": 3})),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', ("malformed", {"row": 2})),
        ("a.jsonl", b"", ("empty", {})),
        ("a.jsonl", b"\n \n", ("empty", {})),
        ("a.jsonl", b'{"prompt": "\xff"}\n', ("unreadable", {"byte": 12})),
        ("a.json", b'[{"a": 1},\n{"a": }]', ("malformed", {"line": 2})),
        ("a.json", b'{"a": 1}', ("malformed", {})),
        ("a.json", b"[]", ("empty", {})),
        ("a.json", b"[1]", ("malformed", {"row": 1})),
        ("a.csv", b"prompt,completion\n", ("empty", {})),
        ("a.csv", b"prompt,completion\na,b\nc\n", ("malformed", {"line": 3})),
        ("a.csv", b"prompt,completion\na,b,c\n", ("malformed", {"line": 2})),
        ("a.parquet", b"PAR1 broken PAR1", ("malformed", {})),
        ("a.txt", b"x", ("unknown_format", {})),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: bytes, fault: tuple[str, dict[str, int]]
) -> None:
    (tmp_path / name).write_bytes(content)
    with raises(f"data.{fault[0]}", path=tmp_path / name, **fault[1]):
        load_examples(source(tmp_path / name))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with raises("data.not_found", path=tmp_path / "gone.jsonl"):
        read_rows(source(tmp_path / "gone.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    with raises("data.malformed", path=tmp_path / "folder.jsonl"):
        read_rows(source(tmp_path / "folder.jsonl"))


def test_where_and_rows_choose_in_file_order_and_keep_the_numbers(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "kind": i % 2} for i in range(6)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    chosen = source(path, where={"kind": "1"}, rows=2)
    assert read_rows(chosen) == [Row(2, rows[1]), Row(4, rows[3])]
    assert [row.number for row in read_rows(chosen, every=True)] == [2, 4, 6]
    with raises("data.empty", where={"kind": "7"}):
        read_rows(replace(chosen, where={"kind": "7"}))


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ({"ok": "true"}, [1, 3]),
        ({"ok": "True"}, [1, 3]),
        ({"ok": "false"}, [2]),
        ({"n": "0"}, [1, 2]),
        ({"n": "0.0"}, [1, 2]),
        ({"n": "1"}, [3]),
        ({"x": "null"}, [1]),
        ({"s": "safe"}, [1]),
        ({"ok": "true", "s": "0.0"}, [3]),
    ],
)
def test_where_takes_the_words_of_json(
    tmp_path: Path, where: dict[str, str], numbers: list[int]
) -> None:
    rows: list[dict[str, Any]] = [
        {"ok": True, "n": 0.0, "x": None, "s": "safe"},
        {"ok": False, "n": 0, "x": "y", "s": "safe "},
        {"ok": True, "n": 1, "x": "", "s": "0.0"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert [row.number for row in read_rows(source(path, where=where))] == numbers


def test_a_where_without_rows_shows_the_values_of_the_column_but_no_long_text(
    tmp_path: Path,
) -> None:
    rows = [{"ok": i > 3, "kind": i, "prompt": "long " * 20} for i in range(7)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    for where, shown in (
        ({"ok": "yes"}, "which has 'false', 'true'"),
        ({"ok": "true", "kind": "2"}, "which has '4', '5', '6'"),
        ({"kind": "x"}, "which has '0', '1', '2', '3', '4', ..."),
        ({"prompt": "x"}, "which has 'long long long long '"),
    ):
        with pytest.raises(DataError, match=re.escape(shown) + "$"):
            read_rows(source(path, where=where))


def test_a_where_column_that_some_row_lacks_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "p", "kind": 1}, {"prompt": "p"}])
    with raises("data.missing_column", row=2, column="kind"):
        read_rows(source(path, where={"kind": "1"}))


def test_a_draw_is_that_of_its_seed_and_grows_with_its_size(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(40))

    def drawn(rows: int, seed: int) -> list[int]:
        return [row.number for row in read_rows(source(path, rows=rows, sample_seed=seed))]

    assert drawn(6, 0) == [
        8,
        16,
        19,
        21,
        26,
        37,
    ]  # What a draw is must not change between versions.
    assert drawn(6, 0) == sorted(drawn(6, 0))
    assert set(drawn(6, 0)) < set(drawn(9, 0))
    assert drawn(6, 1) != drawn(6, 0)
    assert len(drawn(500, 0)) == 40
    first = source(path, rows=6)
    assert [row.number for row in read_rows(first)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["subset", "split", "revision"])
def test_what_belongs_to_a_data_set_is_refused_for_a_file(tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", pairs(2))
    with raises("data.setting", path=path, key=name):
        read_rows(source(path, **{name: "main"}))


def test_the_hash_of_a_file_is_that_of_its_content(tmp_path: Path) -> None:
    a, b = (write_jsonl(tmp_path / name, pairs(2)) for name in ("a.jsonl", "b.jsonl"))
    assert rows_hash(source(a)) == rows_hash(source(b)) is not None
    write_jsonl(b, pairs(3))
    assert rows_hash(source(a)) != rows_hash(source(b))
    assert rows_hash(source(tmp_path / "gone.jsonl")) is None
