"""Folders and hub data sets of several files: every file is read, or left out by name."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.data_samples import cached, source
from support.raising import raises
from support.world import write_jsonl

from sweeper.data.load import unread_data
from sweeper.data.rows import read_rows, unread_files
from sweeper.errors import DataError
from sweeper.task import DataSettings, EvaluationSettings, PromptSuite

LINES = '{"prompt": "p", "completion": "c"}\n'
TABLE = "prompt,completion\np,c\n"
CARD = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: dolly.jsonl}
---
"""


def folder(place: Path, files: dict[str, str | int]) -> Path:
    """Files with that text, or with that many rows."""
    for name, text in files.items():
        path = place / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else LINES * text)
    return place / "mine"


@pytest.mark.parametrize(
    ("files", "known"),
    [
        ({"dolly.jsonl": 12, "dolly_dev.jsonl": 2}, "validation"),
        ({"alpaca.jsonl": 9, "math-test.jsonl": 3}, "test"),
        ({"a.jsonl": 8, "b.csv": TABLE}, "train"),
        ({"a.jsonl": 8, "b.JSONL": LINES, "c.CSV": TABLE}, "train"),
        ({"train.jsonl": 8, "test.jsonl": 2, "more.jsonl": 3}, "train"),
        ({"train-a.jsonl": 8, "train-b.csv": TABLE}, "train"),
        ({"dolly.jsonl": 12, "sub/eval.jsonl": 2}, "test"),
        ({"train/a.jsonl": 8, "b.jsonl": 2}, "train"),
        ({"a.csv": TABLE, "b.csv": TABLE, "c.xlsx": "x"}, "train"),
    ],
)
def test_files_of_no_split_are_refused_unless_a_split_is_requested(
    tmp_path: Path, files: dict[str, str | int], known: str
) -> None:
    place = folder(tmp_path, files)
    with raises("data.unknown_split", key="split", found=None):
        read_rows(source(place))
    with pytest.raises(DataError, match=rf"^mine: .* would be read as the split {known}, and "):
        read_rows(source(place))
    chosen = source(place, split=known)
    assert read_rows(chosen)
    assert f"(split {known}), not " in (unread_files(chosen) or "")


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        ({"a.jsonl": 3, "b.jsonl": 4}, 7),
        ({"a.jsonl": 3, "b.json": f"[{LINES}]"}, 4),
        ({"a.csv": TABLE, "sub/b.csv": TABLE}, 2),
        ({"a.tsv": "prompt\tcompletion\np\tc\n"}, 1),
        ({"dolly_dev.jsonl": 2}, 2),
        ({"a.jsonl": 3, "notes.txt": "x", "LICENSE": "x", "code.py": "x", ".old/b.csv": TABLE}, 3),
        ({"train/a.jsonl": 3, "train/b.jsonl": 4}, 7),
    ],
)
def test_all_files_of_one_format_are_read(
    tmp_path: Path, files: dict[str, str | int], rows: int
) -> None:
    place = folder(tmp_path, files)
    assert [row.number for row in read_rows(source(place))] == list(range(1, rows + 1))
    assert unread_files(source(place)) is None


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    place = folder(tmp_path, {"train.jsonl": 3, "test.jsonl": 1, "dev.jsonl": 1})
    assert len(read_rows(source(place))) == 3
    assert (
        unread_files(source(place)) == "reads train.jsonl (split train), not dev.jsonl, test.jsonl"
    )
    assert unread_files(source(place, split="test")) is None  # The others are left out by request.
    carded = folder(tmp_path / "b", {"README.md": CARD, "dolly.jsonl": 4, "dolly_dev.jsonl": 2})
    assert len(read_rows(source(carded))) == 4
    assert unread_files(source(carded)) == "reads dolly.jsonl (split train), not dolly_dev.jsonl"
    many = folder(tmp_path / "c", {"train.csv": TABLE, **{f"x{i}.csv": TABLE for i in range(9)}})
    chosen = source(many, split="train")
    assert unread_files(chosen) == (
        "reads train.csv (split train), not x0.csv, x1.csv, x2.csv, x3.csv, 5 more"
    )
    data = DataSettings(source(place), heldout=chosen)
    assert unread_data(data, EvaluationSettings(harmful=(source(carded, "prompts"),))) == [
        f"train: mine {unread_files(source(place))}",
        f"heldout: mine {unread_files(chosen)}",
        f"harmful: mine {unread_files(source(carded))}",
    ]
    gone = EvaluationSettings(harmful=(PromptSuite("own/none"), PromptSuite(suite="hex-phi")))
    assert unread_data(DataSettings(source("none.jsonl"), heldout_rows=1), gone) == []


