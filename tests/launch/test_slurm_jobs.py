"""The cluster job of a run, seen and stopped from a machine that sees the run folder."""

import os
from pathlib import Path

import pytest
from support.command import Command, in_process
from support.factories import make_sweep
from support.locks import line_of
from support.run_folders import write_run

from sweeper.launch import last_job
from sweeper.launch.jobs import note_job
from sweeper.launch.kuberay_jobs import KubeRayJob
from sweeper.launch.ray_cluster_jobs import RayClusterJob
from sweeper.launch.slurm_jobs import SlurmJob, submitted_id
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock

SQUEUE = """#!/bin/bash
[ "${@: -1}" = 4242 ] && cat "$QUEUE"
"""

SCANCEL = """#!/bin/bash
echo "$*" >>"$QUEUE.cancelled"
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_process(monkeypatch, capsys)


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `squeue` says of job 4242; `scancel` writes into the file beside it."""
    tools, text = tmp_path / "tools", tmp_path / "queue"
    tools.mkdir()
    for name, script in (("squeue", SQUEUE), ("scancel", SCANCEL)):
        (tools / name).write_text(script, encoding="utf-8")
        (tools / name).chmod(0o755)
    text.touch()
    monkeypatch.setenv("QUEUE", str(text))
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return text


@pytest.fixture
def waiting(tmp_path: Path, queue: Path) -> RunFolder:
    """A run folder in which only a launch has been."""
    folder = RunFolder(tmp_path / "waiting")
    folder.launch.mkdir(parents=True)
    note_job(folder.launch, SlurmJob("4242", folder.launch))
    queue.write_text("PENDING (Priority)\n", encoding="utf-8")
    return folder


def test_the_last_job_of_a_run_is_the_one_submitted_last(tmp_path: Path) -> None:
    assert last_job(tmp_path) is None
    jobs = (
        SlurmJob("1", tmp_path),
        KubeRayJob("sweeper-x-1", "team"),
        KubeRayJob("sweeper-x-1", None),
        RayClusterJob("sweeper-x-1", "http://10.0.0.1:8265"),
        SlurmJob("22", tmp_path),
    )
    for job in jobs:
        note_job(tmp_path, job)
        assert last_job(tmp_path) == job
    assert SlurmJob("22", tmp_path).log == str(tmp_path / "slurm-22.log")
    assert submitted_id("sbatch: a note\nSubmitted batch job 4242 on cluster x") == "4242"
    assert submitted_id("no job here") is None


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "slurm", "id": "1; rm -rf /"}',
        '{"kind": "slurm", "id": 1}',
        '{"kind": "kuberay", "id": "--kubeconfig=x"}',
        '{"kind": "kuberay", "id": "a", "namespace": "--all"}',
        '{"kind": "ray", "id": "a"}',
        '{"kind": "ray", "id": "a/../b", "address": "http://127.0.0.1:8265"}',
        '{"kind": "ray", "id": "a", "address": "file:///etc/passwd"}',
        '{"kind": "other", "id": "a"}',
        '["slurm"]',
        '{"kind"',
    ],
)
def test_a_note_that_launch_did_not_write_names_no_job(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.json").write_text(text, encoding="utf-8")
    assert last_job(tmp_path) is None


def test_a_cluster_that_only_a_run_folder_names_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Command
) -> None:
    """A token of the user's would go to it."""
    monkeypatch.setattr("sweeper.launch.ray_jobs.job_state", lambda address, name: "RUNNING")
    monkeypatch.setattr("sweeper.launch.ray_jobs.stop_job", lambda address, name: True)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    job = RayClusterJob("a", "http://10.0.0.1:8265")
    assert (job.state() or "").endswith("set RAY_API_SERVER_ADDRESS=http://10.0.0.1:8265")
    assert not job.stop() and not job.cancel(only_waiting=False)
    note_job(tmp_path, job)
    (tmp_path / "run" / "launch").mkdir(parents=True)
    (tmp_path / "job.json").rename(tmp_path / "run" / "launch" / "job.json")
    answer = command("stop", tmp_path / "run")
    assert answer.code == 2 and "set RAY_API_SERVER_ADDRESS=http://10.0.0.1:8265" in answer.err
    assert RayClusterJob("a", "http://127.0.0.1:8265").state() == "RUNNING"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", job.address)
    assert job.state() == "RUNNING"
    assert job.stop() and job.cancel(only_waiting=False) and not job.cancel(only_waiting=True)


def test_a_waiting_job_has_a_status_and_is_cancelled(
    command: Command, waiting: RunFolder, queue: Path
) -> None:
    answer = command("status", waiting.root)
    assert answer.code == 0
    assert "Slurm job 4242: PENDING (Priority)" in answer.out
    answer = command("stop", waiting.root)
    assert (answer.code, answer.out) == (
        0,
        "Slurm job 4242 is cancelled; `sweeper launch` continues the run\n",
    )
    assert Path(f"{queue}.cancelled").read_text(encoding="utf-8") == "4242\n"


def test_a_job_that_has_left_the_queue_is_no_longer_shown(
    command: Command, waiting: RunFolder, queue: Path
) -> None:
    queue.write_text("", encoding="utf-8")
    for word in ("status", "stop"):
        answer = command(word, waiting.root)
        assert answer.code == 2
        assert "is not a run folder" in answer.err
    assert not Path(f"{queue}.cancelled").exists()


def test_a_running_job_is_stopped_through_the_run_folder(
    command: Command, tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver is on another machine, which holds the lock here."""
    records = make_sweep(seed=3)
    folder = write_run(tmp_path / "run", records, readouts=len(records) + 2)
    folder.launch.mkdir(exist_ok=True)
    note_job(folder.launch, SlurmJob("4242", folder.launch))
    monkeypatch.setattr("sweeper.cli.control.STOP_SECONDS", 0.0)
    queue.write_text("RUNNING (None)\n", encoding="utf-8")
    with DriverLock(folder):
        folder.lock.write_bytes(line_of("node1", 1).line())
        assert "runs on node1, not on this machine" in command("stop", folder.root).err
        state = folder.launch / "job-4242"
        state.mkdir()
        answer = command("stop", folder.root)
        assert answer.code == 0
        assert "stopping process 4711; finished results are saved" in answer.out
        assert (state / "stop").exists()
        assert not Path(f"{queue}.cancelled").exists()
        # A job launched after it would begin as soon as it has ended.
        note_job(folder.launch, SlurmJob("4242", folder.launch))
        queue.write_text("PENDING (Dependency)\n", encoding="utf-8")
        out = command("stop", folder.root).out
        assert "Slurm job 4242 is cancelled" in out and "stopping process 4711" in out
