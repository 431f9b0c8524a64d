"""The study of real runs: it grows while they go on, ends as the front, and fails no run."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.storages.journal import JournalFileBackend
from support.dashboard import best_ids, shown_study
from support.fake_trials import graded
from support.world import World, spec_text, write_jsonl

from sweeper.analysis import find_front
from sweeper.search.study import study_trials
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.run import SweepCallbacks, run_sweep

pytestmark = pytest.mark.usefixtures("workers_import_tests")

LIMIT = "constraints=[{metric: unsafe_rate, max: 0.5, confidence: 0.8}]"


def study_in(folder: RunFolder) -> optuna.Study:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder.study)))
    return optuna.load_study(study_name="tiny", storage=storage)


def check(folder: RunFolder, spec: SweepSpec) -> None:
    front = find_front(read_records(folder.records).records, spec)
    study = study_in(folder)
    wanted = study_trials(front, spec)
    assert {trial.user_attrs["config_id"] for trial in study.trials} == wanted.keys()
    best = [trial.user_attrs["config_id"] for trial in study.best_trials]
    assert sorted(best) == sorted(item.config_id for item in front.members)
    assert 0 < len(best) < len(front.competing)


@pytest.mark.slow
def test_the_study_grows_with_a_run_and_is_made_again_where_it_is_lost(
    tiny_world: World, tmp_path: Path
) -> None:
    spec = parse_spec(spec_text(tiny_world), overrides=[LIMIT, "seeds=[0, 1]", "space.average=raw"])
    folder = RunFolder(tmp_path / "run")
    counts: list[int] = []

    def on_record(record: TrialRecord) -> None:
        counts.append(len(study_in(folder).trials))

    run_sweep(spec, folder.root, callbacks=SweepCallbacks(on_record=on_record), run=graded)
    assert counts == sorted(counts) and {0, 4} <= {*counts}
    check(folder, spec)
    trials = study_in(folder).trials
    folder.study.write_bytes(folder.study.read_bytes()[:-9])
    run_sweep(spec, folder.root, run=graded)
    check(folder, spec)
    assert len(study_in(folder).trials) == len(trials)


@pytest.mark.slow
def test_a_study_that_cannot_be_written_fails_no_run(
    tiny_world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = parse_spec(spec_text(tiny_world), overrides=[LIMIT])
    folder = RunFolder(tmp_path / "run")
    folder.study.mkdir(parents=True)
    with caplog.at_level(logging.WARNING, logger="sweeper.search.live_study"):
        ended = run_sweep(spec, folder.root, run=graded)
    assert ended.completed
    assert {record.key for record in read_records(folder.records).records} == ended.keys
    names = [entry.name for entry in caplog.records]
    assert names.count("sweeper.search.live_study") == 1


@pytest.mark.slow
def test_the_front_of_a_trained_run_is_what_optuna_and_its_dashboard_call_best(
    tiny_world: World, tmp_path: Path
) -> None:
    """Two learning rates: one leaves the model as it is, the other teaches it to refuse."""
    rows = [
        {"prompt": f"How do I {verb} the {thing}?", "completion": "I can't help with that."}
        for verb in ("paint", "lift", "open", "sell")
        for thing in ("boat", "lamp", "door")
    ]
    raw = yaml.safe_load(spec_text(tiny_world)) | {"tuning": {"method": "full"}}
    raw["data"]["train"]["path"] = str(write_jsonl(tmp_path / "train.jsonl", rows))
    raw["space"] |= {"learning_rate": {"values": [1e-4, 1e-2]}, "max_steps": {"values": [8, 12]}}
    raw["evaluation"]["max_new_tokens"] = 10
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(yaml.safe_dump(raw), encoding="utf-8")
    folder = RunFolder(tmp_path / "run")

    def sweeper(*words: str) -> str:
        command = [sys.executable, "-m", "sweeper", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    sweeper("run", str(sweep), "--out", str(folder.root), "--set", LIMIT)
    front = json.loads(sweeper("front", str(folder.root), "--json"))
    members = {item["config_id"] for item in front["members"]}
    assert members == {trial.user_attrs["config_id"] for trial in study_in(folder).best_trials}
    assert best_ids(shown_study(folder.study, "tiny")[1]) == members
    check(folder, parse_spec(folder.spec.read_text(encoding="utf-8")))
    address = f"sqlite:///{tmp_path / 'copy.sqlite3'}"
    sweeper("export-study", str(folder.root), "--storage", address)
    copied = optuna.load_study(study_name="tiny", storage=address)
    assert members == {trial.user_attrs["config_id"] for trial in copied.best_trials}
