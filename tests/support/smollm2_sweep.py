"""A small LoRA sweep over SmolLM2, run without Ray, as the tests of a real model share it."""

from collections.abc import Sequence
from pathlib import Path

from support.trials import tasks_of
from support.world import World, spec_text
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordWriter, TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory

FEW = (
    "data.train.rows=8",
    "data.heldout.rows=2",
    "evaluation.harmful.rows=4",
    "evaluation.harmless=[]",
    "evaluation.utility_metrics=[heldout_loss]",
    "objectives=[heldout_loss, unsafe_rate]",
    "space.batch_size=2",
    "space.max_steps={values: [2, 3]}",
    "compute.keep_weights=all",
)
"""As little as still shares a path, trains side by side, and refuses or not."""


def spec_of(world: World, *overrides: str) -> SweepSpec:
    """The tiny sweep over the real model with few rows, and `key.path=value` overrides."""
    return parse_spec(spec_text(world), overrides=[*FEW, *overrides])


def candidates(spec: SweepSpec) -> list[TrajectoryTask]:
    """The trajectories that have a candidate."""
    return [
        task
        for task in tasks_of(spec)
        if any(readout.role == "candidate" for readout in task.readouts)
    ]


def measure(tasks: Sequence[TrajectoryTask], root: Path) -> tuple[RunFolder, list[TrialRecord]]:
    """A run folder with the records of trajectories, each run by itself."""
    folder = RunFolder(root)
    folder.create()
    writer, records = RecordWriter(folder.records), []
    for task in tasks:
        for record in run_trajectory(task, folder.trial(task.trajectory_id)):
            assert record.status == "complete", record.reason
            writer.append(record)
            records.append(record)
    writer.close()
    return folder, records
