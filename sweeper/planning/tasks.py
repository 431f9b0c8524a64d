"""From trajectories to the complete tasks that workers are given."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from sweeper.planning.configurations import CANDIDATE, default_control
from sweeper.planning.trajectories import Plan, Trajectory, segment_of
from sweeper.spec import SourceSpec, SuiteSpec, SweepSpec
from sweeper.task import (
    ChatFormat,
    ComputeSettings,
    DataSettings,
    DataSource,
    EvaluationSettings,
    HarnessSettings,
    ModelSource,
    Readout,
    Template,
    TrajectoryTask,
)
from sweeper.task.stop_rules import RateLimit, StopRules


def make_tasks(
    plan: Plan, spec: SweepSpec, resolve: Callable[[str], str], device: str = "auto"
) -> tuple[TrajectoryTask, ...]:
    """Turn trajectories into tasks, longest first, so that the last worker to finish is not alone.

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
        def source(raw: SourceSpec | SuiteSpec) -> DataSource:
            fields = raw.model_dump(exclude={"path"})
            return DataSource(
                name=raw.path or str(fields["suite"]),
                path=resolve(raw.path) if raw.path else "",
                **fields,
            )

        data, evaluation, compute = spec.data, spec.evaluation, spec.compute
        self._model = ModelSource(
            spec.model.path,
            resolve(spec.model.path),
            spec.model.revision,
            spec.model.dtype,
            spec.model.attention,
        )
        self._data = DataSettings(
            train=source(data.train),
            heldout=None if data.heldout is None else source(data.heldout),
            heldout_rows=data.heldout_rows,
            template=Template(
                train=ChatFormat(**data.template.train.model_dump()),
                test=ChatFormat(**data.template.test.model_dump()),
            ),
            max_length=data.max_length,
            overlong_prompts=data.overlong_prompts,
            filter_safety_rows=data.filter_safety_rows,
        )
        self._evaluation = EvaluationSettings(
            harmful=tuple(source(item) for item in evaluation.harmful),
            harmless=tuple(source(item) for item in evaluation.harmless),
            keyword_lists=evaluation.keyword_lists,
            utility_metrics=evaluation.utility_metrics,
            max_new_tokens=evaluation.max_new_tokens,
            batch_size=evaluation.batch_size,
            stop_generation_early=evaluation.stop_generation_early,
            answer_extractor=evaluation.answer_extractor,
            lm_eval=None
            if evaluation.lm_eval is None
            else HarnessSettings(**evaluation.lm_eval.model_dump()),
        )
        self._compute = ComputeSettings(
            device=device,
            num_threads=compute.cpus_per_trial,
            micro_batch_size=compute.micro_batch_size,
            deterministic=compute.deterministic,
            checkpoint_every=compute.checkpoint_every,
            stall_timeout_seconds=60 * compute.stall_timeout_minutes,
            logging_steps=compute.logging_steps,
            gradient_checkpointing=compute.gradient_checkpointing,
            torch_compile=compute.torch_compile,
            processes=compute.processes,
            gpu_share=compute.gpu_share,
            keep_weights=compute.keep_weights != "none",
        )
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
            data=self._data,
            optimizer=trajectory.settings,
            evaluation=self._evaluation,
            compute=replace(
                self._compute, keep_weights=self._compute.keep_weights and trajectory.steps > 0
            ),
            objectives=self._objectives,
            segments=trajectory.segments,
            readouts=readouts,
            stop=self._stop and replace(self._stop, candidates=self._stoppable(readouts)),
        )

    def _stoppable(self, readouts: Iterable[Readout]) -> tuple[str, ...]:
        """Candidates, without the defaults where the space has them: others are held against those."""
        return tuple(
            item.config_id
            for item in readouts
            if item.role == CANDIDATE and item.config_id != self._default
        )


def _stop_rules(spec: SweepSpec) -> StopRules | None:
    """The rules that are on, with the limits they ask about; None where all are off."""
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
