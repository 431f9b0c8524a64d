"""One trajectory on its way: its weights, what is still to be read from it, and its records."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import torch

from sweeper.data.encode import Encoded
from sweeper.errors import SweeperError
from sweeper.keywords.lists import load_keyword_list
from sweeper.model.adapters import Adapter
from sweeper.model.batches import RowOrder, micro_batches
from sweeper.model.checkpoint import State, read_checkpoints, weights_hash, write_checkpoint
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.saved import kept_bytes
from sweeper.model.sharding import whole
from sweeper.scoring.inputs import Inputs
from sweeper.scoring.score import Scores, Stopped
from sweeper.scoring.stopping import Count, inferred
from sweeper.store.folder import TrialStorage, write_with_retry
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import Status, TrialRecord
from sweeper.task import HarnessSettings, Readout, Segment, TrajectoryTask
from sweeper.trial.failure import Failure
from sweeper.trial.train import PathTrainer, step_seed

STAGES = ("load", "train", "evaluate")
"""What the seconds of a record are spent on."""

MEASURED_RULES = ("curtail", "race")
"""The rules whose records count responses of their own readout."""


class Member:
    """One trajectory of a pack: where it is, and which of its readouts are waiting.

    What is on disk decides what is left to do: a readout whose record lies in the outbox is not measured
    again, and training goes on from the last checkpoint.
    """

    def __init__(
        self,
        task: TrajectoryTask,
        storage: TrialStorage,
        done: Set[tuple[str, int]],
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.task = task
        self._world = world
        self.stage = "load"
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.shared: dict[str, Any] = {}
        self.adapter: Adapter | None = None
        self._arrived = -1
        self.steps = 0
        self.storage = storage
        self._trained = [0]
        self._inputs: Inputs | None = None
        storage.create()
        self.found: list[TrialRecord] = []
        self.waiting: list[Readout] = []
        self._counts: dict[str, Count] = {}
        for readout in task.readouts:
            kept = storage.outgoing(readout.config_id)
            recorded = (readout.config_id, task.seed) in done
            if kept.is_file() and (task.stop is not None or not recorded):
                record = TrialRecord.from_json(kept.read_text(encoding="utf-8"))
                self._see(record)
                self.found += [] if recorded else [record]
            elif not recorded:
                self.waiting.append(readout)

    def start(
        self,
        inputs: Inputs,
        parameters: dict[str, torch.nn.Parameter],
        adapter: Adapter | None,
        commit: str | None,
    ) -> None:
        """Stand at theta_0, or at the checkpoint, unless a readout before it is still waiting."""
        task = self.task
        self.adapter, self._inputs, self._commit = adapter, inputs, commit
        self._order = RowOrder(len(inputs.data.train), task.optimizer.batch_size, task.seed)
        averages = [readout.average for readout in task.readouts]
        self.walker = PathTrainer(parameters, task.optimizer, averages)
        device = next(iter(parameters.values())).device
        self._device = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
        self._resume(device)

    def _resume(self, device: torch.device) -> None:
        """Go on from the newest checkpoint that every process of the trial has whole and of one step."""
        states = self._checkpoints()
        state = next(states, None)
        while True:
            steps = self._world.gather(-1 if state is None else int(state["step"]))
            if min(steps) == max(steps) or min(steps) < 0:
                break
            if state is not None and int(state["step"]) > min(steps):
                state = next(states, None)
        if state is not None and min(steps) == max(steps):
            self.walker.restore({name: value.to(device) for name, value in state.items()})

    def _checkpoints(self) -> Iterator[State]:
        """What lies on disk, newest first; what is of no use costs time, not correctness."""
        first = min(self._point(readout) for readout in self.waiting)
        path = self.storage.shard(self._world.rank, self._world.size)
        for found in read_checkpoints(path):
            if found.state is None:
                self.shared.setdefault("checkpoints_refused", []).append(found.fault)
            elif self.walker.fits(found.state) and int(found.state["step"]) <= first:
                yield found.state

    def _point(self, readout: Readout) -> int:
        """The trunk step a readout needs: its own, or the one its tail branches from."""
        segment = self.task.segments[readout.segment]
        return segment.start if readout.segment else readout.step

    def next_stop(self) -> int | None:
        """The next trunk step to stop at: for a readout, for the branch of a tail, for a checkpoint."""
        needed = {self._point(readout) for readout in self.waiting}
        if not needed:
            return None
        every = self.task.compute.checkpoint_every
        stops = needed | set(range(every, max(needed), every))
        here = self.walker.step
        return min(
            (s for s in stops if s > here or (s == here and s > self._arrived)), default=None
        )

    def arrive(self, step: int) -> None:
        """Write the checkpoint of a stop whole or not at all.

        Where the disk refuses it training goes on: an interruption would cost more time, and no record.
        """
        self.stage = "checkpoint"
        self._arrived = step
        state = self.walker.state(torch.device("cpu"))
        world = self._world
        try:
            write_checkpoint(self.storage.shard(world.rank, world.size), state)
        except (SweeperError, OSError) as error:
            self.shared.setdefault("checkpoints_skipped", []).append(f"step {step}: {error}")

    def reached(self) -> tuple[int, tuple[float, ...]]:
        """The optimizer steps taken, and the losses of those that were looked at already."""
        walker: PathTrainer | None = self.__dict__.get("walker")
        return (0, ()) if walker is None else (walker.step, walker.seen_losses)

    def due(self, segment: int, step: int) -> list[Readout]:
        """The waiting readouts at a step of a segment."""
        return [item for item in self.waiting if item.segment == segment and item.step == step]

    def due_tails(self, start: int) -> list[Segment]:
        """The decay tails that branch off at `start` and have something to read."""
        numbers = {item.segment for item in self.waiting if item.segment}
        tails = [self.task.segments[number] for number in sorted(numbers)]
        return [tail for tail in tails if tail.start == start]

    def may_stop(self, readout: Readout) -> bool:
        """Whether rules may end the scoring of a readout."""
        return self.task.stop is not None and readout.config_id in self.task.stop.candidates

    def rows(self, micro_rows: int) -> list[Sequence[Encoded]]:
        """The micro-batches of the next step, of at most so many rows per process.

        Of each, this process's share. A process without a row of its own has one without targets.
        """
        world = self._world
        parts = micro_batches(self.batch(), micro_rows * world.size)
        return [world.share(part) or [part[0]._replace(completion=())] for part in parts]

    def batch(self) -> list[Encoded]:
        """The rows of the next step's effective batch."""
        assert self._inputs is not None
        return [self._inputs.data.train[i] for i in self._order.batch(self.walker.step)]

    @property
    def seed(self) -> int:
        """What the next step's dropout is seeded with; processes see other rows and drop otherwise."""
        return step_seed(self.task.seed, self.walker.step) + 7919 * self._world.rank

    def _tokens_until(self, step: int) -> int:
        """Tokens in the batches of the first `step` steps; the same however often we were interrupted."""
        assert self._inputs is not None
        while len(self._trained) <= step:
            rows = [self._inputs.data.train[i] for i in self._order.batch(len(self._trained) - 1)]
            tokens = sum(len(row.prompt) + len(row.completion) for row in rows)
            self._trained.append(self._trained[-1] + tokens)
        return self._trained[step]

    def keep(
        self, readout: Readout, scores: Scores | Stopped, weights: Sequence[torch.Tensor]
    ) -> TrialRecord:
        """Make what was measured durable: responses first, then the record in the outbox."""
        parts = zip(self.walker.parameters, weights, strict=True)
        digest = weights_hash(whole(parameter, part) for parameter, part in parts)
        if self.task.compute.keeps_weights:
            self._keep_weights(readout, weights)
        lines = "".join(f"{json.dumps(line)}\n" for line in scores.lines)
        if self._world.is_main_process:
            write_with_retry(self.storage.generations(readout.config_id, self.task.seed), lines)
        status, reason = self._end(scores)
        measured = {
            "weights_sha256": digest,
            "tokens": {
                "trained": self._tokens_until(readout.step),
                "generated": scores.tokens_generated,
            },
            "responses_cut": scores.responses_cut,
        }
        provenance = {**self.provenance(), **measured}
        whole_scores = scores if isinstance(scores, Scores) else None
        return self._out(self._record(readout, status, whole_scores, reason, provenance), readout)

    def _keep_weights(self, readout: Readout, weights: Sequence[torch.Tensor]) -> None:
        """Leave the weights of a readout by name, in the dtype they were measured in."""
        parts = zip(self.walker.names, self.walker.parameters, weights, strict=True)
        kept = {name: whole(own, part).detach().cpu().contiguous() for name, own, part in parts}
        if self._world.is_main_process:
            write_with_retry(self.storage.weights(readout.config_id), kept_bytes(kept))

    def _end(self, scores: Scores | Stopped) -> tuple[Status, dict[str, Any] | None]:
        """How a readout that was scored, or begun to be, ends and why."""
        if isinstance(scores, Stopped):
            return "pruned", {**scores.reason, "prompts_left": scores.requests_left}
        missing = [name for name in self.task.objectives if name not in scores.metrics]
        return ("unscored", {"missing_metrics": missing}) if missing else ("complete", None)

    def _out(self, record: TrialRecord, readout: Readout) -> TrialRecord:
        """Make a record durable."""
        if self._world.is_main_process:
            write_with_retry(self.storage.outgoing(readout.config_id), record.to_json())
        self.waiting.remove(readout)
        self._see(record)
        return record

    def _see(self, record: TrialRecord) -> None:
        """Remember what a record says of its harmful prompts."""
        rate, reason = record.metrics.get("unsafe_rate"), record.reason or {}
        if rate is not None and rate.k is not None:
            self._counts[record.config_id] = Count(rate.k, rate.n, rate.n)
        elif reason.get("rule") in MEASURED_RULES:
            self._counts[record.config_id] = Count(reason["k"], reason["n"], reason["of"])

    def prune(self, prompts: int) -> list[TrialRecord]:
        """The `pruned` records of readouts that earlier ones speak for, durable; none of them is trained.

        Args:
            prompts: How many each of them would have answered.
        """
        rules = self.task.stop
        if rules is None or not self.waiting:
            return []
        found = inferred(rules, self.task.readouts, self.waiting, self._counts)
        going = {item.readout.config_id for item in found}
        kept = [self._point(item) for item in self.waiting if item.config_id not in going]
        unmeasured = {"weights_sha256": None, "tokens": {"trained": None, "generated": 0}}
        records = []
        self.seconds["evaluate"] = 0.0
        if self.steps:
            self.seconds["step"] = self.seconds["train"] / self.steps
        for readout, reason in found:
            reached = max([reason["earlier_step"], *kept])
            kept.append(readout.step)
            spared = {"prompts_left": prompts, "steps_left": max(0, readout.step - reached)}
            provenance = {**self.provenance(), **unmeasured}
            record = self._record(readout, "pruned", None, {**reason, **spared}, provenance)
            records.append(self._out(record, readout))
        return records

    def fail(self, readouts: Sequence[Readout], failure: Failure) -> list[TrialRecord]:
        """The `failed` records of readouts that a failure keeps from being measured."""
        unmeasured = {"weights_sha256": None, "tokens": {"trained": None, "generated": None}}
        provenance = {**(failure.provenance or self.provenance()), **unmeasured}
        records = []
        for readout in tuple(readouts):
            self.waiting.remove(readout)
            records.append(self._record(readout, "failed", None, failure.reason, provenance))
        return records

    def _record(
        self,
        readout: Readout,
        status: Status,
        scores: Scores | None,
        reason: Mapping[str, Any] | None,
        provenance: dict[str, Any],
    ) -> TrialRecord:
        return TrialRecord(
            config_id=readout.config_id,
            trajectory_id=self.task.trajectory_id,
            seed=self.task.seed,
            role=readout.role,
            status=status,
            config=readout.config,
            readout=readout.described(),
            metrics={} if scores is None else scores.metrics,
            objectives=self.task.objectives,
            provenance=provenance,
            reason=reason,
            samples={} if scores is None else scores.samples,
        )

    def provenance(self) -> dict[str, Any]:
        """Where this member's numbers come from, as far as it is known by now."""
        task, inputs = self.task, self._inputs
        lists = task.evaluation.keyword_lists
        return {
            "average_space": "factors" if task.tuning.method == "lora" else "weights",
            "keyword_lists": {name: load_keyword_list(name).digest for name in lists},
            "decoding": {
                "strategy": "greedy",
                "max_new_tokens": task.evaluation.max_new_tokens,
                "batch_size": task.evaluation.batch_size,
                "stop_generation_early": task.evaluation.stop_generation_early,
                "answer_extractor": task.evaluation.answer_extractor,
            },
            "lm_eval": _described(task.evaluation.lm_eval),
            "model": {
                "name": task.model.name,
                "revision": task.model.revision,
                "commit": self._commit if inputs is not None else None,
                "dtype": task.model.dtype,
                "attention": task.model.attention,
            },
            "data_sha256": {} if inputs is None else inputs.hashes,
            "data_counts": {} if inputs is None else inputs.data.counts,
            "versions": package_versions(),
            "git_commit": git_commit(),
            "hardware": hardware(self._device if inputs is not None else "unknown"),
            "num_threads": task.compute.cpus_per_trial,
            "processes": self._world.size,
            "seconds": {
                name: round(value, 3 if name in STAGES else 9)
                for name, value in self.seconds.items()
            },
            "shared": dict(self.shared),
        }


def _described(harness: HarnessSettings | None) -> dict[str, Any] | None:
    """The tasks of lm-evaluation-harness as a record states them; `data_sha256` says where from."""
    if harness is None:
        return None
    return {
        "tasks": list(harness.tasks),
        "num_fewshot": harness.num_fewshot,
        "limit": harness.limit,
    }
