"""Tasks of the tiny world, and their records as `run_trajectory` and `run_pack` measure them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from support.world import World, spec_text
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_pack, run_trajectory


def spec_with(world: World, **space: object) -> SweepSpec:
    """The tiny sweep with other values in its space."""
    raw = yaml.safe_load(spec_text(world))
    raw["space"] |= space
    return parse_spec(yaml.safe_dump(raw))


def tasks_of(spec: SweepSpec) -> tuple[TrajectoryTask, ...]:
    """The trajectories of a sweep, on the CPU."""
    return make_tasks(make_plan(spec), spec, str, device="cpu")


def task_of(world: World, *overrides: str, role: str = "candidate") -> TrajectoryTask:
    """The first trajectory of a role in the tiny sweep, with `key.path=value` overrides."""
    spec = parse_spec(spec_text(world), overrides=overrides)
    return next(task for task in tasks_of(spec) if task.readouts[0].role == role)


def multi(world: World) -> TrajectoryTask:
    """A trajectory with several readouts, averages and a decay that branches off; often saved."""
    space = {"lr_scheduler_type": "wsd", "decay_steps": 1, "max_steps": {"values": [2, 4]}}
    spec = spec_with(world, learning_rate=4e-3, **space)
    task = next(task for task in tasks_of(spec) if len(task.readouts) > 3)
    return replace(task, compute=replace(task.compute, checkpoint_every=1))


def by_configuration(records: Iterable[TrialRecord]) -> dict[str, TrialRecord]:
    """Records by their configuration; each may be there once."""
    listed = list(records)
    found = {record.config_id: record for record in listed}
    assert len(found) == len(listed)
    return found


def run_all(task: TrajectoryTask, root: Path) -> dict[str, TrialRecord]:
    """The records of a trajectory run by itself."""
    return by_configuration(run_trajectory(task, TrialStorage(root, task.trajectory_id)))


def run_together(tasks: Sequence[TrajectoryTask], root: Path) -> dict[str, TrialRecord]:
    """The records of trajectories that share a trial."""
    parts = run_pack(tasks, lambda trajectory_id: TrialStorage(root, trajectory_id))
    return by_configuration(record for part in parts for record in part)


def comparable(records: dict[str, TrialRecord]) -> dict[str, TrialRecord]:
    """Without what two runs of the same cannot share, such as times."""
    return {key: record.comparable() for key, record in records.items()}
