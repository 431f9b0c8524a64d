"""A process without progress ends itself, whatever it hangs in; its trial goes on from its checkpoint."""

import faulthandler
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.trials import comparable, multi, run_all
from support.world import World

from sweeper.store.folder import TrialStorage
from sweeper.store.records import lost_records
from sweeper.trial.run import run_pack
from sweeper.trial.watchdog import Watchdog

HANGS = {
    "sleep": "time.sleep(1000)",
    "loop": "while True: pass",
    "lock": "threading.Lock().acquire() and (lock := threading.Lock()).acquire() and lock.acquire()",
    "holding the GIL": "ctypes.PyDLL(None).sleep(1000)",
}
"""What a process may hang in; the last lets no other Python thread run."""

CHILD = """
import ctypes, sys, threading, time
from pathlib import Path
from sweeper.trial.watchdog import Watchdog

jumps = iter([4e9, 0.0] * 1000)
time.time = lambda: next(jumps)
with Watchdog(3600, Path(sys.argv[1])) as watchdog:
    watchdog.beat()
    print("alive", flush=True)
    watchdog._seconds, watchdog._due = 0.2, 0.0
    watchdog.beat()
    {hang}
"""


def test_a_hanging_process_is_ended_and_says_where_it_stood(tmp_path: Path) -> None:
    processes = {}
    for name, hang in HANGS.items():
        command = [sys.executable, "-c", textwrap.dedent(CHILD).format(hang=hang)]
        processes[name] = subprocess.Popen(
            [*command, str(tmp_path / name)], stdout=subprocess.PIPE, text=True
        )
    for name, process in processes.items():
        told, _ = process.communicate(timeout=120)
        assert (process.returncode, told) == (1, "alive\n")
        note = (tmp_path / name).read_text()
        assert note.startswith("Timeout (0:00:00.200000)!\nThread 0x")
        assert "<module>" in note


def test_a_process_that_ends_leaves_no_note(tmp_path: Path) -> None:
    note = tmp_path / "stalled-0.txt"
    with Watchdog(3600.0, note) as watchdog:
        watchdog.beat()
        assert note.read_bytes() == b""
    assert not note.exists()


def test_a_note_that_cannot_be_written_is_no_reason_to_hang(tmp_path: Path) -> None:
    with Watchdog(3600.0, tmp_path / "nowhere" / "note.txt") as watchdog:
        watchdog.beat()


HANGING_TRIAL = """
import gc, sys, time
from pathlib import Path
from sweeper.store.folder import TrialStorage
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory
from sweeper.scoring.score import Scorer
from sweeper.trial.train import PathTrainer
from sweeper.trial.watchdog import Watchdog

task, root, where = TrajectoryTask.read(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
def hang(*arguments):
    (watchdog,) = (item for item in gc.get_objects() if isinstance(item, Watchdog))
    watchdog._seconds, watchdog._due = 0.2, 0.0
    watchdog.beat()
    time.sleep(1000)
count = 0
finish = PathTrainer.finish
def third_step(self, *arguments):
    global count
    count += 1
    return hang() if count == 3 else finish(self, *arguments)
if where == "train":
    PathTrainer.finish = third_step
if where == "evaluate":
    Scorer._scores = hang
for record in run_trajectory(task, TrialStorage(root, task.trajectory_id)):
    print(record.config_id, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["train", "evaluate"])
def test_a_trial_that_hangs_goes_on_from_its_checkpoint_to_the_same_records(
    tiny_world: World, tmp_path: Path, where: str
) -> None:
    task = multi(tiny_world)
    expected = comparable(run_all(task, tmp_path / "whole"))
    (tmp_path / "task.json").write_text(task.to_json())
    command = [sys.executable, "-c", HANGING_TRIAL, str(tmp_path / "task.json"), str(tmp_path)]
    ended = subprocess.run([*command, where], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stdout.splitlines()) == (3 if where == "train" else 0)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    (note,) = storage.stall_notes()
    assert "in hang" in note and f"in {'_step' if where == 'train' else '_score'}" in note
    assert storage.checkpoint.exists()
    lost = list(lost_records(task, "the worker died", storage.stall_notes()))
    reasons = [record.reason or {} for record in lost]
    assert {(reason["class"], reason["stage"]) for reason in reasons} == {("Stalled", "stalled")}
    assert "in hang" in reasons[0]["traceback"]
    assert comparable(run_all(task, tmp_path)) == expected
    assert storage.stall_notes() == []


def test_a_trial_that_waits_for_its_consumer_is_not_taken_for_hanging(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def armed(seconds: float, **more: object) -> None:
        calls.append(f"{seconds:g}")

    monkeypatch.setattr(faulthandler, "dump_traceback_later", armed)
    monkeypatch.setattr(
        faulthandler, "cancel_dump_traceback_later", lambda: calls.append("cancelled")
    )
    task = multi(tiny_world)
    for _ in run_pack([task], lambda trajectory_id: TrialStorage(tmp_path, trajectory_id)):
        assert calls[-1] == "cancelled"
        assert "3600" in calls
        calls.clear()
    assert calls[-1] == "cancelled"
