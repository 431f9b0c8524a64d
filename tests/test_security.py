"""Hostile sweep files, rows and run folders; and docs/reference/security.md names tests that exist.

The other threats are tested where their code is tested; the page lists them.
"""

import ast
import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.factories import SPEC, make_record, make_spec
from support.raising import raises

from sweeper.data.load import load_examples
from sweeper.data.rows import read_rows
from sweeper.errors import RecordError, RunFolderError, SpecError, SweeperError
from sweeper.judges.rescore import responses
from sweeper.planning import make_plan
from sweeper.report.answers import read_stored
from sweeper.runs.frames import csv_text
from sweeper.runs.migrate import migrate
from sweeper.runs.run import open_run
from sweeper.spec import load_spec, parse_spec
from sweeper.spec.document import MAX_BYTES, read_yaml
from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.records import read_records
from sweeper.task import DataSource, TrajectoryTask

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "0.1.0"


def golden_run(root: Path) -> None:
    """A small run that was measured, brought up to this version."""
    shutil.copytree(GOLDEN, root)
    migrate(RunFolder(root), write=True)


DESCRIPTION = "Synthetic numbers that no model produced."

BOMB = "b0: &b0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


def described(text: str) -> str:
    return SPEC.replace(DESCRIPTION, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('!!python/object/apply:os.system ["exit"]', "could not determine a constructor"),
        (described("!!python/name:os.system"), "could not determine a constructor"),
        (BOMB + described("*b8"), "more than 100,000 values with aliases expanded"),
        (f"a: &a {'x' * 200_000}\nb: [{', '.join(['*a'] * 500)}]\n" + SPEC, "more than 100,000"),
        ("a: &a [*a]\n" + SPEC, "an alias of its own block at line 1"),
        (described("[" * 3000 + "]" * 3000), "nested too deep"),
        (described("9" * 5000), "4300 digits"),
        (described("2001-99-99"), "month must be in 1..12"),
        (described("x" * MAX_BYTES), "longer than 1,048,576 characters"),
        (SPEC.replace("5.0e-5", ".nan"), "should be a finite number"),
        (SPEC.replace("5.0e-5", "-.inf"), "should be a finite number"),
        (SPEC.replace("5.0e-5", "1e999"), "should be a finite number"),
        (SPEC.replace("name: synthetic", "name: ../../etc"), "should match pattern"),
        (SPEC.replace("name: synthetic", 'name: "a\\n"'), "should match pattern"),
        (SPEC.replace("name: synthetic", f"name: {'a' * 100_000}"), "100,002 characters"),
        (SPEC + f"seeds: {list(range(20_000))}\n", "at most 1000 items"),
    ],
)
def test_a_hostile_sweep_file_is_one_short_message(text: str, problem: str) -> None:
    with pytest.raises(SpecError, match=re.escape(problem)) as caught:
        parse_spec(text)
    assert len(str(caught.value)) < 1000


def test_a_file_without_end_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    with path.open("wb") as file:
        file.truncate(50 * 2**30)  # Sparse: it takes no room.
    with pytest.raises(SpecError, match="longer than"):
        load_spec(path)


def test_honest_aliases_and_merges_are_read() -> None:
    text = "a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 3}\nc: [*a, *a]\n"
    assert read_yaml(text)["b"] == {"x": 3, "y": [2]}
    assert read_yaml(text)["c"] == [{"x": 1, "y": [2]}] * 2


LONG = "{low: 1.0e-6, high: 1.0e-3, num: 1000}"


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (
            (f"space.learning_rate={LONG}", "space.batch_size={low: 1, high: 1000, num: 1000}"),
            "20000000",
        ),
        (("search={method: random, n_trials: 100000000000}",), "2000000000000"),
        (("search={method: optuna, n_trials: 1000000}",), "20000000"),
        (
            (f"space.learning_rate={LONG}", f"seeds={list(range(900))}"),
            "40000 points under 900 seeds",
        ),
    ],
)
def test_a_huge_sweep_is_refused_with_its_count_before_it_is_expanded(
    overrides: tuple[str, ...], count: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("expanded")

    monkeypatch.setattr("sweeper.planning.configurations._configuration", never)
    monkeypatch.setattr("sweeper.planning.configurations.drawn_points", never)
    with pytest.raises(SpecError, match=count):
        make_plan(make_spec(*overrides))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"prompt": ' + "[" * 100_000, "data.malformed"),
        ('{"prompt": "a", "completion": ' + "9" * 5000 + "}", "data.malformed"),
        ('{"prompt": {"a": 1}, "completion": "b"}', "data.invalid_row"),
        ("[1]", "data.malformed"),
        ("\x00", "data.unreadable"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_a_hostile_row_is_one_message_with_its_place(
    tmp_path: Path, line: str, code: str, kind: str
) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_text(line if kind == "jsonl" else f"[{line}]", encoding="utf-8")
    with raises(code, path=path):
        load_examples(DataSource(str(path)))


def test_long_lines_and_nul_in_rows_are_only_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "x" * 100_000, "completion": "a\x00b"}]
    path.write_text(json.dumps(rows[0]), encoding="utf-8")
    assert [row.cells for row in read_rows(DataSource(str(path)))] == rows


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "/etc/passwd", "", ".", "..", "a\0b", "x" * 300]
)
def test_an_id_cannot_lead_out_of_the_run_folder(tmp_path: Path, name: str) -> None:
    with raises("run.invalid_name", name=name[:80]):
        TrialStorage(tmp_path, name)
    if name not in ("", ".", ".."):  # There, something stands behind it.
        storage = TrialStorage(tmp_path, "honest")
        for place in (storage.outgoing, storage.weights, lambda i: storage.generations(i, 0)):
            with raises("run.invalid_name"):
                place(name)


