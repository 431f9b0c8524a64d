"""One attempt at a pack: train paths side by side, read their configurations, score them.

The order of events makes an interruption harmless at any point: checkpoint at a step, then evaluate the
readouts of that step, each into the outbox as soon as it is known.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from sweeper.errors import ModelError, TrainingDivergedError
from sweeper.memory import micro_batch_rows
from sweeper.model.averaging import swapped_weights
from sweeper.model.batches import Batch, collate
from sweeper.model.load import choose_device, precision
from sweeper.scoring.score import FailedScoring, ScoringResult
from sweeper.store.records import TrialRecord
from sweeper.task import ComputeSettings, Readout, Segment, equal_parts
from sweeper.trial.failure import Failure, Limits, attempt_failure, failure_of
from sweeper.trial.heartbeat import Heartbeat
from sweeper.trial.path import RunningPath
from sweeper.trial.pending import PendingReadouts
from sweeper.trial.resources import Resources, acquire
from sweeper.trial.throughput import TrainingLog
from sweeper.trial.train import Schedule, learning_rate_schedule, step_seed, step_together

PathReadout = tuple[RunningPath, Readout]


@dataclass(slots=True)
class Workload:
    """The current batch sizes of an attempt: rows per path and forward pass, readouts scored together."""

    micro_rows: int = 0
    readouts: int = 0


class Attempt:
    """One attempt at the readouts of some trajectories that are still waiting.

    Args:
        pending: The readouts to measure on each path; at least one.
        limits: The batch limits.
        alive: Called at every heartbeat.
    """

    def __init__(
        self,
        pending: Sequence[PendingReadouts],
        limits: Limits,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._pending = pending
        self._limits = limits
        self._workload = Workload()
        self._heartbeat = Heartbeat(pending, alive=alive)

    def records(self) -> Iterator[list[TrialRecord]]:
        """Train and read, all paths in step; releases everything but the frozen base model of LoRA."""
        began = time.monotonic()
        self._heartbeat.tick()
        try:
            with acquire(self._pending, self._heartbeat) as resources:
                for path in resources.paths:
                    path.pending.shared["halvings"] = self._limits.halvings
                    if (cause := self._limits.pack_failure) is not None:
                        path.pending.warn(
                            "pack_failed", f"trained alone, as the pack failed: {cause}"
                        )
                    path.log_start(len(resources.paths))
                _charge("load", began, resources.paths)
                yield from _PackRun(
                    resources, self._limits, self._heartbeat, self._workload
                ).records()
        finally:
            self._heartbeat.end()

    def failure(self, error: Exception) -> Failure:
        """Convert an error raised by `records` to the failure of the remaining readouts."""
        first, load = self._pending[0], self._workload
        device = choose_device(first.task.compute.device)
        known = first.provenance()
        return attempt_failure(error, first.stage, known, device, load.micro_rows, load.readouts)


class _PackRun:
    """The paths of an attempt, trained and read with what it has acquired."""

    def __init__(
        self, resources: Resources, limits: Limits, heartbeat: Heartbeat, load: Workload
    ) -> None:
        self._resources = resources
        self._task = resources.paths[0].task
        self._limits = limits
        self._heartbeat = heartbeat
        self._workload = load
        self._log = TrainingLog(resources)

    def records(self) -> Iterator[list[TrialRecord]]:
        """Train and read, all paths in step."""
        paths = self._resources.paths
        yield from self._prune(paths)
        while moving := {p: stop for p in paths if (stop := p.next_stop()) is not None}:
            target = min(moving.values())
            trunk = {path: path.task.segments[0] for path in moving}
            yield from self._train(trunk, target, lambda path: path.pending.waiting)
            arrived = [p for p, stop in moving.items() if stop == target and p.pending.waiting]
            self._heartbeat.enter("checkpoint", arrived)
            for path in arrived:
                path.checkpoint_at(target)
            yield from self._read(
                [(p, item) for p in arrived for item in p.pending.readouts_at(0, target)]
            )
            yield from self._prune(arrived)
            yield from self._train_tails(arrived, target)

    def _stop(self, paths: Sequence[RunningPath]) -> Iterator[list[TrialRecord]]:
        """End paths that were stopped by hand; the processes of a trial agree on it."""
        for path in paths:
            if path.pending.world.any(path.pending.is_stopped, self._resources.device):
                requests = self._resources.scorer.requests
                yield path.pending.stop(requests, path.trainer.step, path.steps)

    def _prune(self, paths: Sequence[RunningPath]) -> Iterator[list[TrialRecord]]:
        """Prune readouts that earlier readouts of the path rule out, if the sweep has such a rule."""
        yield from self._stop(paths)
        for path in paths:
            if records := path.pending.prune(self._resources.scorer.requests, path.steps):
                yield records

    def _train(
        self,
        segments: Mapping[RunningPath, Segment],
        until: int,
        owed: Callable[[RunningPath], Sequence[Readout]],
    ) -> Iterator[list[TrialRecord]]:
        """Train paths up to a step, those farthest behind first; yields `failed` records on divergence."""
        schedules = {
            path: learning_rate_schedule(path.task.optimizer, segment)
            for path, segment in segments.items()
        }
        began = time.monotonic()
        self._resources.model.train()
        while behind := [path for path in schedules if path.trainer.step < until]:
            step = min(path.trainer.step for path in behind)
            group = [path for path in behind if path.trainer.step == step]
            # With several processes it takes time to agree, so they look at readouts only.
            alone = group[0].pending.world.size == 1
            if alone and (stopped := list(self._stop(group))):
                yield from stopped
                schedules = {path: one for path, one in schedules.items() if owed(path)}
                continue
            for path, error in self._step(group, schedules, segments).items():
                del schedules[path]
                yield path.pending.fail(owed(path), failure_of(error, path.pending.stage))
        for path in tuple(schedules):
            try:
                path.trainer.check()
            except TrainingDivergedError as error:
                yield path.pending.fail(owed(path), failure_of(error, path.pending.stage))
        _charge("train", began, tuple(segments))

    def _step(
        self,
        group: Sequence[RunningPath],
        schedules: Mapping[RunningPath, Schedule],
        segments: Mapping[RunningPath, Segment],
    ) -> dict[RunningPath, TrainingDivergedError]:
        """One optimizer step of paths that stand at the same one; returns those that diverge."""
        began = time.monotonic()
        resources = self._resources
        self._heartbeat.enter("train", group)
        for path in group:
            path.steps += 1
        batches = self._batches(group)
        torch.manual_seed(step_seed(group[0].task.seed, group[0].trainer.step))
        stack = resources.stack
        if stack is not None:
            adapters = [path.adapter for path in group if path.adapter is not None]
            stack.load(adapters, seeds=[path.seed for path in group])
        rows = [path.batch() for path in group]
        diverged = step_together(
            resources.model,
            [path.trainer for path in group],
            batches,
            [schedules[path] for path in group],
            targets=[sum(len(row.completion) for row in batch) for batch in rows],
            autocast=precision(self._task.model, resources.device),
            set_micro_batch=(lambda number: None) if stack is None else stack.set_micro_batch,
            world=group[0].pending.world,
        )
        errors = {group[number]: error for number, error in diverged.items()}
        stepped = {path: segments[path] for path in group if path not in errors}
        return errors | self._log.after_step(stepped, dict(zip(group, rows, strict=True)), began)

    def _batches(self, group: Sequence[RunningPath]) -> list[Batch]:
        """The micro-batches of the next step, with one slot per path."""
        task, resources = self._task, self._resources
        fixed, size = task.compute.micro_batch_size, task.optimizer.batch_size
        rows = micro_batch_rows(size, task.data.max_length, fixed, len(group))
        if fixed is None and resources.budget is not None:
            rows = resources.budget.rows(rows, len(group))
        self._workload.micro_rows = min(rows, self._limits.micro_rows or rows)
        for path in group:
            path.pending.shared["micro_batch_rows"] = self._workload.micro_rows
        slots = zip(*(path.micro_batches(self._workload.micro_rows) for path in group), strict=True)
        return [collate(rows, resources.pad).to(resources.device) for rows in slots]

    def _train_tails(self, paths: Sequence[RunningPath], start: int) -> Iterator[list[TrialRecord]]:
        """Train the decay tails that branch off here, read them, and return to the trunk."""
        tails = sorted(
            {tail for path in paths for tail in path.pending.tails_at(start)},
            key=lambda tail: tail.stop,
        )
        for tail in tails:
            movers = [path for path in paths if tail in path.pending.tails_at(start)]
            forks = {path: path.trainer.state() for path in movers}
            owed = partial(_due_on, tail)
            yield from self._train(dict.fromkeys(movers, tail), tail.stop, owed)
            yield from self._read([(path, item) for path in movers for item in owed(path)])
            for path, fork in forks.items():
                path.trainer.restore(fork)

    def _read(self, due: Sequence[PathReadout]) -> Iterator[list[TrialRecord]]:
        """Measure readouts, as many at once as fit, all durable before they are yielded."""
        self._resources.scored_model.eval()
        sound = []
        for path, readout in due:
            self._heartbeat.enter("evaluate", [path])
            if path.has_finite_weights(readout):
                sound.append((path, readout))
            else:
                yield _failed(path, readout, "the trained weights are NaN or infinite")
        for part in equal_parts(sound, self._readouts_together()):
            began = time.monotonic()
            weights = [path.weights(readout) for path, readout in part]
            self._workload.readouts = len(part)
            self._heartbeat.enter("evaluate", [path for path, _ in part])
            with precision(self._task.model, self._resources.device), _eagerly(self._task.compute):
                scores = self._score(part, weights)
            lines = sum(len(item.lines) for item in scores if not isinstance(item, FailedScoring))
            spent = (time.monotonic() - began) / max(1, lines)
            records = []
            for (path, readout), score, used in zip(part, scores, weights, strict=True):
                if isinstance(score, FailedScoring):
                    records += _failed(path, readout, score.message)
                    continue
                path.pending.seconds["evaluate"] = spent * len(score.lines)
                if self._task.stop is not None:
                    path.pending.seconds["prompt"] = spent
                path.pending.shared["scored_together"] = len(part)
                records.append(path.keep(readout, score, used))
            yield records

    def _readouts_together(self) -> int:
        resources = self._resources
        if resources.scored_stack is None:
            return 1
        many = resources.scorer.readouts_together(resources.scored_model, resources.memory_bytes)
        many = many if resources.budget is None else resources.budget.readouts(many)
        return min(many, self._limits.readouts or many)

    def _score(
        self, part: Sequence[PathReadout], weights: Sequence[list[torch.Tensor]]
    ) -> list[ScoringResult]:
        model, stack, scorer = (
            self._resources.scored_model,
            self._resources.scored_stack,
            self._resources.scorer,
        )
        may_stop = [path.pending.may_stop(readout) for path, readout in part]
        drafts = part[0][0].drafts
        if stack is None:
            with swapped_weights(part[0][0].trainer.values, weights[0]):
                return scorer.score_or_stop(model, None, may_stop, drafts)
        adapters = [path.adapter for path, _ in part if path.adapter is not None]
        with stack.loaded(adapters, weights):
            return scorer.score_or_stop(model, stack, may_stop, drafts)


def _failed(path: RunningPath, readout: Readout, message: str) -> list[TrialRecord]:
    """The `failed` record of a readout whose weights, logits or losses are not finite."""
    error = ModelError(message, code="model.not_finite")
    return path.pending.fail([readout], failure_of(error, path.pending.stage))


def _charge(stage: str, began: float, paths: Sequence[RunningPath]) -> None:
    """Charge every path its part of the time that has passed."""
    for path in paths:
        path.pending.seconds[stage] += (time.monotonic() - began) / len(paths)


def _due_on(tail: Segment, path: RunningPath) -> list[Readout]:
    """The waiting readouts at the end of a decay tail."""
    return path.pending.readouts_at(path.task.segments.index(tail, 1), tail.stop)


def _eagerly(compute: ComputeSettings) -> AbstractContextManager[Any]:
    """Without torch.compile: scoring goes through too many shapes for it to pay."""
    return torch.compiler.set_stance("force_eager") if compute.torch_compile else nullcontext()
