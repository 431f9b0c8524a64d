"""An adaptive search from the command line: real Ray, real training, a restart, a retraining."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from support.world import World, spec_text

from sweeper.planning import make_plan
from sweeper.search.rounds import already_suggested, read_rounds
from sweeper.spec import parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records

SEARCH = "search={method: optuna, n_trials: 4, batch_size: 2, seed: 5}"
RATES = "space.learning_rate={low: 5e-4, high: 8e-3, log: true}"


def sweeper(*words: str, code: int = 0) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "sweeper", *words]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == code, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_a_search_runs_continues_and_is_read_like_any_sweep(
    tiny_world: World, tmp_path: Path
) -> None:
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(spec_text(tiny_world), encoding="utf-8")
    run = ["run", str(sweep), "--out", str(tmp_path / "run"), "--set", RATES, "--set", SEARCH]
    folder = RunFolder(tmp_path / "run")
    sweeper(*run)
    spec = parse_spec(folder.spec.read_text(encoding="utf-8"))
    asked = already_suggested(folder)
    assert [len(points) for points in read_rounds(folder)] == [2, 1, 1]
    assert len({point["learning_rate"] for point in asked}) == 4
    records = read_records(folder.records).records
    assert {record.key for record in records} == make_plan(spec, asked).keys()
    assert all(record.status == "complete" for record in records)
    counted = json.loads(folder.plan.read_text(encoding="utf-8"))["accounting"]
    assert counted["readouts"] == len(records)
    assert counted["notes"] == []

    # As if stopped at the third suggestion: it, and all after it, are made again.
    first = make_plan(spec, asked[:2]).keys()
    lines = folder.records.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line, record in zip(lines, records, strict=True) if record.key in first]
    folder.records.write_text("".join(kept), encoding="utf-8")
    rounds = folder.rounds.read_text(encoding="utf-8").splitlines(keepends=True)
    folder.rounds.write_text(rounds[0] + rounds[1][:9], encoding="utf-8")
    sweeper(*run)
    assert already_suggested(folder) == asked
    again = {record.key: record.metrics for record in read_records(folder.records).records}
    assert again == {record.key: record.metrics for record in records}

    assert "1 of 1 with equal verdicts" in sweeper("verify", str(folder.root), "--sample", "1")
    journal = tmp_path / "studies.log"
    out = sweeper("export-study", str(folder.root), "--storage", f"journal:{journal}")
    copied = optuna.load_study(
        study_name=spec.name,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
    )
    assert f"{len(copied.trials)} trials" in out
    front = json.loads(sweeper("front", str(folder.root), "--json"))["members"]
    assert {trial.user_attrs["config_id"] for trial in copied.best_trials} == {
        item["config_id"] for item in front
    }