def broken(change: Callable[[dict[str, Any]], object]) -> str:
    raw = json.loads(make_record().to_json())
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"version": ' + "9" * 5000 + "}",
        broken(lambda raw: raw.update(config_id=["a"])),
        broken(lambda raw: raw.update(seed="0/../../x")),
        broken(lambda raw: raw.update(role={"a": 1})),
        broken(lambda raw: raw["metrics"].update(heldout_loss={"value": "<b>", "n": 1, "k": None})),
        broken(lambda raw: raw["metrics"].update(heldout_loss={"value": 1.0, "n": 1.5, "k": None})),
        broken(lambda raw: raw.update(extra=1)),
        "null",
        "\x00",
    ],
)
def test_a_hostile_record_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(f"{make_record().to_json()}\n{line}\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"records\.jsonl:2: "):
        read_records(path)


@pytest.mark.parametrize("name", ["run.json", "plan.json", "spec.yaml"])
@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "null", "\x00"])
def test_a_hostile_file_of_a_run_is_one_message(tmp_path: Path, name: str, text: str) -> None:
    golden_run(tmp_path / "run")
    (tmp_path / "run" / name).write_text(text, encoding="utf-8")
    with pytest.raises(SweeperError):
        opened = open_run(tmp_path / "run")
        assert (opened.spec, opened.accounting) is None


def test_responses_behind_a_link_or_in_a_pipe_are_not_read(tmp_path: Path) -> None:
    golden_run(tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    (path,) = run.generations.iterdir()
    (record,) = (
        r for r in read_records(run.records).records if path.name == f"{r.config_id}-0.jsonl"
    )
    assert len(list(responses(run, record, "sweeper"))) == 3
    path.rename(tmp_path / "elsewhere.jsonl")
    path.symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(OSError, match="symbolic links"):
        list(responses(run, record, "sweeper"))
    with pytest.raises(RunFolderError, match="symbolic links"):
        list(read_stored(path, ("sweeper",)))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FileNotFoundError):
        list(read_stored(path, ("sweeper",)))


def test_no_cell_of_a_table_is_a_formula() -> None:
    texts = ['=cmd|" /C calc"!A0', "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "a,b", 'a"b']
    frame = pd.DataFrame(
        {"text": texts, "number": [-1.5] * len(texts), "=head": [["a"]] * len(texts)}
    )
    head, *rows = csv.reader(io.StringIO(csv_text(frame), newline=""))
    assert head == ["text", "number", "'=head"]
    assert [row[0] for row in rows[:6]] == [f"'{text}" for text in texts[:6]]
    assert [row[0] for row in rows[6:]] == ["a,b", 'a"b']
    assert {row[1] for row in rows} == {"-1.5"}


def test_the_table_of_a_hostile_run_is_a_table(tmp_path: Path) -> None:
    golden_run(tmp_path / "run")
    path = tmp_path / "run" / "records.jsonl"
    raw = json.loads(path.read_text().splitlines()[0])
    raw |= {"role": "=1+1", "config": {**raw["config"], "model": "\ud800", "\udfff": 1}}
    path.write_text(json.dumps(raw) + "\n")
    (row,) = csv.DictReader(io.StringIO(csv_text(open_run(tmp_path / "run").frame())))
    assert (row["role"], row["model"], row["\\udfff"]) == ("'=1+1", "\\ud800", "1")


def test_a_hostile_task_file_is_one_message() -> None:
    for text in ("[" * 100_000, "9" * 5000, "null"):
        with pytest.raises(SweeperError, match=r"the task is not JSON|task version"):
            TrajectoryTask.from_json(text)


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "reference" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 40
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert all("`test_" in row for row in rows[1:] if not row.startswith("| threat"))
    for file, test in named:
        tree = ast.parse(next((ROOT / "tests").rglob(file)).read_text(encoding="utf-8"))
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert test in found, f"{file} has no {test}"


def test_nothing_unpickles() -> None:
    """Of our own code; what Ray sends between its processes is Ray's."""
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for path in (ROOT / "sweeper").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not forbidden & {item.name.split(".")[0] for item in node.names}, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, path
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.load", "eval", "exec", "np.load", "yaml.load"), path
                for word in node.keywords:
                    if word.arg == "trust_remote_code":
                        assert ast.unparse(word.value) == "False", path
