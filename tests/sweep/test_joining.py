"""Nodes that join and leave while a driver runs, on real Ray nodes of one machine."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.fake_trials import Records, Storages, asking, expected, measured, prepared
from support.ray_nodes import ray_nodes

from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep import waiting
from sweeper.sweep.driver import Keys, drive
from sweeper.sweep.placement import without_gpu
from sweeper.task import TrajectoryTask

PATIENCE_SECONDS = 60.0


def located(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """Notes the node of each trajectory, and goes on when the test says that this node may."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    for task in tasks:
        storage = storage_of(task.trajectory_id)
        storage.create()
        count = len(list(storage.trajectory.glob("on-*")))
        (storage.trajectory / f"on-{count}-{node}").touch()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (storage.trajectory.parent / f"go-{node}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for readout in task.readouts:
            if (readout.config_id, task.seed) not in done:
                yield [measured(task, readout)]


def begun(folder: RunFolder) -> dict[str, list[str]]:
    """The nodes on which each trajectory was begun, in order."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.trajectories.glob("*/on-*")):
        found.setdefault(path.parent.name, []).append(path.name.split("-", 2)[2])
    return found


def wait_for(happened: Callable[[], bool], driver: "Future[bool]") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert not driver.done() and time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
def test_a_node_that_joins_is_used_and_what_a_leaving_one_had_begun_runs_elsewhere(
    tiny_spec: SweepSpec, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    folder.trajectories.mkdir(exist_ok=True)
    with (
        ray_nodes() as nodes,
        caplog.at_level(logging.WARNING, "sweeper.sweep.driver"),
        ThreadPoolExecutor(1) as beside,
    ):
        one = nodes.add(cpus=1)
        spec = asking(tiny_spec, ray_address=nodes.address, adapters_per_trial=1)
        driver = beside.submit(drive, [tasks], spec, folder, located)
        wait_for(lambda: len(begun(folder)) == 1, driver)
        other = nodes.add(cpus=1)
        wait_for(lambda: len(begun(folder)) == 2, driver)
        before = begun(folder)
        nodes.remove(one)
        (folder.trajectories / f"go-{other.node_id}").touch()
        assert driver.result(PATIENCE_SECONDS)
    (interrupted,) = [name for name, places in before.items() if places == [one.node_id]]
    where = begun(folder)
    assert where.pop(interrupted) == [one.node_id, other.node_id]
    assert len(where) == len(tasks) - 1
    assert set(map(tuple, where.values())) == {(other.node_id,)}
    records = read_records(folder.records).records
    assert len(records) == len(expected(tasks))
    assert {record.key: record for record in records} == expected(tasks)
    (warning,) = [said.message for said in caplog.records if said.name == "sweeper.sweep.driver"]
    assert "no machine of the cluster has a GPU yet" in warning


def at_once(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    for task in tasks:
        for readout in task.readouts:
            yield [measured(task, readout)]


class _SomebodyElse:
    def is_there(self) -> bool:
        return True


class _LetGo(logging.Handler):
    """Ends the work of somebody else as soon as a message says that the sweep waits."""

    def emit(self, record: logging.LogRecord) -> None:
        import ray

        ray.kill(ray.get_actor("somebody else", namespace="elsewhere"))


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
def test_a_sweep_that_waits_for_others_says_so_and_goes_on_when_they_leave(
    tiny_spec: SweepSpec,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 1.0)
    folder, tasks = prepared(tiny_spec, tmp_path / "run")
    log, handler = logging.getLogger("sweeper.sweep.waiting"), _LetGo()
    with ray_nodes() as nodes, caplog.at_level(logging.WARNING, log.name):
        nodes.add(cpus=1)
        ray.init(address=nodes.address, namespace="elsewhere", logging_level=logging.ERROR)
        remote: Any = ray.remote(_SomebodyElse)
        options = {"num_cpus": 1, "name": "somebody else", "lifetime": "detached"}
        ray.get(remote.options(**options).remote().is_there.remote())
        ray.shutdown()
        log.addHandler(handler)
        try:
            spec = asking(tiny_spec, ray_address=nodes.address, gpus_per_trial=0)
            assert drive([tasks], spec, folder, at_once)
        finally:
            log.removeHandler(handler)
    assert {record.key for record in read_records(folder.records).records} == set(expected(tasks))
    (said,) = [record.message for record in caplog.records if record.name == log.name]
    assert said.startswith(
        "no trial has started for 1 s: each needs 1 CPU; not reserved: 0 of 1 CPU"
    )


class _Trial(NamedTuple):
    status: str


def test_waiting_is_said_once_for_each_time_that_it_lasts_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0, "GPU": 2.0})
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 7.5})
    notice = waiting.WaitingNotice({"CPU": 1.0, "GPU": 0.5}, lambda: now)
    caplog.set_level(logging.WARNING, "sweeper.sweep.waiting")

    def at(seconds: float, *states: str) -> int:
        nonlocal now
        now = seconds
        notice.on_step_end(0, [_Trial(state) for state in states])
        return len(caplog.records)

    assert at(0, "PENDING") == at(59.9, "PENDING", "PENDING") == 0
    assert at(60, "PENDING", "PENDING") == at(500, "PENDING") == 1
    assert at(510, "RUNNING", "PENDING") == at(600, "TERMINATED", "PENDING") == 1
    assert at(659, "TERMINATED", "PENDING") == 1
    assert at(660, "TERMINATED", "PENDING") == 2
    assert at(700, "TERMINATED") == at(900, "PENDING") == 2
    assert "each needs 1 CPU and 0.5 GPU; not reserved: 7.5 of 8 CPU, 0 of 2 GPU" in caplog.text


@pytest.mark.parametrize(
    ("per_trial", "found", "warned"),
    [("auto", 0.0, True), ("auto", 1.0, False), (0, 0.0, False), (0.5, 0.5, False)],
)
def test_cpus_in_place_of_gpus_are_a_warning_unless_asked_for(
    tiny_spec: SweepSpec, per_trial: "float | str", found: float, warned: bool
) -> None:
    spec = asking(tiny_spec, gpus_per_trial=per_trial)
    text = without_gpu(spec, {"CPU": 1.0, "GPU": found})
    assert (text is not None) is warned
    if text is not None:
        assert "compute.gpus_per_trial to 0" in text and "keep one machine" in text
