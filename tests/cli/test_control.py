"""Commands on a run by its folder."""

import os
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from support.command import Command, in_process
from support.factories import make_spec, make_sweep
from support.fake_trials import measured
from support.locks import line_of
from support.run_folders import append, write_run

from sweeper.cli import sweeps
from sweeper.planning import make_plan, make_tasks
from sweeper.runs.time_left import process_began
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock

DRIVER = """
import signal, sys, time
from pathlib import Path
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
ignored = sys.argv[2] == "background"
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
def end(*_):
    raise SystemExit(7)
signal.signal(signal.SIGTERM, end)
try:
    with DriverLock(RunFolder(Path(sys.argv[1]))):
        print("driving", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    raise SystemExit(5)
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_process(monkeypatch, capsys)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    records = make_sweep(seed=3)
    return write_run(tmp_path / "run", records, readouts=len(records) + 2)


def start(run: RunFolder, kind: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", DRIVER, str(run.root), kind]
    driver = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "driving\n"
    return driver


@pytest.mark.parametrize(("kind", "code"), [("foreground", 5), ("background", 7)])
def test_stop_ends_the_driver_as_ctrl_c_does(
    command: Command, run: RunFolder, kind: str, code: int
) -> None:
    with start(run, kind) as driver:
        answer = command("stop", run.root)
        assert answer.code == 0
        assert f"stopping process {driver.pid}" in answer.out
        assert f"stopped; next: sweeper resume {run.root}" in answer.out
        assert driver.wait() == code
    again = command("stop", run.root)
    assert again.code == 2 and "no sweep is running in" in again.err


def test_stop_path_marks_what_is_meant_and_nothing_else(command: Command, tmp_path: Path) -> None:
    spec = make_spec("seeds=[0, 1]", "decide=false")
    first, *others = make_plan(spec).trajectories
    run = write_run(tmp_path / "run", (), spec)

    def marked() -> set[str]:
        return {path.parent.name for path in run.trajectories.glob("*/stop")}

    answer = command("stop", run.root, "--path", first.trajectory_id)
    assert answer.code == 0 and f"path {first.trajectory_id} ends at the next step" in answer.out
    assert marked() == {first.trajectory_id}
    config_id = first.configurations[0].config_id
    again = {
        path.trajectory_id
        for path in (first, *others)
        if config_id in {item.config_id for item in path.configurations}
    }
    assert len(again) == 2
    assert command("stop", run.root, "--path", config_id).code == 0
    assert marked() == again  # Both seeds.
    for name, says in (("", "is the beginning of"), ("nothing", "no unfinished path")):
        refused = command("stop", run.root, "--path", name)
        assert refused.code == 2 and says in refused.err
    assert len(marked()) == 2
    task = make_tasks(make_plan(spec), spec, str)[0]
    append(run, [measured(task, readout) for readout in task.readouts])
    assert "no unfinished path" in command("stop", run.root, "--path", task.trajectory_id).err


def test_a_driver_of_another_machine_is_not_stopped(command: Command, run: RunFolder) -> None:
    with DriverLock(run):
        run.lock.write_bytes(line_of("elsewhere", 1, os.getpid()).line())
        answer = command("stop", run.root)
    assert answer.code == 2 and "runs on elsewhere, not on this machine" in answer.err
    run.lock.write_bytes(line_of("elsewhere", 1, os.getpid()).line())  # Its lock is not to be seen.
    answer = command("stop", run.root)
    assert (
        answer.code == 2 and "runs on elsewhere, not on this machine, unless it was" in answer.err
    )


def test_status_counts_records_and_names_the_driver(command: Command, run: RunFolder) -> None:
    records = len(make_sweep(seed=3))
    idle = command("status", run.root).out
    assert (
        f"{run.root}: stopped: its search is not finished\nsearch: {records} of {records + 2} records"
        in idle
    )
    assert f"next: sweeper resume {run.root}" in idle
    progress = run.trial("abc").progress
    progress.parent.mkdir(parents=True)
    content = '{"version": 1, "stage": "train", "step": 3, "steps": 9, "losses": [], "beat": 1, '
    progress.write_text(content + f'"written_at": {time.time()}}}')
    with DriverLock(run):
        busy = command("status", run.root).out
    assert f"running (process {os.getpid()} on " in busy
    assert "cost of the search so far: 13.6 min of worker time\n" in busy
    assert "trial abc: training, step 3 of 9" in busy and "time left: not known yet" in busy
    alone = make_spec("decide=false")
    done = write_run(run.root.parent / "done", make_sweep(seed=3), alone, readouts=records)
    assert f"next: sweeper open {done.root}" in command("status", done.root).out


def test_resume_is_run_with_the_stored_sweep(
    command: Command, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(sweeps, "run", lambda *given, **named: called.append((given, named)))
    assert command("resume", run.root).code == 0
    assert called == [((str(run.spec),), {"out": run.root})]
    assert command("resume", run.root.parent).code == 2


def test_open_writes_the_report_only_where_it_is_out_of_date(
    command: Command, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def browser(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", browser)
    assert command("open", run.root).out == f"{run.report.resolve()}\n"
    assert opened == [run.report.resolve().as_uri()]
    run.report.write_text("mine")
    command("open", run.root, "--no-browser")
    assert run.report.read_text() == "mine" and len(opened) == 1
    os.utime(run.report, (0, 0))
    command("open", run.root, "--no-browser")
    assert run.report.read_text() != "mine"


def test_the_start_of_a_process() -> None:
    began = process_began(os.getpid())
    assert began is not None and time.time() - 3600 < began <= time.time() + 1
    assert process_began(2**22 + 1) is None
