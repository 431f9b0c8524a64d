"""What the driver does on a real local Ray when storages refuse and trials hang."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.fake_trials import Records, Storages, asking, expected, prepared, sound
from support.small_disk import fill, small_disk

from sweeper.errors import DiskFullError
from sweeper.spec import SweepSpec
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.driver import WORKER_RESTARTS, Keys, drive
from sweeper.task import TrajectoryTask
from sweeper.trial.watchdog import Watchdog

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers_import_tests")]


def refused_once(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """The first time, the disk is full after the first record."""
    storage = storage_of(tasks[0].trajectory_id)
    marker = storage.root / "refused"
    for records in sound(tasks, storage_of, done):
        yield records
        if not marker.exists():
            marker.touch()
            raise DiskFullError("generations/x.jsonl", 4096, 12)


def test_a_trial_whose_disk_is_full_ends_the_run_and_the_same_command_continues(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    with pytest.raises(DiskFullError) as refusal:
        drive([tasks], tiny_spec, folder, refused_once)
    assert str(refusal.value).startswith(
        "no space left to write generations/x.jsonl (4,096 bytes); free there: 12 bytes"
    )
    kept = read_records(folder.records).records
    assert 0 < len(kept) < len(expected(tasks))
    assert {record.status for record in kept} == {"complete"}
    drive([tasks], tiny_spec, folder, refused_once)
    records = read_records(folder.records).records
    assert len(records) == len(expected(tasks))
    assert {record.key: record for record in records} == expected(tasks)


def test_a_disk_that_fills_up_under_the_driver_loses_nothing(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 1024) as disk:
        folder, tasks = prepared(tiny_spec, disk / "run")
        heard: list[TrialRecord] = []

        def listen(record: TrialRecord) -> None:
            heard.append(record)
            if len(heard) == 3:
                fill(disk)

        with pytest.raises(
            DiskFullError, match=r"records\.jsonl \([\d,]+ bytes\); free there: 0 b"
        ):
            drive([tasks], asking(tiny_spec, max_concurrent_trials=1), folder, sound, listen)
        found = read_records(folder.records)
        assert (list(found.records), found.torn) == (heard, b"")
        assert 3 <= len(heard) < len(expected(tasks))


def hangs(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """The base model makes no progress, ever."""
    storage = storage_of(tasks[0].trajectory_id)
    storage.create()
    if tasks[0].readouts[0].role == "base":
        (storage.trajectory / f"attempt-{len(list(storage.trajectory.glob('attempt-*')))}").touch()
        with Watchdog(0.2, storage.stalled(0)):
            time.sleep(1000)
    yield from sound(tasks, storage_of, done)


def test_a_trial_that_hangs_every_time_fails_with_where_it_stood_and_spares_the_others(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    drive([tasks], asking(tiny_spec, adapters_per_trial=1), folder, hangs)
    records = read_records(folder.records).records
    assert {record.key for record in records} == set(expected(tasks))
    (lost,) = [record for record in records if record.status != "complete"]
    assert (lost.status, lost.role) == ("failed", "base")
    reason = lost.reason or {}
    assert (reason["class"], reason["stage"]) == ("Stalled", "stalled")
    assert reason["message"].startswith(
        "no progress for 60 min (compute.stall_timeout_minutes), even after a restart"
    )
    assert "in hangs" in reason["traceback"]
    trajectory = folder.trial(lost.trajectory_id).trajectory
    assert len(list(trajectory.glob("attempt-*"))) == 1 + WORKER_RESTARTS
