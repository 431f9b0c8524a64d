"""The Python interface: `sweeper.open_run`."""

import json
import math
from dataclasses import replace
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.storages.journal import JournalFileBackend
from support.command import Command
from support.factories import make_spec, make_sweep
from support.run_folders import write_run

import sweeper
from sweeper.cli.app import _run
from sweeper.errors import RunFolderError
from sweeper.spec import dump_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.records import TrialRecord


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run with synthetic records."""
    spec = make_spec()
    paths = RunFolder(tmp_path)
    records = make_sweep(spec, seed=3)
    paths.records.write_text("".join(f"{r.to_json()}\n" for r in records), encoding="utf-8")
    paths.spec.write_text(dump_spec(spec), encoding="utf-8")
    paths.plan.write_text(json.dumps({"version": 1, "accounting": {"ratio": 7.5}}), "utf-8")
    paths.info.write_text(json.dumps({"version": RUN_VERSION}), encoding="utf-8")
    return tmp_path


def test_an_opened_run_gives_back_what_was_written(folder: Path) -> None:
    run = sweeper.open_run(folder)
    assert isinstance(run, sweeper.Run)
    assert run.spec == make_spec()
    assert list(run.records) == list(make_sweep(make_spec(), seed=3))
    assert run.accounting == {"ratio": 7.5}


def test_the_frame_has_a_row_per_record_with_value_k_and_n(folder: Path) -> None:
    run = sweeper.open_run(folder)
    frame = run.frame()
    records = run.records
    assert len(frame) == len(records)
    assert frame["config_id"].is_unique
    for number, record in enumerate(records):
        row = frame.iloc[number]
        assert row["learning_rate"] == record.config["learning_rate"]
        assert row["step"] == record.readout["step"]
        rate = record.metrics.get("unsafe_rate")
        if rate is None:
            assert math.isnan(row["unsafe_rate"])
            assert pd.isna(row["unsafe_rate.k"])
        else:
            assert (row["unsafe_rate"], row["unsafe_rate.k"]) == (rate.value, rate.k)
            assert row["unsafe_rate.n"] == rate.n


def test_what_was_not_measured_is_missing_and_never_zero(folder: Path) -> None:
    path = folder / "records.jsonl"
    first, *others = sweeper.open_run(folder).records
    failed = replace(first, status="failed", reason={"message": "boom"}, metrics={})
    path.write_text("".join(f"{r.to_json()}\n" for r in (failed, *others)), encoding="utf-8")
    frame = sweeper.open_run(folder).frame()
    ended = frame[frame["status"] == "failed"]
    assert list(ended["config_id"]) == [first.config_id]
    assert ended["unsafe_rate"].isna().all()
    assert ended["rouge_l"].isna().all()


def test_the_recommendation_is_a_member_of_the_front(folder: Path) -> None:
    run = sweeper.open_run(folder)
    chosen = run.recommend().chosen
    assert chosen is not None
    assert chosen.config_id in {item.config_id for item in run.front().members}


def test_a_configuration_is_found_by_an_unambiguous_beginning(folder: Path) -> None:
    run = sweeper.open_run(folder)
    ids = [item.config_id for item in run.front().candidates]
    assert run.candidate(ids[0]).config_id == ids[0]
    for wrong in ("", "no-such-id"):
        with pytest.raises(
            RunFolderError,
            match=r"configurations of .* start with|no configuration of .* starts with",
        ):
            run.candidate(wrong)


def test_a_torn_last_line_is_left_out_and_left_alone(folder: Path) -> None:
    path = folder / "records.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    run = sweeper.open_run(folder)
    assert len(run.records) == whole.count(b"\n")
    assert path.read_bytes() == whole + whole[:50]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1}'])
def test_a_damaged_plan_is_named_with_the_way_out(folder: Path, content: str) -> None:
    (folder / "plan.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"plan\.json is damaged; delete run\.json"):
        _ = sweeper.open_run(folder).accounting


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is not a run folder"):
        sweeper.open_run(tmp_path)


def test_the_package_has_no_other_lazy_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_runs'"):
        _ = sweeper.open_runs


def test_records_are_typed(folder: Path) -> None:
    assert all(isinstance(item, TrialRecord) for item in sweeper.open_run(folder).records)


def test_the_study_command_writes_the_study_and_says_how_to_open_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sweeper", "export-study", str(folder)])
    assert _run() == 0
    path = RunFolder(folder).study
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="synthetic", storage=storage)
    assert len(study.trials) > 100
    assert f"optuna-dashboard {path}" in capsys.readouterr().out.replace("\n", "")


def test_an_unfinished_search_is_said_wherever_its_answer_is(
    tmp_path: Path, command: Command
) -> None:
    """A finished one has nothing to say; an adaptive one is finished by its rounds, not by its records."""
    records = make_sweep(seed=3)
    done = write_run(tmp_path / "done", records, readouts=len(records))
    part = write_run(tmp_path / "part", records[:60], readouts=len(records))
    said = f"So far 60 of {len(records)} records: the answer may change."
    assert sweeper.open_run(done.root).recommend().missing == ()
    found = sweeper.open_run(part.root).recommend()
    assert found.missing == (said,) and found.caveats[0] == said
    for name in ("recommend", "front"):
        assert said in " ".join(command(name, part.root).out.split())
        assert "So far" not in command(name, done.root).out
    answer = command("recommend", part.root, "--json")
    assert said in answer.out
