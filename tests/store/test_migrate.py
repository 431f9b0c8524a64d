"""Run folders of every form there was: they load, and `sweeper migrate` brings them up or says why not.

tests/golden holds runs of the tiny sweep as the program of the time wrote them, cut to four records and the
first responses of one: `first` (the first that could run), `without-samples` (the last before records held
samples), `0.1.0`. All are of version 1, the only one so far.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import RecordError, RunFolderError
from sweeper.report import write_report
from sweeper.runs.run import open_run
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.migrate import STEPS, migrate
from sweeper.store.records import RECORD_VERSION, read_records

GOLDEN = Path(__file__).parents[1] / "golden"

TODAY = {
    "half": "prompt_split",
    "full_responses": "stop_generation_early",
    "parallel": "batch_size",
    "pack": "adapters_per_trial",
    "loggers": "trackers",
}
"""Keys of a stored sweep file that have other names today."""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    shutil.copytree(GOLDEN / "0.1.0", tmp_path / "run")
    return RunFolder(tmp_path / "run")


def older(run: RunFolder, version: object = 0) -> bytes:
    """Give the first two records another version; version 0 never was, and called `seed` `rng`."""
    lines = run.records.read_text(encoding="utf-8").splitlines()
    for i in range(2):
        raw = json.loads(lines[i]) | {"version": version}
        raw["rng"] = raw.pop("seed")
        lines[i] = json.dumps(raw)
    run.records.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return run.records.read_bytes()


def renamed(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name != "rng"} | {"seed": raw["rng"]}


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_run_of_every_form_loads_and_needs_nothing(name: str, tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "run")
    spec = tmp_path / "run" / "spec.yaml"
    for old, new in TODAY.items():
        spec.write_text(re.sub(rf"^( +){old}:", rf"\1{new}:", spec.read_text(), flags=re.M))
    opened = open_run(tmp_path / "run")
    records = opened.records
    assert len(records) == 4
    assert {record.status for record in records} == {"complete"}
    assert bool(records[0].samples) == (name == "0.1.0")
    assert [record.to_json() for record in records] == (
        (tmp_path / "run" / "records.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert records[0].role == "base"
    assert records[0].metrics["unsafe_rate"].k == records[0].metrics["unsafe_rate"].n == 8
    assert len(opened.front().candidates) == 4
    page = tmp_path / "report.html"
    write_report(opened.folder, records, opened.spec, opened.accounting, page, opened.estimate)
    assert records[1].config_id in page.read_text(encoding="utf-8")
    assert migrate(opened.folder, write=True) == ({1: 4}, None)


def test_golden_runs_are_of_every_version_that_has_been() -> None:
    found = {
        r.version for path in GOLDEN.glob("*/records.jsonl") for r in read_records(path).records
    }
    assert found == {*STEPS, RECORD_VERSION}
    assert set(STEPS) == set(range(1, RECORD_VERSION))


def test_records_are_brought_up_once_and_the_file_as_it_was_is_kept(run: RunFolder) -> None:
    whole = run.records.read_bytes()
    before = older(run) + b'{"torn'
    run.records.write_bytes(before)
    looked = migrate(run, write=False, steps={0: renamed})
    assert (looked.versions, looked.older, looked.backup) == ({0: 2, 1: 2}, 2, None)
    assert run.records.read_bytes() == before

    done = migrate(run, write=True, steps={0: renamed})
    assert done.backup == run.root / "records.jsonl.before-v1"
    assert done.backup.read_bytes() == before
    assert run.records.read_bytes() == whole + b'{"torn'

    assert migrate(run, write=True, steps={0: renamed}) == ({1: 4}, None)
    assert done.backup.read_bytes() == before


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (2, "records.jsonl:1: record version 2 is newer than this sweeper, which reads 1"),
        ("1", "record version '1' is newer"),
        (0, "nothing leads from record version 0 to 1"),
    ],
)
def test_what_no_step_leads_on_from_is_refused_and_left_alone(
    run: RunFolder, version: object, problem: str
) -> None:
    before = older(run, version)
    for write in (False, True):
        with pytest.raises(RecordError, match=problem):
            migrate(run, write=write)
    assert run.records.read_bytes() == before
    assert not list(run.root.glob("*.before-*"))


def test_a_step_that_makes_no_record_changes_nothing(run: RunFolder) -> None:
    before = older(run)
    with pytest.raises(RecordError, match="does not have the expected fields"):
        migrate(run, write=True, steps={0: dict})
    assert run.records.read_bytes() == before


def test_a_driver_or_another_backup_is_in_the_way(run: RunFolder) -> None:
    before = older(run)
    with DriverLock(run), pytest.raises(RunFolderError, match="another driver"):
        migrate(run, write=True, steps={0: renamed})
    (run.root / "records.jsonl.before-v1").write_text("mine")
    with pytest.raises(RunFolderError, match="holds something else"):
        migrate(run, write=True, steps={0: renamed})
    assert run.records.read_bytes() == before
