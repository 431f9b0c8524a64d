"""Which configurations share an optimizer path, and what that saves.

Two configurations share a trajectory when every number that changes a gradient step is equal up to the
step where each is read; `_path` holds exactly those numbers.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from sweeper.planning.configurations import (
    FIXED_NAMES,
    Configuration,
    Point,
    configurations_of,
    short_hash,
    without_later,
)
from sweeper.spec import SweepSpec
from sweeper.task import DataSettings, OptimizerSettings, Segment, Tuning

STRETCHING = ("linear", "cosine")
"""Schedules whose every step depends on the total: different step counts share nothing."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One optimizer path under one seed and the configurations read from it."""

    trajectory_id: str
    seed: int
    tuning: Tuning
    data: DataSettings
    settings: OptimizerSettings
    segments: tuple[Segment, ...]
    configurations: tuple[Configuration, ...]

    @property
    def steps(self) -> int:
        """Optimizer steps this trajectory costs, decay tails included."""
        return sum(segment.stop - segment.start for segment in self.segments)


class Accounting(NamedTuple):
    """What sharing saves.

    `steps_alone` counts the space's own configurations, each trained by itself, controls left out.
    `steps_planned` counts everything that will run, controls included: the ratio is a lower bound.
    """

    configurations: int
    controls: int
    trajectories: int
    readouts: int
    steps_alone: int
    steps_planned: int
    ratio: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a sweep will do."""

    configurations: tuple[Configuration, ...]
    trajectories: tuple[Trajectory, ...]
    accounting: Accounting

    def keys(self) -> frozenset[tuple[str, int]]:
        """The (config_id, seed) pairs a finished run has records of."""
        return frozenset(
            (item.config_id, trajectory.seed)
            for trajectory in self.trajectories
            for item in trajectory.configurations
        )


def make_plan(
    spec: SweepSpec,
    drawn: Sequence[Point] | None = None,
    only: Collection[str] | None = None,
) -> Plan:
    """Lay out the whole sweep, or a part of it.

    Args:
        spec: The sweep.
        drawn: The optimizer settings that an adaptive search has suggested so far. Without them, settings
            drawn at random stand in, which need about as much work.
        only: The ids of the configurations to keep; all where not given.

    Raises:
        SpecError: see `configurations_of`.
    """
    configurations = configurations_of(spec, drawn, only)
    trajectories = tuple(
        _trajectory(seed, group) for seed in spec.seeds for group in _share(configurations)
    )
    stand_in = spec.search.method == "optuna" and drawn is None
    accounting = _account(spec, configurations, trajectories, stand_in)
    return Plan(configurations, trajectories, accounting)


def _path(configuration: Configuration) -> str:
    """Everything that changes a gradient step before `configuration.step`; equal paths share a trajectory.

    The total number of steps is part of the path only if the schedule depends on it. The decay
    length of `warmup_stable_decay` is not: it shapes a tail that branches off the shared trunk.
    """
    settings = without_later(asdict(configuration.settings))
    if configuration.settings.lr_scheduler_type == "warmup_stable_decay":
        settings["decay_steps"] = None
    total = configuration.step if configuration.settings.lr_scheduler_type in STRETCHING else None
    base = configuration.step == 0
    return json.dumps([settings, asdict(configuration.tuning), total, base], sort_keys=True)


def _share(configurations: Iterable[Configuration]) -> list[tuple[Configuration, ...]]:
    groups: dict[str, list[Configuration]] = {}
    for item in configurations:
        groups.setdefault(json.dumps([_path(item), _fixed(item)]), []).append(item)
    return [tuple(group) for group in groups.values()]


def _trajectory(seed: int, group: tuple[Configuration, ...]) -> Trajectory:
    """One path with its readouts in step order, and the segments that cover them."""
    ordered = tuple(sorted(group, key=lambda item: item.step))
    first = ordered[0]
    segments = _segments(ordered)
    content = {
        "path": _path(first),
        "fixed": _fixed(first),
        "segments": [asdict(segment) for segment in segments],
        "seed": seed,
    }
    return Trajectory(
        short_hash(content), seed, first.tuning, first.data, first.settings, segments, ordered
    )


def _fixed(configuration: Configuration) -> dict[str, Any]:
    """What a path depends on besides optimizer and adapter: the model and the rows."""
    values = configuration.values
    return {name: values[name] for name in FIXED_NAMES if name in values}


def _segments(ordered: tuple[Configuration, ...]) -> tuple[Segment, ...]:
    """The trunk, then one tail per distinct (branch, end) of `warmup_stable_decay`."""
    last = max(item.step for item in ordered)
    if ordered[0].settings.lr_scheduler_type != "warmup_stable_decay":
        return (Segment(0, last, last),)
    tails = sorted({(item.step - item.settings.decay_steps, item.step) for item in ordered})
    trunk = tails[-1][0]
    return (
        Segment(0, trunk, trunk + 1, decay_steps=1),
        *(Segment(start, stop, stop, decay_steps=stop - start) for start, stop in tails),
    )


def segment_of(configuration: Configuration, segments: tuple[Segment, ...]) -> int:
    """Which segment a configuration is read on: its own decay tail, or the trunk."""
    start = configuration.step - configuration.settings.decay_steps if len(segments) > 1 else 0
    ends = [(segment.start, segment.stop) for segment in segments]
    return ends.index((start, configuration.step), 1) if len(segments) > 1 else 0


def _account(
    spec: SweepSpec,
    configurations: tuple[Configuration, ...],
    trajectories: tuple[Trajectory, ...],
    stand_in: bool,
) -> Accounting:
    own = [item for item in configurations if item.role == "candidate"]
    alone = sum(item.step for item in own) * len(spec.seeds)
    planned = sum(trajectory.steps for trajectory in trajectories)
    return Accounting(
        configurations=len(own),
        controls=len(configurations) - len(own),
        trajectories=len(trajectories),
        readouts=sum(len(trajectory.configurations) for trajectory in trajectories),
        steps_alone=alone,
        steps_planned=planned,
        ratio=alone / planned if planned else 1.0,
        notes=tuple(_notes(spec, own, stand_in)),
    )


def _notes(spec: SweepSpec, own: list[Configuration], stand_in: bool) -> Iterator[str]:
    """What could be changed to share more, and what is not known yet."""
    if stand_in:
        yield (
            f"{spec.search.sampler} chooses the optimizer settings during the run, "
            f"{spec.search.batch_size} at a time: counted are {spec.search.n_trials} drawn at random"
        )
    stretching = sorted({item.settings.lr_scheduler_type for item in own} & set(STRETCHING))
    steps = len({item.step for item in own})
    if stretching and steps > 1:
        moving = [item for item in own if item.settings.lr_scheduler_type in STRETCHING]
        paths = {_path(item): item.step for item in moving}
        longest: dict[str, int] = {}
        for path, step in paths.items():
            settings, tuning, _, _ = json.loads(path)
            key = json.dumps([settings, tuning])
            longest[key] = max(longest.get(key, 0), step)
        now, then = sum(paths.values()), sum(longest.values())
        yield (
            f"{' and '.join(stretching)} stretch with max_steps, so its {steps} step counts share "
            f"nothing: {now * len(spec.seeds)} optimizer steps; constant_with_warmup would need "
            f"{then * len(spec.seeds)}, warmup_stable_decay little more"
        )
