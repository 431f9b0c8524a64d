"""What a live page is told of its run, and how much analysing it may cost."""

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.factories import make_record, make_spec, make_sweep
from support.locks import line_of
from support.run_folders import append
from support.served import HOSTILE, add_run

from sweeper.analysis import SAFEST_USEFUL
from sweeper.estimate import duration_text
from sweeper.planning import make_plan
from sweeper.runs.time_left import run_seconds_left
from sweeper.search.rounds import append_decision, append_round
from sweeper.serve import state
from sweeper.serve.live import live_data, log_text, thinned
from sweeper.serve.state import Pace, RunView
from sweeper.store.lock import DriverLock
from sweeper.store.progress import TrajectoryProgress
from sweeper.store.trial_log import TrialLog
from sweeper.sweep.decision import stage_folder

SWEEP = make_sweep()
SPEC = make_spec()


def test_live_says_how_far_a_run_is(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "run", [*SWEEP[:12], make_record(status="failed", identity="f")])
    now = time.time()

    def trajectory(name: str, stage: str, losses: tuple[float, ...], age: float) -> None:
        path = folder.trial(name).progress
        path.parent.mkdir(parents=True)
        at = TrajectoryProgress(name, stage, len(losses), 320, losses, 4, now - age)
        path.write_text(at.to_json())

    trajectory("aaa", "train", tuple(3 - i / 100 for i in range(200)), 5)
    trajectory("bbb", "load", (), 1)
    trajectory("ccc", "end", (1.0,), 1)
    trajectory("ddd", "evaluate", (2.0, 1.5), 4000)
    (folder.trajectories / "eee").mkdir()
    (folder.trajectories / "eee" / "progress.json").write_text('{"losses": [NaN]}')
    assert live_data(RunView(folder), now)["state"] == "stopped"
    folder.lock.write_bytes(line_of("elsewhere", 1).line())
    data = live_data(RunView(folder), now)
    json.dumps(data, allow_nan=False)
    assert (data["state"], data["records"], data["planned"]) == ("running", 13, 139)
    assert data["statuses"] == {"complete": 12, "failed": 1}
    at = {item["trajectory_id"]: item for item in data["workers"]}
    assert list(at) == ["bbb", "aaa", "ddd"]
    assert (at["aaa"]["stage"], at["aaa"]["step"], at["aaa"]["steps"]) == ("training", 200, 320)
    assert at["aaa"]["loss"] == pytest.approx(1.01) and at["aaa"]["age_seconds"] == 5
    assert len(at["aaa"]["curve"]) == 60 and at["aaa"]["curve"][0] == 3
    assert at["aaa"]["name"] == "aaa" and at["aaa"]["tokens_per_second"] is None
    assert data["left"] is None and data["cost"] == "1.7 min of worker time"
    assert at["bbb"]["loss"] is None and at["bbb"]["stage"] == "loading"
    assert at["ddd"]["quiet"] and not at["aaa"]["quiet"]
    newest = data["latest"][0]
    assert (newest["config_id"], newest["status"], newest["metrics"]) == ("f", "failed", {})
    assert data["latest"][1]["metrics"]["unsafe_rate"] == SWEEP[11].metrics["unsafe_rate"].value
    assert data["failures"][0]["count"] == 1 and "loss is nan" in data["failures"][0]["reason"]
    assert live_data(RunView(folder), now + 500)["state"] == "stopped"
    folder.lock.unlink()
    with DriverLock(folder):
        assert live_data(RunView(folder), now + 500)["state"] == "running"
    assert live_data(RunView(folder), now)["state"] == "stopped"


def test_a_run_that_stopped_in_its_decision_is_not_complete(tmp_path: Path) -> None:
    alone = add_run(tmp_path, "alone", SWEEP, "decide=false")
    assert live_data(RunView(alone))["state"] == "finished"
    folder = add_run(tmp_path, "a run", SWEEP)
    data = live_data(RunView(folder))
    command = f"sweeper resume '{folder.root}'"
    left = f"its decision has not begun; go on with: {command}"
    assert (data["state"], data["left"]) == ("stopped", left)
    stage = stage_folder(folder, SAFEST_USEFUL)
    add_run(stage.root.parent, stage.root.name, SWEEP[:5])
    data = live_data(RunView(folder))
    assert (data["state"], data["decision"]) == ("stopped", {"records": 5, "planned": 139})


def test_the_time_left_is_that_of_status(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "run", SWEEP[:4])
    trial = folder.trial("abc")
    trial.create()
    now = time.time()
    for age, record in zip((90, 60, 40, 20), SWEEP, strict=False):
        TrialLog(trial, clock=lambda age=age: now - age).write(  # type: ignore[misc]
            "readout", config_id=record.config_id
        )
    os.utime(folder.info, (now - 100, now - 100))
    view = RunView(folder)
    with DriverLock(folder):
        folder.lock.write_bytes(line_of("elsewhere", 1, os.getpid()).line())
        expected = run_seconds_left(folder, SPEC, now)
        assert expected is not None and expected > 1000
        assert live_data(view, now)["left"] == f"about {duration_text(expected)} left"
        assert view.seconds_left(SPEC, now + 3) == pytest.approx(expected - 3)  # It passes.
        later = run_seconds_left(folder, SPEC, now + 60)
        assert view.seconds_left(SPEC, now + 60) == pytest.approx(later)
    assert live_data(RunView(folder), now)["state"] == "running"
    assert str(live_data(RunView(folder), now + 500)["left"]).startswith("its search is not fini")


