"""CSV, JSON, Parquet and folders of JSON files become rows; what cannot is refused once, with a reason."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.data_samples import SHARED, needs_real_rows

from sweeper.errors import DataError
from sweeper.importing import files, table
from sweeper.importing.detect import KINDS, read_table
from sweeper.importing.table import flat, last_state, value_of_text


def write(path: Path, content: object) -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_gives_typed_cells_and_lines(tmp_path: Path) -> None:
    text = ',lr,method,ok,loss,id\n0,1e-4,lora,true,0.5,007\n1,2e-4,"a,b",False,,12\n'
    found = read_table(write(tmp_path / "runs.csv", text))
    assert (found.kind, found.refused) == ("csv", ())
    assert [row.where for row in found.rows] == ["runs.csv:2", "runs.csv:3"]
    first, second = (row.values for row in found.rows)
    assert first == {"lr": 1e-4, "method": "lora", "ok": True, "loss": 0.5, "id": "007"}
    assert second == {"lr": 2e-4, "method": "a,b", "ok": False, "loss": None, "id": 12}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0", 0),
        ("00", "00"),
        ("1.", 1.0),
        (".5e-3", 0.0005),
        ("1_000", "1_000"),
        ("0,5", "0,5"),
        ("", None),
        ("None", None),
        ("TRUE", True),
        ("-inf", -math.inf),
        ("nano", "nano"),
    ],
)
def test_a_cell_is_a_number_only_if_it_is_written_as_one(text: str, value: object) -> None:
    assert value_of_text(text) == value
    assert type(value_of_text(text)) is type(value)


def test_nan_stays_nan() -> None:
    value = value_of_text("NaN")
    assert isinstance(value, float) and math.isnan(value)


def test_rows_of_json_by_list_by_line_and_alone(tmp_path: Path) -> None:
    rows = [{"lr": 1, "eval": {"acc": 0.5, "tags": ["a", "b"]}}, {"lr": 2}]
    by_list = read_table(write(tmp_path / "list.json", rows))
    by_line = read_table(write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows))))
    lines_in_json = read_table(write(tmp_path / "b.json", "\n".join(map(json.dumps, rows))))
    alone = read_table(write(tmp_path / "one.json", rows[0]))
    expected = {"lr": 1, "eval.acc": 0.5, "eval.tags": '["a", "b"]'}
    for found in (by_list, by_line, lines_in_json, alone):
        assert found.kind == "json"
        assert found.rows[0].values == expected
    assert [row.where for row in by_list.rows] == ["list.json: row 1", "list.json: row 2"]
    assert [row.where for row in alone.rows] == ["one.json"]


def test_parquet_is_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"lr": [1e-4, 2e-4], "acc": [0.5, None]})
    frame.to_parquet(tmp_path / "runs.parquet", index=False)
    found = read_table(tmp_path / "runs.parquet")
    assert found.kind == "parquet"
    assert found.rows[0].values == {"lr": 1e-4, "acc": 0.5}
    assert len(found.rows) == 2


def test_of_a_log_the_last_step_counts_and_nothing_older() -> None:
    log = [
        {"step": 1, "acc": 0.1, "old": 9},
        {"step": 2, "acc": 0.2},
        {"step": 2, "test": 0.3},
    ]
    assert last_state(log) == {"step": 2, "acc": 0.2, "test": 0.3}
    assert flat({"m": log}) == {"m.last.step": 2, "m.last.acc": 0.2, "m.last.test": 0.3}
    assert flat({"m": [{"acc": 0.1}]}) == {"m": '[{"acc": 0.1}]'}


def nested(levels: int) -> dict[str, object]:
    tree: dict[str, object] = {"a": 1}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


def test_levels_of_keys_are_bounded() -> None:
    assert list(flat(nested(table.MAX_DEPTH)).values()) == [1]
    with pytest.raises(ValueError, match="more than 20 levels"):
        flat(nested(table.MAX_DEPTH + 1))


def test_names_are_shown_without_control_characters(tmp_path: Path) -> None:
    found = read_table(write(tmp_path / "a\x1b[31m\nb.json", [{"x\x1b[0m\u202e": 1}]))
    assert found.rows[0].where == "a\\x1b[31m\\nb.json: row 1"
    assert dict(found.rows[0].values) == {"x\\x1b[0m\\u202e": 1}


def test_a_folder_of_results_counts_every_file_that_it_refuses(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"run{number}.json", {"lr": number, "acc": 0.5})
    write(tmp_path / "torn.json", '{"lr": 1, "acc": 0.')
    write(tmp_path / "twice.json", '{"lr": 1, "lr": 2}')
    write(tmp_path / "words.json", {"name": "a"})
    write(tmp_path / "both.json", {"a.b": 1, "a": {"b": 2}})
    write(tmp_path / "notes.txt", "not a result")
    outside = write(tmp_path.parent / "outside.json", {"lr": 9})
    (tmp_path / "link.json").symlink_to(outside)
    (tmp_path / "inner.json").symlink_to(tmp_path / "run0.json")
    os.mkfifo(tmp_path / "pipe.json")
    found = read_table(tmp_path)
    assert found.kind == "json_folder"
    assert [row.values["file"] for row in found.rows] == [
        "inner.json",
        "run0.json",
        "run1.json",
        "run2.json",
    ]
    reasons = dict(found.refused)
    assert set(reasons) == {
        "link.json",
        "torn.json",
        "twice.json",
        "words.json",
        "both.json: row 1",
        "pipe.json",
    }
    assert reasons["link.json"] == "a link out of the folder is not followed"
    assert "malformed JSON" in reasons["torn.json"]
    assert "duplicate key" in reasons["twice.json"]
    assert "without numbers" in reasons["words.json"]
    assert "two values for the column `a.b`" in reasons["both.json: row 1"]
    assert "neither a regular file" in reasons["pipe.json"]
    assert not any(str(tmp_path) in reason for reason in reasons.values())


BAD: dict[str, tuple[str, str | bytes, str, str]] = {
    "no such kind": ("a.txt", "hello", "data.unknown_format", "not a source of a known kind"),
    "empty CSV": ("a.csv", "", "data.empty", "no run to import"),
    "header only": ("a.csv", "lr,acc\n", "data.empty", "no run to import"),
    "equal columns": ("a.csv", "a,a\n1,2\n", "data.malformed", "duplicate column `a`"),
    "ragged CSV": ("a.csv", "a,b\n1\n", "data.malformed", "expected 2 columns"),
    "open quotation": ("a.csv", 'a,b\n"1,2\n', "data.malformed", "never closed"),
    "UTF-16": ("a.csv", "a,b\n1,2\n".encode("utf-16"), "data.unreadable", "UTF-16"),
    "truncated JSON": ("a.json", '{"a": 1', "data.malformed", "malformed JSON"),
    "truncated list": ("a.json", '[{"a": 1}, {"a"', "data.malformed", "malformed JSON"),
    "empty list": ("a.json", "[]", "data.empty", "no run to import"),
    "a number": ("a.json", "3", "data.malformed", "a single value"),
    "rows that are numbers": ("a.json", "[1, 2]", "data.malformed", "expected an object"),
    "columns": ("a.json", '{"a": {"0": 1}, "b": {"0": 2}}', "data.malformed", "columns instead"),
    "columns as lists": ("a.json", '{"a": [1], "b": [2]}', "data.malformed", "columns instead"),
    "not Parquet": ("a.parquet", b"PAR1 no", "data.malformed", "not a readable parquet"),
    "a pickle by name": ("a.pkl", b"x", "data.unreadable", "never loaded"),
    "a pickle by content": ("a.json", b"\x80\x04\x95", "data.unreadable", "never loaded"),
    "deep JSON": ("a.json", '{"a":' * 5000 + "1" + "}" * 5000, "data.malformed", "nested"),
    "an LFS pointer": ("a.csv", "version https://git-lfs.github", "data.unreadable", "LFS"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_has_one_message(fault: str, tmp_path: Path) -> None:
    name, content, code, part = BAD[fault]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert (caught.value.code, "\n" in str(caught.value)) == (code, False)
    assert part in str(caught.value)


PLACES: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "missing": (lambda f: f / "none.csv", "data.not_found", "check the path"),
    "a NUL in the name": (lambda f: f / "a\0b", "data.not_found", "check the path"),
    "an empty folder": (lambda f: f, "data.unknown_format", "not a source of a known kind"),
    "a device": (lambda f: Path(os.devnull), "data.unreadable", "neither a regular file"),
}


@pytest.mark.parametrize("fault", PLACES)
def test_a_bad_place_has_one_message(fault: str, tmp_path: Path) -> None:
    make, code, part = PLACES[fault]
    with pytest.raises(DataError) as caught:
        read_table(make(tmp_path))
    assert (caught.value.code, "\n" in str(caught.value)) == (code, False)
    assert part in str(caught.value)


def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="known: tamperbench, optuna") as caught:
        read_table(write(tmp_path / "a.csv", "a,b\n1,2\n"), kind="exel")
    assert caught.value.values["known"] == list(KINDS)


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", "a,b\n1,2\n")
    monkeypatch.setattr(files, "MAX_BYTES", path.stat().st_size)
    assert len(read_table(path).rows) == 1
    monkeypatch.setattr(files, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match="GiB are read"):
        read_table(path)


def test_numbers_of_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.json", {"a": number})
    monkeypatch.setattr(files, "MAX_FILES", 3)
    assert len(read_table(tmp_path).rows) == 3
    monkeypatch.setattr(files, "MAX_FILES", 2)
    with pytest.raises(DataError, match="more than 2 files"):
        read_table(tmp_path)


@needs_real_rows
def test_real_results_of_peft_have_their_last_state() -> None:
    found = read_table(SHARED / "peft_metamathqa")
    assert (found.kind, len(found.rows), found.refused) == ("json_folder", 63, ())
    (row,) = [row for row in found.rows if row.where == "lora--llama-3.2-3B-rank32.json"]
    last = "train_info.metrics.last."
    assert row.values[f"{last}step"] == 5000
    assert row.values[f"{last}test accuracy"] == pytest.approx(0.47839, abs=1e-5)
    assert row.values[f"{last}forgetting"] == pytest.approx(0.049956, abs=1e-6)
    assert isinstance(row.values[f"{last}valid accuracy"], float)
    assert row.values["run_info.train_config.optimizer_kwargs.lr"] == 1e-4
    assert row.values["train_info.accelerator_memory_max"] == 22292725760
