"""On a cluster with unequal GPUs a trial goes where its memory estimate fits."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.factories import make_spec
from support.fake_trials import Records, Storages, asking, expected, measured, prepared
from support.ray_nodes import ray_nodes

from sweeper.errors import DeviceError
from sweeper.estimate.inputs import Machine, known_gpu
from sweeper.estimate.measured_rates import count_tokens
from sweeper.estimate.preflight import check_memory
from sweeper.memory import GIB
from sweeper.model.load import model_folder
from sweeper.planning import make_plan
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep import driver
from sweeper.sweep.driver import Keys, drive
from sweeper.sweep.gpu_fit import needed_bytes, too_small
from sweeper.task import TrajectoryTask

NODES = [
    {
        "NodeID": name,
        "NodeManagerAddress": name,
        "Alive": name != "gone",
        "Resources": {"GPU": gpus},
    }
    for name, gpus in (
        ("small", 1.0),
        ("large", 8.0),
        ("unknown", 1.0),
        ("head", 0.0),
        ("gone", 4.0),
    )
]
MEMORY = {"small": 24 * GIB, "large": 80 * GIB}


@pytest.mark.parametrize(
    ("needed", "share", "left_out"),
    [
        (24 * GIB, 1.0, []),
        (24 * GIB + 1, 1.0, ["small"]),
        (12 * GIB, 0.5, []),
        (12 * GIB + 1, 0.5, ["small"]),
        (80 * GIB + 1, 1.0, ["small", "large"]),
        (None, 1.0, []),
    ],
)
def test_nodes_are_left_out_from_the_first_byte_that_is_missing(
    needed: int | None, share: float, left_out: list[str]
) -> None:
    found = too_small(NODES, MEMORY, needed, share)
    assert (found.nodes if found is not None else []) == left_out
    if found is not None:
        assert found.selector == {"ray.io/node-id": f"!in({','.join(left_out)})"}
        assert "small (24 GiB)" in found.warning


def test_where_no_node_is_left_all_are_tried() -> None:
    found = too_small(NODES[:2], MEMORY, 100 * GIB, 1.0)
    assert found is not None and found.nodes == []
    assert "so all are tried" in found.warning


def test_the_need_of_a_sweep_is_that_of_the_memory_model(
    tiny_spec: SweepSpec, tmp_path: Path
) -> None:
    _, tasks = prepared(tiny_spec, tmp_path)
    needed = needed_bytes(tiny_spec, tasks[0])
    assert needed is not None
    task = tasks[0]

    def check(memory_bytes: int) -> None:
        gpu = known_gpu("GPU", memory_bytes)
        folder, tokens = str(model_folder(task.model)), count_tokens(task)
        check_memory(make_plan(tiny_spec), tiny_spec, folder, tokens, Machine((gpu,), 1))

    check(needed)
    with pytest.raises(DeviceError):
        check(needed - 1)
    unknown = make_spec("model.path=own/nowhere")
    _, others = prepared(unknown, tmp_path / "other")
    assert needed_bytes(unknown, others[0]) is None


def placed(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """Notes the node of each trajectory, and takes long enough for a second node to be wanted."""
    import ray

    for task in tasks:
        storage = storage_of(task.trajectory_id)
        storage.create()
        (storage.trajectory / f"on-{ray.get_runtime_context().get_node_id()}").touch()
        time.sleep(0.5)
        yield [measured(task, readout) for readout in task.readouts]


def used(folder: RunFolder) -> set[str]:
    return {path.name.removeprefix("on-") for path in folder.trajectories.glob("*/on-*")}


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
def test_no_trial_runs_on_a_node_whose_gpu_is_too_small(
    tiny_spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ray_nodes() as nodes:
        ids = [nodes.add(cpus=1, gpus=1).node_id for _ in range(2)]
        spec = asking(tiny_spec, ray_address=nodes.address, adapters_per_trial=1)
        monkeypatch.setattr(driver, "needed_bytes", lambda spec, task: 40 * GIB)
        for small, large in (ids, ids[::-1]):  # Each is the larger one once.
            memory = {small: 24 * GIB, large: 80 * GIB}
            monkeypatch.setattr(driver, "gpu_memory", lambda found, given=memory: given)
            folder, tasks = prepared(spec, tmp_path / f"run-{large}")
            assert drive([tasks], spec, folder, placed)
            assert used(folder) == {large}
            records = read_records(folder.records).records
            assert {record.key: record for record in records} == expected(tasks)
