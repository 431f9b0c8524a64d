"""The Ray of a run: when it starts, what its workers are ready for, and that it always ends."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from support.fake_trials import Records, Storages, asking, expected, prepared, sound

from sweeper.errors import SweeperError
from sweeper.estimate.inputs import Machine, this_machine
from sweeper.estimate.rates import GPUS
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep import session
from sweeper.sweep.driver import Keys, drive
from sweeper.sweep.session import RaySession, fills
from sweeper.task import ComputeSettings, TrajectoryTask


@pytest.mark.parametrize(
    ("compute", "paths", "filled"),
    [
        (ComputeSettings(), 4, True),
        (ComputeSettings(), 3, False),
        (ComputeSettings(max_concurrent_trials=4), 9, True),
        (ComputeSettings(max_concurrent_trials=3), 9, False),
        (ComputeSettings(cpus_per_trial=2), 9, False),
    ],
)
def test_workers_import_early_only_where_every_cpu_gets_one(
    compute: ComputeSettings, paths: int, filled: bool
) -> None:
    assert fills(Machine((), 4), compute, paths) is filled
    assert not fills(Machine(GPUS[:1], 4), compute, paths)


def test_a_ray_that_cannot_start_says_so_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/" + "b" * 200)
    with RaySession(ComputeSettings()) as begun:
        begun.begin()
        for _ in range(2):
            with pytest.raises(SweeperError, match=r"^RAY_TMPDIR is .* set RAY_TMPDIR"):
                begun.wait()
    with pytest.raises(KeyError), RaySession(ComputeSettings()) as begun:
        begun.begin()
        raise KeyError  # An error of something else is not hidden.


def test_nothing_starts_that_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(session, "start_ray", lambda address, preload: started.append(address))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with RaySession(ComputeSettings()) as begun:
        assert not begun.is_local
    assert started == []
    with RaySession(ComputeSettings(ray_address="local")) as begun:
        assert begun.is_local
        begun.wait()
        begun.wait()
    assert started == ["local"]


TERMINATED_EARLY = """
import os, signal, sys, time
import ray
from sweeper.sweep.session import RaySession
from sweeper.task import ComputeSettings
signal.signal(signal.SIGTERM, lambda *_: sys.exit(77))
with RaySession(ComputeSettings(ray_address="local")) as begun:
    begun.begin()
    begun._started.wait(240)
    assert ray.is_initialized()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_run_that_is_terminated_before_it_needs_its_ray_ends_as_python_ends_it() -> None:
    command = [sys.executable, "-c", TERMINATED_EARLY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, "SIGTERM" in done.stderr) == (77, False), done.stderr


def leaves_its_process(
    tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys
) -> Records:
    """A mark with the id of the process, and whether it has the trial's modules, not needed here."""
    storage = storage_of(tasks[0].trajectory_id)
    storage.create()
    ready = "sweeper.trial.run" in sys.modules
    (storage.trajectory / f"process-{os.getpid()}-{ready}").touch()
    yield from sound(tasks, storage_of, done)


def marks(folder: RunFolder) -> list[str]:
    return [path.name for path in sorted(folder.trajectories.glob("*/process-*"))]


def own_process() -> int:
    """The process it runs in; a second long, so that two at once have two."""
    time.sleep(1)
    return os.getpid()


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests", "no_gpu")
def test_workers_wait_for_trials_also_when_every_cpu_is_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_idle_worker_killing_time_threshold_ms", "100")
    cpus = this_machine().cpus
    with RaySession(ComputeSettings(), paths=cpus) as begun:
        begun.wait()
        process = ray.remote(own_process)
        ready = set(ray.get([process.remote() for _ in range(cpus)], timeout=60))
        reserved = placement_group([{"CPU": 1}] * cpus)
        assert reserved.wait(60)
        time.sleep(1)  # Ray looks every 0.2 s for workers that it does not need.
        inside = process.options(scheduling_strategy=PlacementGroupSchedulingStrategy(reserved))
        assert set(ray.get([inside.remote() for _ in range(cpus)], timeout=60)) == ready


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests", "no_gpu")
def test_one_ray_serves_two_drives_and_its_workers_are_ready_and_stay_for_all_rounds(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    cpus = this_machine().cpus
    spec = asking(tiny_spec, adapters_per_trial=1)
    folders = [tmp_path / "search", tmp_path / "decision"]
    with RaySession(spec.compute, paths=cpus) as begun:
        for root in folders:
            folder, tasks = prepared(spec, root)
            rounds = [tasks[:2], tasks[2:]]
            assert drive(rounds, spec, folder, leaves_its_process, session=begun)
            assert ray.is_initialized()
            records = read_records(folder.records).records
            assert {record.key: record for record in records} == expected(tasks)
            found = marks(folder)
            assert len(found) == len(tasks) > cpus
            assert all(name.endswith("-True") for name in found)
            assert len(set(found)) <= cpus
    assert not ray.is_initialized()
