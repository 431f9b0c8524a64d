"""Data sets of the hub, from a cache laid out in code; the network is never reached for."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import httpx2
import huggingface_hub
import pyarrow as pa
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from pyarrow import parquet
from support.data_samples import COMMIT, cached, jsonl, pairs, source

from sweeper.data.hub import is_hub_id
from sweeper.data.load import check_cached, data_hash, load_examples, load_prompts
from sweeper.data.rows import read_rows
from sweeper.errors import DataError, MissingExtraError
from sweeper.task import PromptSuite

OTHER = "f" * 40


pytestmark = pytest.mark.usefixtures("offline_hub")


def own(name: str = "own/rows", **fields: Any) -> PromptSuite:
    return PromptSuite(name, **{"format": "prompt_completion", "prompt_split": "all", **fields})


CARD = """---
configs:
- config_name: plain
  data_files:
  - {split: train, path: plain/train.jsonl}
  - {split: test, path: plain/test.jsonl}
- config_name: other
  data_files:
  - {split: test, path: plain/test.jsonl}
---
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tatsu-lab/alpaca", True),
        ("gsm8k", True),
        ("rows.jsonl", False),
        ("data/rows", True),
        ("./data/rows", False),
        ("/data/rows", False),
        ("a/b/c", False),
        ("", False),
    ],
)
def test_an_id_is_told_from_a_path(path: str, expected: bool) -> None:
    assert is_hub_id(path) == expected


def test_what_exists_here_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "rows").mkdir(parents=True)
    assert not is_hub_id("data/rows")


def test_a_cached_data_set_is_read_without_network(offline_hub: Path, tmp_path: Path) -> None:
    cached(offline_hub, "own/rows", {"train.jsonl": jsonl(pairs(5), tmp_path)})
    found = read_rows(own(rows=2, where={"completion": "c3"}))
    assert [(row.number, row.cells) for row in found] == [(4, pairs(4)[3])]
    assert [row.prompt for row in load_examples(own())] == ["p0", "p1", "p2", "p3", "p4"]
    assert data_hash(own()) == f"own/rows@{COMMIT}"
    drawn = [row.number for row in read_rows(own(rows=3, sample_seed=0))]
    local = source(offline_hub / "datasets--own--rows/snapshots" / COMMIT / "train.jsonl")
    assert drawn == [row.number for row in read_rows(replace(local, rows=3, sample_seed=0))]


