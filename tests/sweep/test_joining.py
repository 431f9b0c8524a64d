"""Nodes that join and leave while a driver runs, on real Ray nodes of one machine."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fake_trials import Records, Storages, asking, expected, measured, prepared
from support.ray_nodes import ray_nodes

from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
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
