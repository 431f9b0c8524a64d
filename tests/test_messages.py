"""What a user reads of wrong inputs: `snapshots/messages.txt`. Other tests assert codes and values."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.data_samples import source
from support.factories import make_spec
from support.raising import check
from support.snapshot import Snapshot

from sweeper.data.labelled import read_labelled
from sweeper.data.load import load_examples
from sweeper.data.sources import resolve
from sweeper.errors import SweeperError
from sweeper.judges.keyword import find_keyword_list
from sweeper.judges.remote import HttpJudge
from sweeper.keywords.lists import load_keyword_list
from sweeper.launch.options import options_of
from sweeper.memory import read_shape
from sweeper.model.files import check_model
from sweeper.search.storages import open_storage
from sweeper.store.folder import RunFolder
from sweeper.task import ModelSource

FILES = {
    "blank.jsonl": '{"prompt": " ", "completion": "b"}\n',
    "columns.csv": "question,answer\na,b\n",
    "empty.jsonl": "",
    "labels.csv": "prompt,completion,final_label\na,b,maybe\n",
    "list.yaml": "phrases: 3\n",
    "nested.jsonl": '{"prompt": {"a": 1}, "completion": "b"}\n',
    "rows.txt": "a",
    "torn.jsonl": '{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n',
}

WRONG: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a data file that is not there": ("data.not_found", lambda f: rows(f, "none.jsonl")),
    "an empty data file": ("data.empty", lambda f: rows(f, "empty.jsonl")),
    "a torn line": ("data.malformed", lambda f: rows(f, "torn.jsonl")),
    "other columns": ("data.missing_column", lambda f: rows(f, "columns.csv")),
    "a nested value": ("data.invalid_row", lambda f: rows(f, "nested.jsonl")),
    "blank rows": ("data.blank", lambda f: rows(f, "blank.jsonl")),
    "another kind of file": ("data.unknown_format", lambda f: rows(f, "rows.txt")),
    "a builtin name": ("data.builtin", lambda f: resolve("builtin:other/model")),
    "an unknown keyword list": ("data.keyword_list", lambda f: load_keyword_list("zou")),
    "a wrong keyword list": (
        "data.keyword_list",
        lambda f: find_keyword_list(str(f / "list.yaml")),
    ),
    "an unknown label": ("data.unknown_label", lambda f: read_labelled(f / "labels.csv")),
    "a model that is not there": ("model.not_found", lambda f: check_model(model(f / "none"))),
    "a folder without a model": ("model.not_found", lambda f: check_model(model(f))),
    "a shape that is not there": ("model.not_found", lambda f: read_shape(str(f))),
    "no run": ("run.not_a_run", lambda f: RunFolder(f).open()),
    "an address of a judge": ("judge.base_url", lambda f: HttpJudge("m", "ftp://host")),
    "a storage": ("study_storage.not_a_url", lambda f: open_storage("somewhere")),
    "options of a launch": ("launch.option", lambda f: options_of("slurm", {"image": "x"})),
    "a key of a sweep": ("spec", lambda f: make_spec("space.lerning_rate=1", "seeds=[]")),
}


def rows(folder: Path, name: str) -> object:
    return load_examples(source(folder / name))


def model(path: Path) -> ModelSource:
    return ModelSource(str(path))


def test_the_messages_of_wrong_inputs(tmp_path: Path, snapshot: Snapshot) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    shown = []
    for fault, (code, provoke) in WRONG.items():
        with pytest.raises(SweeperError) as caught:
            provoke(tmp_path)
        check(caught.value, code)
        shown.append(f"{fault} [{code}]\n{caught.value}\n")
    snapshot("messages", "\n".join(shown), {tmp_path: "FOLDER"})