def test_turns_survive_the_way_through_datasets(offline_hub: Path, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r", "weight": 1}]
    cached(offline_hub, "own/talks", {"data.jsonl": jsonl([{"conversations": turns}], tmp_path)})
    (example,) = load_examples(own("own/talks", format="orca"))
    assert (example.prompt, example.completion) == ("q", "r")
    table = pa.Table.from_pylist([{"messages": [{"role": "user", "content": "q"}]}] * 2)
    with pytest.raises(DataError, match="row 1: `messages` has no assistant turn"):
        parquet.write_table(table, tmp_path / "a.parquet")
        load_examples(source(tmp_path / "a.parquet", "messages"))


def test_a_revision_is_read_as_it_was(offline_hub: Path, tmp_path: Path) -> None:
    cached(offline_hub, "own/rows", {"train.jsonl": jsonl(pairs(5), tmp_path)})
    cached(offline_hub, "own/rows", {"train.jsonl": jsonl(pairs(2), tmp_path)}, OTHER, "v1")
    sizes = {name: len(read_rows(own(revision=name))) for name in (None, "v1", OTHER, COMMIT)}
    assert sizes == {None: 5, "v1": 2, OTHER: 2, COMMIT: 5}
    assert data_hash(own(revision="v1")) == f"own/rows@{OTHER}"
    with pytest.raises(DataError, match="hub at revision `v2` is not in the cache"):
        read_rows(own(revision="v2"))


def test_subset_and_split_choose_and_wrong_ones_are_named(
    offline_hub: Path, tmp_path: Path
) -> None:
    files = {
        "README.md": CARD,
        "plain/train.jsonl": jsonl(pairs(5), tmp_path),
        "plain/test.jsonl": jsonl(pairs(2), tmp_path),
    }
    cached(offline_hub, "own/rows", files)
    assert len(read_rows(own(subset="plain"))) == 5
    assert len(read_rows(own(subset="plain", split="test"))) == 2
    assert len(read_rows(own(subset="other"))) == 2
    for fields, problem in (
        ({}, r"^own/rows has no default subset; set `subset` to one of plain, other$"),
        ({"subset": "x"}, r"^own/rows has no subset `x`; set `subset` to one of plain, other$"),
        (
            {"subset": "plain", "split": "x"},
            r"^own/rows has no split `x`; set `split` to one of train, test$",
        ),
        (
            {"subset": "plain", "columns": {"prompt": "q"}},
            r"row 1 has no column `q`; it has prompt, ",
        ),
        (
            {"subset": "plain", "where": {"lang": "en"}},
            r"row 1 has no column `lang`; it has prompt, ",
        ),
    ):
        with pytest.raises(DataError, match=problem):
            load_examples(own(**fields))


def test_a_folder_of_files_is_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.jsonl").write_text(jsonl(pairs(3), tmp_path))
    (folder / "test.jsonl").write_text(jsonl(pairs(1), tmp_path))
    assert len(read_rows(source(folder))) == 3
    assert len(read_rows(source(folder, split="test"))) == 1
    before = data_hash(source(folder))
    assert before is not None and "@" not in before
    (folder / "train.jsonl").write_text('{"prompt": "p"\n')
    with pytest.raises(DataError, match=r"mine/train\.jsonl:1: malformed JSON: "):
        read_rows(source(folder))


def test_a_data_set_that_is_not_cached_names_id_cache_and_command(offline_hub: Path) -> None:
    for ask in (read_rows, load_prompts, data_hash, check_cached):
        with pytest.raises(DataError) as caught:
            ask(own("own/none"))
        for text in (
            "`own/none` is not a local file or folder",
            "the data set of this id on the hub is not in the cache",
            "run `sweeper prefetch SPEC`",
            f"the cache is {offline_hub} (under HF_HOME)",
        ):
            assert text in str(caught.value)
    with pytest.raises(DataError, match="walledai/AdvBench` is not a local file or folder"):
        load_prompts(PromptSuite(suite="advbench", prompt_split="all"))


def answer(code: int) -> Any:
    return httpx2.Response(code, request=httpx2.Request("GET", "https://hub.invalid/own/rows"))


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (
            GatedRepoError("403 Client Error.", response=answer(403)),
            r"the data set `own/rows` is gated: accept its terms at https://huggingface\.co/datasets/"
            r"own/rows, then run `hf auth login` or set HF_TOKEN, then repeat this command",
        ),
        (
            RepositoryNotFoundError("404 Client Error.", response=answer(404)),
            "the hub has no data set with this id that you can access: correct the id, or run `hf auth",
        ),
        (
            RevisionNotFoundError("404 Client Error.", response=answer(404)),
            "the data set `own/rows` has no revision `v9`: correct `revision`",
        ),
        (
            LocalEntryNotFoundError("Got: ConnectError"),
            r"at revision `v9` is not in the cache \(the hub could not be reached\): if",
        ),
        (
            LocalEntryNotFoundError("The cached snapshot is incomplete: 1 file(s) are missing"),
            r"is only partly in the cache \(the hub could not be reached\)",
        ),
        (
            HfHubHTTPError("500 Server Error.\nsecond line", response=answer(500)),
            "the data set `own/rows` cannot be downloaded: 500 Server Error",
        ),
        (OSError(28, "No space left on device"), "cannot be downloaded: .*No space left on device"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_refuses_is_one_message(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, problem: str
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise failure

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(DataError, match=problem) as caught:
        read_rows(own(revision="v9"))
    assert "\n" not in str(caught.value)
    way_out = (
        "sweeper prefetch SPEC" if isinstance(failure, LocalEntryNotFoundError) else "repeat this"
    )
    assert way_out in str(caught.value)


def test_nothing_but_data_is_fetched_and_a_plan_fetches_nothing(
    offline_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    real: Callable[..., str] = huggingface_hub.snapshot_download

    def spy(path: str, **fields: Any) -> str:
        asked.append(fields)
        return real(path, **{**fields, "local_files_only": True})

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", spy)
    cached(offline_hub, "own/rows", {"train.jsonl": jsonl(pairs(2), tmp_path)})
    cached(offline_hub, "own/other", {"train.jsonl": jsonl(pairs(3), tmp_path)})
    check_cached(own())
    assert len(read_rows(own())) == 2
    assert len(read_rows(own("own/other"))) == len(read_rows(own("own/other"))) == 3
    assert [fields["local_files_only"] for fields in asked] == [True, False]
    assert "*.parquet" in asked[0]["allow_patterns"]
    assert not {"*", "*.py"} & set(asked[0]["allow_patterns"])


def test_without_the_extra_one_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"install `sweeper-llm\[train\]`, or use a local"):
        read_rows(own())
    path = tmp_path / "a.parquet"
    path.touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingExtraError, match=r"\.parquet files need the package pyarrow; install"
    ):
        read_rows(source(path))