def test_workers_and_failures_are_named_by_their_settings_and_have_logs(tmp_path: Path) -> None:
    spec = make_spec()
    path, other = make_plan(spec).trajectories[:2]
    failed = replace(make_record(status="failed", identity="f"), trajectory_id=other.trajectory_id)
    folder = add_run(tmp_path, "run", [*SWEEP[:3], failed])
    now = time.time()
    for each, rates in ((path, [900.0, 1234.4]), (other, [])):
        trial = folder.trial(each.trajectory_id)
        trial.create()
        at = TrajectoryProgress(each.trajectory_id, "train", 7, 320, (), 1, now)
        trial.progress.write_text(at.to_json())
        log = TrialLog(trial)
        for rate in rates:
            log.write("train", step=7, tokens_per_second=rate)
        for number in range(60):
            log.write("warning", message=f"{HOSTILE} at /home/me/secret/rows{number}.jsonl")
        if rates:
            log.write("train", step=8, tokens_per_second=1300.6)
    data = live_data(RunView(folder), now)
    at_work = {item["trajectory_id"]: item for item in data["workers"]}
    first = at_work[path.trajectory_id]
    assert re.fullmatch(r"lr \S+, batch \d+, .*seed 0", first["name"]), first["name"]
    assert first["name"] != at_work[other.trajectory_id]["name"]
    assert first["tokens_per_second"] == 1300.6
    assert at_work[other.trajectory_id]["tokens_per_second"] is None
    (failure,) = data["failures"]
    assert failure["trial"] == other.trajectory_id
    assert failure["name"] == at_work[other.trajectory_id]["name"]
    text = log_text(RunView(folder), other.trajectory_id) or ""
    assert len(text.splitlines()) == 40 and "rows59.jsonl" in text and "rows19" not in text
    assert "/home/me/" in text
    assert "/home/me/" not in (
        log_text(RunView(folder, redact=True), other.trajectory_id) or "/home/me/"
    )
    assert log_text(RunView(folder), "none") is None


def test_analysis_takes_a_twentieth_of_the_time_while_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = add_run(tmp_path, "run", SWEEP[:20])
    now, pace = [0.0], Pace()
    view, row = RunView(folder, pace=pace), RunView(folder, pace=pace)

    def slow(*arguments: object, **named: object) -> str:
        now[0] += 3.0
        return "page"

    monkeypatch.setattr(state, "render", slow)
    monkeypatch.setattr("sweeper.serve.state.time.monotonic", lambda: now[0])
    with DriverLock(folder):
        first = view.page()
        assert (first.records, now[0]) == (20, 3.0)
        append(folder, SWEEP[20:21])
        assert live_data(view)["report"] == {"version": first.version, "records": 20}
        assert view.page() is first and live_data(view)["records"] == 21
        found = row.found_lately()  # The first analysis is always made; the next one is not yet.
        append(folder, SWEEP[21:22])
        assert row.found_lately() is found
        now[0] = 3.0 + 19 * 3 - 0.1
        assert view.page() is first
        now[0] += 0.2
        assert live_data(view)["report"]["version"] != first.version
        assert view.page().records == 22 and row.found_lately() is found
    append(folder, SWEEP[22:23])
    assert view.page().records == 23  # What has ended is shown at once.


def test_thinned_keeps_the_first_and_the_last() -> None:
    assert thinned([1.0, 2.0]) == [1.0, 2.0]
    assert thinned(range(1000), 5) == [0, 249, 499, 749, 999]


def test_suggested_paths_and_further_seeds_have_names_too(tmp_path: Path) -> None:
    overrides = ("search={method: optuna, n_trials: 8}",)
    folder = add_run(tmp_path, "run", (), *overrides)
    view, spec = RunView(folder), make_spec(*overrides)
    points = tuple(dict(path.configurations[0].values) for path in make_plan(SPEC).trajectories[:1])
    known = {name: points[0][name] for name in ("learning_rate", "batch_size")}
    before = view.path_names()
    append_round(folder, (known, {**known, "learning_rate": 7e-4}))
    new = set(view.path_names()) - set(before)
    plan = make_plan(spec, [known, {**known, "learning_rate": 7e-4}])
    assert new == {path.trajectory_id for path in plan.trajectories} - set(before)
    assert any("lr 7e-4" in view.path_names()[trial] for trial in new)
    ids = [item.config_id for item in plan.trajectories[-1].configurations]
    part = {"seed": 5, "config_ids": ids, "steps": 3}
    state = {"on": 0, "uncertain": 0, "off": 0, "undecided": 0, "hypervolume": None}
    append_decision(folder.refinements, {"parts": [part], "before": state, "choice": None})
    assert any(name.endswith("seed 5") for name in view.path_names().values())
