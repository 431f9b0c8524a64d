"""A clock that jumps orders nothing, ends nothing and shows in no duration."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.locks import Passing, line_of, lock_file
from support.trials import comparable, multi, run_all
from support.world import World

from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.lock import DriverLock
from sweeper.store.progress import read_trajectory
from sweeper.trial.run import run_trajectory


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time of day goes back and forth by decades with every look at it."""
    times = itertools.cycle([2e9, 0.0, 4e9, 1.0, 1e9])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: next(times))
    yield
    monkeypatch.setattr(time, "time", real)


def test_a_trial_through_clock_jumps_has_the_same_records_and_no_negative_duration(
    tiny_world: World, tmp_path: Path, jumping: None
) -> None:
    task = multi(tiny_world)
    expected = comparable(run_all(task, tmp_path / "whole"))
    storage = TrialStorage(tmp_path / "cut", task.trajectory_id)
    attempt = run_trajectory(task, storage)
    next(attempt)
    attempt.close()  # type: ignore[attr-defined]
    records = run_all(task, tmp_path / "cut")
    assert comparable(records) == expected
    seconds = [value for one in records.values() for value in one.provenance["seconds"].values()]
    assert len(seconds) >= 3 * len(records)
    assert all(value >= 0 for value in seconds)


def test_progress_is_told_by_beats_not_by_the_clock(
    tiny_world: World, tmp_path: Path, jumping: None
) -> None:
    task = multi(tiny_world)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    beats = []
    for _ in run_trajectory(task, storage):
        found = read_trajectory(storage.progress)
        assert found is not None
        beats.append(found.beat)
    assert beats == sorted(beats) and beats[0] < beats[-1]


def test_a_lock_is_taken_over_after_waiting_not_after_a_time_of_day(
    tmp_path: Path, jumping: None
) -> None:
    lock_file(tmp_path).write_bytes(line_of("node-7", 3).line())
    sleep = Passing()
    with DriverLock(RunFolder(tmp_path), sleep=sleep) as lock:
        lock.check()
    assert sum(sleep.slept) == 15.0
