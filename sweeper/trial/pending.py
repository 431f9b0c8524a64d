"""The readouts of one trajectory that wait to be measured, and what lies on disk of the others."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.scoring.score import Scores
from sweeper.scoring.stopping import Count, infer_pruned
from sweeper.store.folder import TrialStorage, write_with_retry
from sweeper.store.records import Status, TrialRecord
from sweeper.store.trial_log import TrialLog
from sweeper.task import Readout, Segment, TrajectoryTask
from sweeper.trial.failure import Failure
from sweeper.trial.provenance import STAGES, Loaded, provenance

MEASURED_RULES = ("curtail", "race")
"""The rules whose records count responses of their own readout."""

BY_HAND = "by hand"
"""The rule of a path that somebody stopped."""


class PendingReadouts:
    """What is left to do of one trajectory; needs neither its model nor its data.

    The disk decides: a readout whose record lies in the outbox is not measured again. `waiting` are those
    to be measured, `recovered` the records that were found in the outbox and are not in records.jsonl.
    `loaded` is what its trial has loaded by now, for the records.
    """

    def __init__(
        self,
        task: TrajectoryTask,
        storage: TrialStorage,
        done: Set[tuple[str, int]],
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.task = task
        self.storage = storage
        self.world = world
        self.stage = "load"
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.shared: dict[str, Any] = {}
        self.loaded: Loaded | None = None
        self.recovered: list[TrialRecord] = []
        self.waiting: list[Readout] = []
        self.log = TrialLog(storage, enabled=world.is_main_process)
        self._counts: dict[str, Count] = {}
        storage.create()
        for readout in task.readouts:
            outgoing = storage.outgoing(readout.config_id)
            recorded = (readout.config_id, task.seed) in done
            if outgoing.is_file() and (task.stop is not None or not recorded):
                record = TrialRecord.from_json(outgoing.read_text(encoding="utf-8"))
                self._remember_count(record)
                self.recovered += [] if recorded else [record]
            elif not recorded:
                self.waiting.append(readout)

    def trunk_step(self, readout: Readout) -> int:
        """The trunk step a readout needs: its own, or the one its tail branches from."""
        segment = self.task.segments[readout.segment]
        return segment.start if readout.segment else readout.step

    def readouts_at(self, segment: int, step: int) -> list[Readout]:
        """The waiting readouts at a step of a segment."""
        return [item for item in self.waiting if item.segment == segment and item.step == step]

    def tails_at(self, start: int) -> list[Segment]:
        """The decay tails that branch off at `start` and have something to read."""
        numbers = {item.segment for item in self.waiting if item.segment}
        tails = [self.task.segments[number] for number in sorted(numbers)]
        return [tail for tail in tails if tail.start == start]

    def may_stop(self, readout: Readout) -> bool:
        """Whether rules may end the scoring of a readout."""
        return self.task.stop is not None and readout.config_id in self.task.stop.candidates

    def warn(self, kind: str, message: str) -> None:
        """Note in the records to come, and in the log, what went wrong without ending anything."""
        self.shared.setdefault(kind, []).append(message)
        self.log.write("warning", message=message)

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from, as far as it is known by now."""
        return provenance(self.task, self.world.size, self.seconds, self.shared, self.loaded)

    def fail(self, readouts: Sequence[Readout], failure: Failure) -> list[TrialRecord]:
        """The `failed` records, durable, of waiting readouts that a failure keeps from being measured."""
        unmeasured = {"weights_sha256": None, "tokens": {"trained": None, "generated": None}}
        source = {**(failure.provenance or self.provenance()), **unmeasured}
        reason = failure.reason
        self.log.write("failure", **{name: reason[name] for name in ("stage", "class", "message")})
        records = []
        for readout in tuple(readouts):
            self.waiting.remove(readout)
            records.append(self._durable(self._record(readout, "failed", None, reason, source)))
        return records

    def prune(self, prompts: int, steps: int) -> list[TrialRecord]:
        """The `pruned` records of readouts that earlier ones speak for, durable; none of them is trained.

        Args:
            prompts: How many each of them would have answered.
            steps: Optimizer steps that the training time so far was spent on.
        """
        rules = self.task.stop
        if rules is None or not self.waiting:
            return []
        self.seconds["evaluate"] = 0.0
        if steps:
            self.seconds["step"] = self.seconds["train"] / steps
        pruned = infer_pruned(rules, self.task.readouts, self.waiting, self._counts)
        going = {item.readout.config_id for item in pruned}
        needed = [self.trunk_step(item) for item in self.waiting if item.config_id not in going]
        unmeasured = {"weights_sha256": None, "tokens": {"trained": None, "generated": 0}}
        records = []
        for readout, reason in pruned:
            reached = max([reason["earlier_step"], *needed])
            needed.append(readout.step)
            spared = {"prompts_left": prompts, "steps_left": max(0, readout.step - reached)}
            why = {**reason, **spared}
            records.append(self.finish(readout, "pruned", None, why, unmeasured))
        return records

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has asked that the path ends before its readouts are all measured."""
        return bool(self.waiting) and self.storage.stop_mark.exists()

    def stop(self, prompts: int, step: int, steps: int) -> list[TrialRecord]:
        """The `pruned` records of all waiting readouts of a path that was stopped by hand, durable.

        Args:
            prompts: How many each of them would have answered.
            step: The optimizer step at which the path ends.
            steps: Optimizer steps that the training time so far was spent on.
        """
        self.seconds["evaluate"] = 0.0
        if steps:
            self.seconds["step"] = self.seconds["train"] / steps
        unmeasured = {"weights_sha256": None, "tokens": {"trained": None, "generated": 0}}
        evidence = f"`sweeper stop --path` at step {step}; nothing is known of its rates"
        records, reached = [], step
        for readout in sorted(self.waiting, key=lambda item: item.step):
            left = max(0, readout.step - reached)
            why = {
                "rule": BY_HAND,
                "evidence": evidence,
                "prompts_left": prompts,
                "steps_left": left,
            }
            records.append(self.finish(readout, "pruned", None, why, unmeasured))
            reached = max(reached, readout.step)
        return records

    def finish(
        self,
        readout: Readout,
        status: Status,
        scores: Scores | None,
        reason: Mapping[str, Any] | None,
        measured: Mapping[str, Any],
    ) -> TrialRecord:
        """Make the record of a readout, durable in the outbox; it waits no longer.

        Args:
            readout: One that is waiting.
            status: How it ended.
            scores: What was measured of it.
            reason: Why it is not complete.
            measured: What its provenance has beside that of the path.
        """
        source = {**self.provenance(), **measured}
        record = self._durable(self._record(readout, status, scores, reason, source))
        self.waiting.remove(readout)
        self._remember_count(record)
        self.log.write(
            "readout",
            config_id=readout.config_id,
            step=readout.step,
            status=status,
            metrics={name: metric.value for name, metric in record.metrics.items()} or None,
        )
        return record

    def _durable(self, record: TrialRecord) -> TrialRecord:
        """The record, once it is in the outbox."""
        if self.world.is_main_process:
            write_with_retry(self.storage.outgoing(record.config_id), record.to_json())
        return record

    def _remember_count(self, record: TrialRecord) -> None:
        """Remember what a record says of its harmful prompts."""
        rate, reason = record.metrics.get("unsafe_rate"), record.reason or {}
        counts = None if rate is None else rate.counts
        if counts is not None:
            self._counts[record.config_id] = Count(*counts, counts[1])
        elif reason.get("rule") in MEASURED_RULES:
            self._counts[record.config_id] = Count(reason["k"], reason["n"], reason["of"])

    def _record(
        self,
        readout: Readout,
        status: Status,
        scores: Scores | None,
        reason: Mapping[str, Any] | None,
        source: dict[str, Any],
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
            provenance=source,
            reason=reason,
            samples={} if scores is None else scores.samples,
        )
