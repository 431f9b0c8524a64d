"""Builds the complete tasks of workers from trajectories."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from sweeper.planning.configurations import CANDIDATE, default_control
from sweeper.planning.trajectories import Plan, Trajectory, segment_of
from sweeper.spec import SweepSpec
from sweeper.spec.space import DATA_AXES
from sweeper.task import RateLimit, Readout, Source, StopRules, TrajectoryTask


def make_tasks(
    plan: Plan, spec: SweepSpec, resolve: Callable[[str], str], device: str = "auto"
) -> tuple[TrajectoryTask, ...]:
    """Turn trajectories into tasks, longest first, so that workers finish at about the same time.

    Args:
        plan: What `make_plan` laid out.
        spec: The spec it came from.
        resolve: Turns a path as written in the spec into one that can be opened.
        device: `auto`, `cpu` or `cuda`.
    """
    shared = _SharedSettings(spec, resolve, device)
    ordered = sorted(plan.trajectories, key=lambda item: (item.steps > 0, -item.steps))
    return tuple(shared.task(trajectory) for trajectory in ordered)


class _SharedSettings:
    """The parts of a task that all trajectories of a sweep have in common."""

    def __init__(self, spec: SweepSpec, resolve: Callable[[str], str], device: str) -> None:
        def opened(source: Source) -> Source:
            return replace(source, path=resolve(source.path)) if source.path else source

        data, evaluation = spec.data, spec.evaluation
        self._model = replace(spec.model, path=resolve(spec.model.path))
        heldout = None if data.heldout is None else opened(data.heldout)
        safety = None if data.safety is None else opened(data.safety)
        self._data = replace(data, train=opened(data.train), heldout=heldout, safety=safety)
        self._evaluation = replace(
            evaluation,
            harmful=tuple(map(opened, evaluation.harmful)),
            harmless=tuple(map(opened, evaluation.harmless)),
        )
        self._compute = replace(spec.compute, device=device, budget=None)
        self._stop = _stop_rules(spec)
        self._default = default_control(spec).config_id
        self._objectives = tuple(item.metric for item in spec.objectives)

    def task(self, trajectory: Trajectory) -> TrajectoryTask:
        """The complete task of one trajectory."""
        readouts = tuple(
            Readout(
                item.config_id,
                item.role,
                segment_of(item, trajectory.segments),
                item.step,
                item.average,
                dict(item.values),
            )
            for item in trajectory.configurations
        )
        return TrajectoryTask(
            trajectory_id=trajectory.trajectory_id,
            seed=trajectory.seed,
            model=self._model,
            tuning=trajectory.tuning,
            data=replace(self._data, **{n: getattr(trajectory.data, n) for n in DATA_AXES}),
            optimizer=trajectory.settings,
            evaluation=self._evaluation,
            compute=self._compute
            if trajectory.steps > 0
            else replace(self._compute, keep_weights="none"),
            objectives=self._objectives,
            segments=trajectory.segments,
            readouts=readouts,
            stop=self._stop and replace(self._stop, candidates=self._stoppable(readouts)),
        )

    def _stoppable(self, readouts: Iterable[Readout]) -> tuple[str, ...]:
        """The candidates except the trainers' defaults, which others are compared with."""
        return tuple(
            item.config_id
            for item in readouts
            if item.role == CANDIDATE and item.config_id != self._default
        )


def _stop_rules(spec: SweepSpec) -> StopRules | None:
    """The rules that are on, with their limits; None where all are off."""
    stop = spec.search.stop
    if not stop.on:
        return None
    limits = [c for c in spec.constraints if c.metric == "unsafe_rate"]
    return StopRules(
        limits=tuple(RateLimit(item.max, item.confidence) for item in limits),
        curtail=stop.curtail,
        race_error=None if stop.race is None else stop.race.error,
        prune_error=None if stop.prune is None else stop.prune.error,
        seed=spec.search.seed,
    )
