"""One attempt at a pack: train paths side by side, read their configurations, score them.

The order of events makes an interruption harmless at any point: checkpoint at a step, then evaluate the
readouts of that step, each into the outbox as soon as it is known.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from sweeper.errors import ModelError, TrainingDivergedError
from sweeper.memory import micro_batch_rows
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.averaging import swapped
from sweeper.model.batches import Batch, collate
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.gpu_memory import is_out_of_memory, memory_figures, usable_bytes
from sweeper.model.load import (
    choose_device,
    load_model,
    model_commit,
    precision,
    resident_model,
)
from sweeper.model.logits import compiled_part
from sweeper.scoring.inputs import load_inputs
from sweeper.scoring.score import Scorer, Scores, Stopped
from sweeper.store.records import TrialRecord
from sweeper.task import ComputeSettings, Readout, Segment, equal_parts
from sweeper.trial.failure import Failure, failure_of
from sweeper.trial.heartbeat import Heartbeat
from sweeper.trial.member import Member
from sweeper.trial.memory_budget import MemoryBudget, gpu_memory_budget
from sweeper.trial.train import (
    Schedule,
    learning_rate_schedule,
    step_seed,
    step_together,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an attempt may take on at once, after earlier ones ran out of memory; None is no limit.

    `micro_rows` bounds the rows per path, process and forward pass, `readouts` those scored together.
    Neither is part of a configuration: they change nothing but rounding.
    """

    micro_rows: int | None = None
    readouts: int | None = None
    halvings: int = 0

    def after(self, failure: Failure) -> "Limits | None":
        """What to try next, or None where less would not help."""
        if not failure.out_of_memory:
            return None
        if failure.reason["stage"] == "train" and failure.micro_rows > 1:
            return replace(self, micro_rows=failure.micro_rows // 2, halvings=self.halvings + 1)
        if failure.reason["stage"] == "evaluate" and failure.readouts > 1:
            return replace(self, readouts=failure.readouts // 2, halvings=self.halvings + 1)
        return None


NO_LIMITS = Limits()


class Attempt:
    """One attempt at the readouts of some members that are still waiting."""

    def __init__(
        self,
        members: Sequence[Member],
        limits: Limits = NO_LIMITS,
        world: World = SINGLE_PROCESS,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._members = list(members)
        self._limits = limits
        self._world = world
        self._micro_rows = self._readouts = 0
        self._task = members[0].task
        self._device = choose_device(self._task.compute.device)
        self._slots: AdapterStack | None = None
        self._scorer: Scorer | None = None
        self._room: MemoryBudget | None = None
        self._beats = Heartbeat(self._members if world.is_main_process else (), alive=alive)

    def records(self) -> Iterator[list[TrialRecord]]:
        """Train and read, all members in step."""
        began = time.monotonic()
        self._beats.tick()
        self._prepare()
        self._share_out("load", began, self._members)
        yield from self._prune(self._members)
        while moving := {m: stop for m in self._members if (stop := m.next_stop()) is not None}:
            target = min(moving.values())
            trunk = {member: member.task.segments[0] for member in moving}
            yield from self._walk(trunk, target, lambda member: member.waiting)
            arrived = [m for m, stop in moving.items() if stop == target and m.waiting]
            self._beats.enter("checkpoint", arrived)
            for member in arrived:
                member.arrive(target)
            yield from self._read([(m, item) for m in arrived for item in m.due(0, target)])
            yield from self._prune(arrived)
            yield from self._walk_tails(arrived, target)

    def _prune(self, members: Sequence[Member]) -> Iterator[list[TrialRecord]]:
        """Leave out what earlier readouts of a path speak for, where the sweep says that they may."""
        assert self._scorer is not None
        for member in members:
            if records := member.prune(self._scorer.requests):
                yield records

    def _prepare(self) -> None:
        task = self._task
        torch.set_num_threads(task.compute.cpus_per_trial)
        if self._device.type == "cuda" and task.compute.deterministic:
            torch.use_deterministic_algorithms(True)
        inputs = load_inputs(task)
        self._pad = int(inputs.tokenizer.pad_token_id)
        lora = task.tuning.method == "lora"
        load = resident_model if lora else load_model
        self._model: PreTrainedModel = load(task.model, self._device, self._world)
        self._switch_training_aids()
        if len(self._members) > 1 and getattr(self._model.config, "attention_dropout", None):
            raise ModelError(
                "a model with dropout of its own trains one adapter at a time",
                code="model.unsupported",
            )
        commit = model_commit(task.model)
        for member in self._members:
            tuning = member.task.tuning
            adapter = new_adapter(self._model, tuning, member.task.seed) if lora else None
            own = dict(self._model.named_parameters()) if adapter is None else adapter.parameters()
            member.start(inputs, own, adapter, commit)
            member.shared["trained_with"] = [
                other.task.trajectory_id for other in self._members if other is not member
            ]
            member.shared["halvings"] = self._limits.halvings
        first = self._members[0].adapter
        self._slots = None if first is None else AdapterStack(self._model, first.factors)
        self._scorer = Scorer(
            inputs, task.evaluation, self._device, self._world, task.stop, self._beats.tick
        )
        self._memory_bytes = self._usable_bytes()
        if self._memory_bytes is not None:
            tasks = [member.task for member in self._members]
            self._room = gpu_memory_budget(self._memory_bytes, tasks, inputs, self._model.config)

    def _usable_bytes(self) -> int | None:
        """What each process may use of its GPU, for all of them the same; None on a CPU."""
        mine = usable_bytes(self._device, self._task.compute.gpu_share)
        found = [one for one in self._world.gather(mine) if one is not None]
        return min(found, default=None)

    def _switch_training_aids(self) -> None:
        """What changes the cost of a training step and not its result."""
        compute = self._task.compute
        if compute.gradient_checkpointing:
            self._model.activation_checkpointing_enable({"use_reentrant": False})
        elif self._model.is_activation_checkpointing:
            self._model.activation_checkpointing_disable()
        if compute.torch_compile:
            compiled_part(self._model).compile(dynamic=True)

    def _share_out(self, stage: str, began: float, members: Sequence[Member]) -> None:
        """Charge every member its part of the time that has passed."""
        for member in members:
            member.seconds[stage] += (time.monotonic() - began) / len(members)

    def _walk(
        self,
        segments: Mapping[Member, Segment],
        until: int,
        owed: Callable[[Member], Sequence[Readout]],
    ) -> Iterator[list[TrialRecord]]:
        """Bring members to a step, those farthest behind first; yields what one that diverges owes."""
        schedules = {
            member: learning_rate_schedule(member.task.optimizer, segment)
            for member, segment in segments.items()
        }
        began = time.monotonic()
        self._model.train()
        while behind := [m for m in schedules if m.walker.step < until]:
            step = min(member.walker.step for member in behind)
            group = [member for member in behind if member.walker.step == step]
            for member, error in self._step(group, [schedules[m] for m in group]).items():
                del schedules[member]
                yield member.fail(owed(member), failure_of(error, member.stage))
        for member in tuple(schedules):
            try:
                member.walker.check()
            except TrainingDivergedError as error:
                yield member.fail(owed(member), failure_of(error, member.stage))
        self._share_out("train", began, list(segments))

    def _step(
        self, group: Sequence[Member], schedules: Sequence[Schedule]
    ) -> dict[Member, TrainingDivergedError]:
        self._beats.enter("train", group)
        for member in group:
            member.steps += 1
        batches = self._batches(group)
        torch.manual_seed(step_seed(group[0].task.seed, group[0].walker.step))
        adapters = [member.adapter for member in group if member.adapter is not None]
        if self._slots is not None:
            self._slots.hold(adapters, seeds=[member.seed for member in group])
        diverged = step_together(
            self._model,
            [member.walker for member in group],
            batches,
            schedules,
            targets=[sum(len(row.completion) for row in member.batch()) for member in group],
            autocast=precision(self._task.model, self._device),
            turn=self._turn,
            world=self._world,
        )
        return {group[number]: error for number, error in diverged.items()}

    def _turn(self, micro_batch: int) -> None:
        if self._slots is not None:
            self._slots.turn(micro_batch)

    def _batches(self, group: Sequence[Member]) -> list[Batch]:
        """The micro-batches of the next step, with one slot per member."""
        task = self._task
        asked, size = task.compute.micro_batch_size, task.optimizer.batch_size
        rows = micro_batch_rows(size, task.data.max_length, asked, len(group))
        if asked is None and self._room is not None:
            rows = self._room.rows(rows, len(group))
        self._micro_rows = min(rows, self._limits.micro_rows or rows)
        for member in group:
            member.shared["micro_batch_rows"] = self._micro_rows
        slots = zip(*(member.rows(self._micro_rows) for member in group), strict=True)
        return [collate(rows, self._pad).to(self._device) for rows in slots]

    def _walk_tails(self, members: Sequence[Member], start: int) -> Iterator[list[TrialRecord]]:
        """Walk the decay tails that branch off here, read them, and return to the trunk."""
        tails = sorted(
            {tail for m in members for tail in m.due_tails(start)}, key=lambda tail: tail.stop
        )
        for tail in tails:
            movers = [member for member in members if tail in member.due_tails(start)]
            forks = {member: member.walker.state() for member in movers}
            owed = partial(_due_on, tail)
            yield from self._walk(dict.fromkeys(movers, tail), tail.stop, owed)
            yield from self._read([(m, item) for m in movers for item in owed(m)])
            for member, fork in forks.items():
                member.walker.restore(fork)

    def _read(self, due: Sequence[tuple[Member, Readout]]) -> Iterator[list[TrialRecord]]:
        """Measure readouts, as many at once as fit, all durable before they are yielded."""
        assert self._scorer is not None
        self._model.eval()
        many = 1
        if self._slots is not None:
            many = self._scorer.readouts_together(self._model, self._memory_bytes)
            many = many if self._room is None else self._room.readouts(many)
            many = min(many, self._limits.readouts or many)
        for part in equal_parts(due, many):
            began = time.monotonic()
            weights = [_weights(member, readout) for member, readout in part]
            self._readouts = len(part)
            self._beats.enter("evaluate", [member for member, _ in part])
            with precision(self._task.model, self._device), _eagerly(self._task.compute):
                scores = self._score(part, weights)
            spent = (time.monotonic() - began) / sum(len(score.lines) for score in scores)
            records = []
            for (member, readout), score, used in zip(part, scores, weights, strict=True):
                member.seconds["evaluate"] = spent * len(score.lines)
                if self._task.stop is not None:
                    member.seconds["prompt"] = spent
                member.shared["scored_together"] = len(part)
                records.append(member.keep(readout, score, used))
            yield records

    def _score(
        self, part: Sequence[tuple[Member, Readout]], weights: Sequence[list[torch.Tensor]]
    ) -> list[Scores | Stopped]:
        assert self._scorer is not None
        may_stop = [member.may_stop(readout) for member, readout in part]
        if self._slots is None:
            with swapped(part[0][0].walker.values, weights[0]):
                return self._scorer.score_or_stop(self._model, None, may_stop)
        adapters = [member.adapter for member, _ in part if member.adapter is not None]
        with self._slots.holding(adapters, weights):
            return self._scorer.score_or_stop(self._model, self._slots, may_stop)

    def failure(self, error: Exception) -> Failure:
        """What an error in `records` means for the readouts that are left."""
        member = self._members[0]
        found = failure_of(error, member.stage)
        if not is_out_of_memory(error):
            return replace(found, provenance=member.provenance())
        message = (
            f"out of memory ({memory_figures(self._device)}) with {self._micro_rows} row(s) per forward "
            f"pass and {self._readouts or 1} readout(s) scored together; set "
            "compute.gradient_checkpointing, lower data.max_length or evaluation.batch_size, use LoRA, or "
            "spread a trial over more GPUs with compute.gpus_per_trial"
        )
        return replace(
            found,
            reason={**found.reason, "class": "OutOfMemoryError", "message": message},
            provenance=member.provenance(),
            out_of_memory=True,
            micro_rows=self._micro_rows,
            readouts=self._readouts,
        )

    def close(self) -> None:
        """Let go of everything but the frozen base model, so that the next trial finds the memory free."""
        self._beats.end()
        if self._slots is not None:
            self._slots.remove()
        if "_model" in self.__dict__ and self._task.compute.torch_compile:
            compiled_part(self._model)._compiled_call_impl = None
        for name in ("_model", "_slots", "_scorer", "_members"):
            self.__dict__.pop(name, None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _due_on(tail: Segment, member: Member) -> list[Readout]:
    """What is waiting at the end of a decay tail."""
    return member.due(member.task.segments.index(tail, 1), tail.stop)


def _weights(member: Member, readout: Readout) -> list[torch.Tensor]:
    """What a readout stands for, in the dtype of the weights."""
    values = member.walker.values
    read = member.walker.read(readout.average)
    if read is None:
        return list(values)
    return [value.to(own.dtype) for value, own in zip(read, values, strict=True)]


def _eagerly(compute: ComputeSettings) -> AbstractContextManager[Any]:
    """Without torch.compile: scoring goes through too many shapes for it to pay."""
    return torch.compiler.set_stance("force_eager") if compute.torch_compile else nullcontext()