def test_files_of_a_folder_are_read_like_single_files(tmp_path: Path) -> None:
    stray = folder(tmp_path, {"a.csv": TABLE, "b.csv": 'prompt,completion\np,"say it\nq,d\n'})
    with raises("data.malformed", path=stray / "b.csv", line=2):
        read_rows(source(stray))
    words = folder(tmp_path / "b", {"a.csv": "prompt,completion\n007,None\n1.50,NA\n"})
    assert [row.cells for row in read_rows(source(words))] == [
        {"prompt": "007", "completion": "None"},
        {"prompt": "1.50", "completion": "NA"},
    ]
    twice = folder(tmp_path / "c", {"a.jsonl": '{"prompt": "p", "completion": "c", "prompt": "q"}'})
    with raises("data.malformed", path=twice / "a.jsonl", line=1):
        read_rows(source(twice))
    half = folder(tmp_path / "d", {"a.jsonl": LINES + r'{"prompt": "\ud83d", "completion": "c"}'})
    with raises("data.malformed", path=half / "a.jsonl", line=2, row=2):
        read_rows(source(half))


def test_parquet_and_card_options_are_read_by_datasets(tmp_path: Path) -> None:
    place = folder(tmp_path, {})
    (tmp_path / "mine").mkdir()
    rows: list[dict[str, Any]] = [{"prompt": f"p{i}", "completion": "c"} for i in range(3)]
    for name in ("train-00000-of-00002", "train-00001-of-00002"):
        parquet.write_table(pa.Table.from_pylist(rows), place / f"{name}.parquet")
    assert len(read_rows(source(place))) == 6
    write_jsonl(place / "more.jsonl", rows)
    with raises("data.unknown_split", key="split"):
        read_rows(source(place))
    card = CARD.replace("dolly.jsonl}", "a.csv}\n  sep: '|'")
    bars = folder(tmp_path / "b", {"README.md": card, "a.csv": "prompt|completion\np, q|c\n"})
    assert [row.cells for row in read_rows(source(bars))] == [{"prompt": "p, q", "completion": "c"}]


def test_a_hub_data_set_follows_the_same_rule(offline_hub: Path) -> None:
    cached(offline_hub, "own/rows", {"dolly.jsonl": LINES * 4, "dolly_dev.jsonl": LINES})
    with raises("data.unknown_split", key="split", known=["validation"]):
        read_rows(source("own/rows"))
    chosen = source("own/rows", split="validation")
    assert len(read_rows(chosen)) == 1
    assert unread_files(chosen) == "reads dolly_dev.jsonl (split validation), not dolly.jsonl"
    cached(offline_hub, "own/card", {"README.md": CARD, "dolly.jsonl": LINES * 4, "x.csv": TABLE})
    assert len(read_rows(source("own/card"))) == 4
    assert unread_files(source("own/card")) == "reads dolly.jsonl (split train), not x.csv"


@pytest.mark.parametrize("copy", ["a.jsonl.bak", "a.jsonl.old", "a.json.2"])
def test_a_backup_copy_is_not_read_as_rows(tmp_path: Path, copy: str) -> None:
    place = folder(tmp_path, {"a.jsonl": 8, copy: 8})
    with pytest.raises(DataError, match=rf"{copy} would be read as rows, too"):
        read_rows(source(place))
    (place / copy).unlink()
    assert len(read_rows(source(place))) == 8
