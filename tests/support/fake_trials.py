"""Trial functions that train nothing, for the driver on a real local Ray."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.records import Metric, TrialRecord
from sweeper.sweep.driver import Keys
from sweeper.task import Readout, TrajectoryTask


def measured(task: TrajectoryTask, readout: Readout) -> TrialRecord:
    """A complete record whose numbers follow from the configuration."""
    k = int(readout.config_id, 16) % 9
    return TrialRecord(
        config_id=readout.config_id,
        trajectory_id=task.trajectory_id,
        seed=task.seed,
        role=readout.role,
        status="complete",
        config=readout.config,
        readout={"step": readout.step, "kind": "raw", "decay": None, "weight": None, "label": ""},
        metrics={"rouge_l": Metric(k / 10, 10), "unsafe_rate": Metric.rate(k, 8)},
        objectives=task.objectives,
    )


Records = Iterator[list[TrialRecord]]
Storages = Callable[[str], TrialStorage]


def sound(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """Leaves a mark per call, then reports every readout."""
    for task in tasks:
        storage = storage_of(task.trajectory_id)
        storage.create()
        (storage.trajectory / f"call-{len(list(storage.trajectory.glob('call-*')))}").touch()
        for readout in task.readouts:
            if (readout.config_id, task.seed) not in done:
                (storage.trajectory / readout.config_id).touch()
                yield [measured(task, readout)]


def graded(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """The small learning rate is safe and learns with the steps, the large one is unsafe."""
    for (record,) in sound(tasks, storage_of, done):
        safe = record.config["learning_rate"] < 2e-3
        unsafe, learned = Metric.rate(1 if safe else 6, 8), Metric(record.readout["step"] / 10, 10)
        yield [replace(record, metrics={"unsafe_rate": unsafe, "rouge_l": learned})]


def prepared(spec: SweepSpec, root: Path) -> tuple[RunFolder, tuple[TrajectoryTask, ...]]:
    folder = RunFolder(root)
    folder.create()
    return folder, make_tasks(make_plan(spec), spec, lambda path: path)


def expected(tasks: tuple[TrajectoryTask, ...]) -> dict[tuple[str, int], TrialRecord]:
    return {
        (readout.config_id, task.seed): measured(task, readout)
        for task in tasks
        for readout in task.readouts
    }


def asking(spec: SweepSpec, **compute: Any) -> SweepSpec:
    return spec.model_copy(update={"compute": replace(spec.compute, **compute)})
