"""`run_pack`: train paths side by side, read their configurations, score them, survive interruption.

The order of events makes an interruption harmless at any point: checkpoint at a step, then evaluate the
readouts of that step, each into the outbox as soon as it is known.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel

from sweeper.errors import ModelError, TrainingDivergedError
from sweeper.folder import TrialStorage
from sweeper.records import TrialRecord
from sweeper.task import Readout, Segment, TrajectoryTask, equal_parts
from sweeper.trial.adapters import Slots, new_adapter
from sweeper.trial.averaging import swapped
from sweeper.trial.encode import collate
from sweeper.trial.inputs import load_inputs
from sweeper.trial.member import Member
from sweeper.trial.model import choose_device, load_model, resident_model
from sweeper.trial.score import Scorer
from sweeper.trial.train import Schedule, learning_rate_schedule, step_seed, step_together

Keys = frozenset[tuple[str, int]]


def run_trajectory(
    task: TrajectoryTask, storage: TrialStorage, done: Keys = frozenset()
) -> Iterator[TrialRecord]:
    """Do what is left of one task; see `run_pack`."""
    for records in run_pack([task], lambda trajectory_id: storage, done):
        yield from records


def run_pack(
    tasks: Sequence[TrajectoryTask],
    storage_of: Callable[[str], TrialStorage],
    done: Keys = frozenset(),
) -> Iterator[list[TrialRecord]]:
    """Do what is left of some tasks and yield the records of all other readouts, found or new.

    Records come in lists, as they were measured; each is durable before it is yielded.

    Never raises for what goes wrong in a trial itself: the readouts that are left end `failed`. Paths are
    independent: one that diverges does not touch the others, and where a pack as a whole fails (out of
    memory, say) each of its paths goes on alone.

    Args:
        tasks: Complete descriptions of trajectories of one sweep. Several LoRA trajectories with the same
            batch size are trained through one forward and backward pass.
        storage_of: The part of the run folder that belongs to a trajectory, by its id; interrupted work
            is continued from what lies there.
        done: The (config_id, seed) that have their record already; they are left alone.
    """
    members = [Member(task, storage_of(task.trajectory_id), done) for task in tasks]
    for member in members:
        if member.found:
            yield member.found
    members = [member for member in members if member.waiting]
    if not members:
        return
    run = _Run(members)
    try:
        yield from run.records()
    except Exception as error:  # noqa: BLE001 - whatever a trial dies of becomes a record.
        if len(members) == 1:
            yield members[0].fail(members[0].waiting, error)
            return
    finally:
        run.close()
    for member in members:  # Only after a pack failed is anything left.
        if member.waiting:
            waiting = {(readout.config_id, member.task.seed) for readout in member.waiting}
            others = {(readout.config_id, member.task.seed) for readout in member.task.readouts}
            yield from run_pack([member.task], storage_of, done | (others - waiting))


class _Run:
    """One attempt at the readouts of some members that are still waiting."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = list(members)
        self._task = members[0].task
        self._device = choose_device(self._task.compute.device)
        self._slots: Slots | None = None
        self._scorer: Scorer | None = None

    def records(self) -> Iterator[list[TrialRecord]]:
        """Train and read, all members in step."""
        began = time.monotonic()
        self._prepare()
        self._share_out("load", began, self._members)
        while moving := {m: stop for m in self._members if (stop := m.next_stop()) is not None}:
            target = min(moving.values())
            trunk = {member: member.task.segments[0] for member in moving}
            yield from self._walk(trunk, target, lambda member: member.waiting)
            arrived = [m for m, stop in moving.items() if stop == target and m.waiting]
            for member in arrived:
                member.arrive(target)
            yield from self._read([(m, item) for m in arrived for item in m.due(0, target)])
            yield from self._walk_tails(arrived, target)

    def _prepare(self) -> None:
        task = self._task
        torch.set_num_threads(task.compute.num_threads)
        if self._device.type == "cuda" and task.compute.deterministic:
            torch.use_deterministic_algorithms(True)
        inputs = load_inputs(task)
        self._pad = int(inputs.tokenizer.pad_token_id)
        lora = task.tuning.method == "lora"
        load = resident_model if lora else load_model
        self._model: PreTrainedModel = load(task.model, self._device)
        if len(self._members) > 1 and getattr(self._model.config, "attention_dropout", None):
            raise ModelError("a model with dropout of its own trains one adapter at a time")
        for parameter in self._model.parameters():
            parameter.requires_grad = not lora
        for member in self._members:
            tuning = member.task.tuning
            adapter = new_adapter(self._model, tuning, member.task.seed) if lora else None
            own = dict(self._model.named_parameters()) if adapter is None else adapter.parameters()
            member.start(inputs, own, adapter, getattr(self._model.config, "_commit_hash", None))
            member.shared["trained_with"] = [
                other.task.trajectory_id for other in self._members if other is not member
            ]
        first = self._members[0].adapter
        self._slots = None if first is None else Slots(self._model, first.factors)
        self._scorer = Scorer(inputs, task.evaluation, self._device)

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
                yield member.fail(owed(member), error)
        for member in tuple(schedules):
            try:
                member.walker.check()
            except TrainingDivergedError as error:
                yield member.fail(owed(member), error)
        self._share_out("train", began, list(segments))

    def _step(
        self, group: Sequence[Member], schedules: Sequence[Schedule]
    ) -> dict[Member, TrainingDivergedError]:
        for member in group:
            member.stage = "train"
        slots = zip(*(member.rows(len(group)) for member in group), strict=True)
        batches = [collate(rows, self._pad).to(self._device) for rows in slots]
        torch.manual_seed(step_seed(group[0].task.seed, group[0].walker.step))
        adapters = [member.adapter for member in group if member.adapter is not None]
        if self._slots is not None:
            self._slots.hold(adapters, generators=[member.dropout for member in group])
        walkers = [member.walker for member in group]
        diverged = step_together(self._model, walkers, batches, schedules)
        return {group[number]: error for number, error in diverged.items()}

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
            many = self._scorer.readouts_together(self._model)
        for part in equal_parts(due, many):
            began = time.monotonic()
            weights = [_weights(member, readout) for member, readout in part]
            for member, _ in part:
                member.stage = "evaluate"
            if self._slots is None:
                with swapped(part[0][0].walker.parameters, weights[0]):
                    scores = self._scorer.score(self._model)
            else:
                adapters = [m.adapter for m, _ in part if m.adapter is not None]
                with self._slots.holding(adapters, weights):
                    scores = self._scorer.score(self._model, self._slots, len(part))
            spent = (time.monotonic() - began) / len(part)
            records = []
            for (member, readout), score, used in zip(part, scores, weights, strict=True):
                member.seconds["evaluate"] = spent
                member.shared["scored_together"] = len(part)
                records.append(member.keep(readout, score, used))
            yield records

    def close(self) -> None:
        """Let go of everything but the frozen base model, so that the next trial finds the memory free."""
        if self._slots is not None:
            self._slots.remove()
        for name in ("_model", "_slots", "_scorer", "_members"):
            self.__dict__.pop(name, None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _due_on(tail: Segment, member: Member) -> list[Readout]:
    """What is waiting at the end of a decay tail."""
    return member.due(member.task.segments.index(tail, 1), tail.stop)


def _weights(member: Member, readout: Readout) -> list[torch.Tensor]:
    """What a readout stands for, in the dtype of the weights."""
    parameters = member.walker.parameters
    read = member.walker.read(readout.average)
    if read is None:
        return [parameter.detach() for parameter in parameters]
    return [value.to(own.dtype) for value, own in zip(read, parameters, strict=True)]
