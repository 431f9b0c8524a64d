"""Run folders of every form there was: `sweeper migrate` brings them up, or says why not.

tests/golden holds runs of the tiny sweep as the program of the time wrote them, cut to four records and the
first responses of one: `first` (the first that could run), `without-samples` (the last before records held
samples), `0.1.0`. All are of version 1.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import RecordError, RunFolderError
from sweeper.judges.store import record_hash
from sweeper.planning import make_plan
from sweeper.report import write_report
from sweeper.runs.migrate import STEPS, Migration, Step, backup_of, migrate
from sweeper.runs.run import open_run
from sweeper.spec import spec_hash
from sweeper.spec.document import read_yaml
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.records import RECORD_VERSION, read_records

GOLDEN = Path(__file__).parents[1] / "golden"
FORMS = sorted(path.name for path in GOLDEN.iterdir())

FILES = ("records.jsonl", "plan.json", "spec.yaml", "run.json")
"""What a migration changes in a golden run, in the order of writing."""


def copied(form: str, to: Path) -> RunFolder:
    shutil.copytree(GOLDEN / form, to)
    return RunFolder(to)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return copied("0.1.0", tmp_path / "run")


@pytest.fixture
def today(run: RunFolder) -> RunFolder:
    """The run of `0.1.0`, brought up."""
    migrate(run, write=True)
    for path in run.root.glob("*.before-*"):
        path.unlink()
    return run


def raw_records(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.records.read_text("utf-8").splitlines()]


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


SKIPS: dict[int, Step] = {0: renamed, 1: dict}
"""Steps from the version that never was."""


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {
        path.relative_to(folder.root).as_posix(): path.read_bytes()
        for path in sorted(folder.root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_run_of_every_form_is_brought_up_and_measures_the_same(form: str, tmp_path: Path) -> None:
    run = copied(form, tmp_path / "run")
    before, old = contents(run), raw_records(run)
    assert migrate(run, write=False) == Migration({1: 4}, FILES)
    assert contents(run) == before

    assert migrate(run, write=True) == Migration({1: 4}, FILES, written=True)
    after = contents(run)
    assert {name: after[f"{name}.before-v2"] for name in FILES} == {n: before[n] for n in FILES}
    assert {n for n in before if after[n] != before[n]} == set(FILES)

    opened = open_run(tmp_path / "run")
    new = raw_records(run)
    for name in ("metrics", "samples", "config", "config_id", "trajectory_id", "seed", "readout"):
        assert [r.get(name) for r in new] == [r.get(name) for r in old], name
    assert {r["version"] for r in new} == {RECORD_VERSION} and {r["version"] for r in old} == {1}
    records = opened.records
    assert [record.to_json() for record in records] == run.records.read_text("utf-8").splitlines()
    assert bool(records[0].samples) == (form == "0.1.0")
    assert records[0].metrics["unsafe_rate"].k == records[0].metrics["unsafe_rate"].n == 8
    assert {suite.prompt_split for suite in opened.spec.evaluation.harmful} == {"all"}
    assert len(opened.front().candidates) == 4
    page = tmp_path / "report.html"  # Beside the run, which stays as it is.
    write_report(opened.folder, records, opened.spec, opened.accounting, page, opened.estimate)
    assert records[1].config_id in page.read_text(encoding="utf-8")

    assert migrate(run, write=True) == Migration({2: 4}, ())
    assert contents(run) == after


def test_words_of_today_are_in_every_file(run: RunFolder) -> None:
    old = raw_records(run)
    assert [r["role"] for r in old] == ["base", "candidate", "candidate", "interpolation_twin"]
    assert {r["provenance"]["decoding"]["full_responses"] for r in old} == {False}
    before = read_yaml(run.spec.read_text("utf-8"))
    assert before["compute"]["pack"] == "auto" and before["evaluation"]["full_responses"] is False

    migrate(run, write=True)
    new = raw_records(run)
    assert [r["role"] for r in new] == ["base", "candidate", "candidate", "interpolation_control"]
    decoding = [r["provenance"]["decoding"] for r in new]
    assert {d["stop_generation_early"] for d in decoding} == {True}
    assert not any("full_responses" in d for d in decoding)
    after = read_yaml(run.spec.read_text("utf-8"))
    assert after["compute"]["adapters_per_trial"] == "auto" and after["search"]["batch_size"] == 4
    assert after["evaluation"]["stop_generation_early"] is True
    assert not {"pack", "loggers"} & after["compute"].keys()
    assert json.loads(run.plan.read_text("utf-8"))["version"] == RUN_VERSION
    info = json.loads(run.info.read_text("utf-8"))
    spec = open_run(run.root).spec
    assert (info["version"], info["spec_hash"]) == (RUN_VERSION, spec_hash(spec))
    ids = {item.config_id for item in make_plan(spec).configurations}
    assert {r["config_id"] for r in new} <= ids, "the run can be continued"


def test_what_an_adaptive_refined_sweep_stated_has_its_names_of_today(run: RunFolder) -> None:
    raw = read_yaml(run.spec.read_text("utf-8"))
    raw["search"] = {"method": "optuna", "trajectories": 6, "parallel": 3}
    raw["search"]["refine"] = {"budget": 40, "parallel": 2}
    raw["compute"] |= {"pack": 2, "loggers": ["mlflow"], "stall_minutes": 5}
    raw["evaluation"] |= {"full_responses": True}
    raw["evaluation"]["harmful"][0]["half"] = "confirm"
    run.spec.write_text(json.dumps(raw), "utf-8")
    state = {"on": 1, "maybe": 2, "off": 3, "undecided": 2, "hypervolume": None}
    run.refinements.write_text(json.dumps({"parts": [], "before": state}) + "\n", "utf-8")
    migrate(run, write=True)
    spec = open_run(run.root).spec
    assert (spec.search.n_trials, spec.search.batch_size) == (6, 3)
    assert spec.search.refine is not None and spec.search.refine.batch_size == 2
    compute = spec.compute
    assert (compute.adapters_per_trial, compute.trackers) == (2, ("mlflow",))
    assert compute.stall_timeout_minutes == 5
    assert spec.evaluation.stop_generation_early is False
    assert spec.evaluation.harmful[0].prompt_split == "confirm"
    (round_,) = run.refinements.read_text("utf-8").splitlines()
    assert json.loads(round_)["before"]["uncertain"] == 2


def test_judgements_waiting_records_and_confirmations_come_along(run: RunFolder) -> None:
    lines = run.records.read_bytes().splitlines()
    hashes = [hashlib.sha256(line).hexdigest()[:16] for line in lines]
    judged = [{"version": 1, "record": value, "config_id": hashes[0]} for value in hashes]
    run.judgements.write_text("".join(json.dumps(item) + "\n" for item in judged), "utf-8")
    raw = json.loads(lines[1])
    waiting = run.trial(raw["trajectory_id"])
    waiting.create()
    waiting.outgoing("x").write_bytes(lines[1])
    shutil.copytree(GOLDEN / "0.1.0", run.confirm / "key")
    found = migrate(run, write=True)
    assert found.versions == {1: 4}
    assert {f"confirm/key/{name}" for name in FILES} < set(found.files)

    records = read_records(run.records).records
    new = [json.loads(line) for line in run.judgements.read_text("utf-8").splitlines()]
    assert [item["record"] for item in new] == [record_hash(record) for record in records]
    assert waiting.outgoing("x").read_text("utf-8") == records[1].to_json()
    confirmed = RunFolder(run.confirm / "key")
    assert confirmed.records.read_bytes() == run.records.read_bytes()
    assert migrate(run, write=True).files == ()


def test_a_command_that_opens_an_old_run_says_how_to_bring_it_up(run: RunFolder) -> None:
    with pytest.raises(RunFolderError, match=f"sweeper migrate {run.root} --write") as caught:
        open_run(run.root)
    assert caught.value.values["version"] == 1
    info = json.loads(run.info.read_text("utf-8")) | {"version": RUN_VERSION + 1}
    run.info.write_text(json.dumps(info), "utf-8")
    for opened in (open_run, lambda root: migrate(RunFolder(root), write=True)):
        with pytest.raises(RunFolderError, match="install the sweeper version that wrote it"):
            opened(run.root)


def test_an_interrupted_migration_is_done_again(run: RunFolder, tmp_path: Path) -> None:
    whole = copied("0.1.0", tmp_path / "whole")
    migrate(whole, write=True)
    for path in (run.records, run.spec):  # As it was when the machine went down before run.json.
        shutil.copy(path, backup_of(path))
        shutil.copy(whole.root / path.name, path)
    assert migrate(run, write=True).files == ("plan.json", "run.json")
    assert contents(run) == contents(whole)


def test_golden_runs_are_of_every_version_that_has_been() -> None:
    found = {raw["version"] for form in FORMS for raw in raw_records(RunFolder(GOLDEN / form))}
    assert {*found, RECORD_VERSION} == {*STEPS, RECORD_VERSION}
    assert set(STEPS) == set(range(1, RECORD_VERSION))


def test_records_are_brought_up_once_and_the_file_as_it_was_is_kept(today: RunFolder) -> None:
    whole = today.records.read_bytes()
    before = older(today) + b'{"torn'
    today.records.write_bytes(before)
    looked = migrate(today, write=False, steps=SKIPS)
    assert (looked.versions, looked.older, looked.written) == ({0: 2, 2: 2}, 2, False)
    assert today.records.read_bytes() == before

    done = migrate(today, write=True, steps=SKIPS)
    assert done.files == ("records.jsonl",)
    assert backup_of(today.records).read_bytes() == before
    assert today.records.read_bytes() == whole + b'{"torn'

    assert migrate(today, write=True, steps=SKIPS) == Migration({2: 4}, ())
    assert backup_of(today.records).read_bytes() == before


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (3, "records.jsonl:1: record version 3 is newer than this sweeper, which reads 2"),
        ("1", "record version '1' is newer"),
        (0, "record version 0 cannot be converted to 2"),
    ],
)
def test_what_no_step_leads_on_from_is_refused_and_left_alone(
    today: RunFolder, version: object, problem: str
) -> None:
    before = older(today, version)
    for write in (False, True):
        with pytest.raises(RecordError, match=problem):
            migrate(today, write=write)
    assert today.records.read_bytes() == before
    assert not list(today.root.glob("*.before-*"))


def test_a_step_that_makes_no_record_changes_nothing(today: RunFolder) -> None:
    before = older(today)
    with pytest.raises(RecordError, match="does not have the expected fields"):
        migrate(today, write=True, steps={0: dict, 1: dict})
    assert today.records.read_bytes() == before


def test_a_driver_or_another_backup_is_in_the_way(today: RunFolder) -> None:
    before = older(today)
    with DriverLock(today), pytest.raises(RunFolderError, match="another driver"):
        migrate(today, write=True, steps=SKIPS)
    backup_of(today.records).write_text("mine")
    with pytest.raises(RunFolderError, match="exists with different contents"):
        migrate(today, write=True, steps=SKIPS)
    assert today.records.read_bytes() == before
