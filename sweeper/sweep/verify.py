"""`verify`: retrain configurations alone, without sharing, and compare with what the sweep recorded.

Bit-equality of weights is judged by the SHA-256 that every record carries of the weights it was measured
on; equality of verdicts by the stored responses, line by line. A configuration that was trained in a pack
is retrained alone all the same. Where bits cannot be promised (a pack, or a GPU without deterministic
kernels) its verdicts must be equal and its metrics agree within PACK_TOLERANCE.
"""

import json
import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sweeper.data.sources import resolve
from sweeper.errors import RunFolderError
from sweeper.planning import make_plan, make_tasks
from sweeper.search.rounds import already_suggested
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.records import TrialRecord, read_records
from sweeper.task import Segment, TrajectoryTask
from sweeper.trial.run import run_trajectory

PACK_TOLERANCE = 1e-4
"""Largest relative difference of a metric between weights that rounded differently on their way."""

SCORING_TOLERANCE = 1e-5
"""The same between equal weights, scored beside other readouts or alone: only the order of sums differs.

Measured of three held-out losses of SmolLM2-135M in fp32: up to 1.6e-6, on one CPU more than on another.
"""


class Verification(NamedTuple):
    """The comparison of one configuration, retrained alone, with its record.

    `shared_with` counts the other configurations read from the same trajectory in the sweep,
    `packed_with` the other trajectories that trained in the same pack. `difference` is the largest
    relative difference of a metric, infinite where one of the two lacks it.
    """

    config_id: str
    seed: int
    label: str
    step: int
    shared_with: int
    packed_with: int
    exact: bool
    bit_equal: bool
    responses_equal: bool
    verdicts_equal: bool
    difference: float
    failure: str | None

    @property
    def holds(self) -> bool:
        """Whether the guarantees hold: equal verdicts, and equal weights if `exact`."""
        if self.exact:
            return self.bit_equal and self.verdicts_equal and self.difference <= SCORING_TOLERANCE
        return self.verdicts_equal and self.difference <= PACK_TOLERANCE


def verify(
    folder: RunFolder, spec: SweepSpec, sample: int, seed: int = 0
) -> Iterator[Verification]:
    """Retrain `sample` randomly chosen complete configurations, one after the other.

    Args:
        folder: A run folder.
        spec: Its spec.
        sample: How many; all where there are fewer. The untouched base model is never chosen.
        seed: Of the choice.

    Raises:
        RunFolderError: no complete record to compare with.
        DataError, ModelError: the inputs of the run are gone.
    """
    tasks = tasks_of(folder, spec)
    records = [
        record
        for record in read_records(folder.records).records
        if record.status == "complete" and record.readout["step"] > 0 and record.key in tasks
    ]
    if not records:
        raise RunFolderError(f"{folder.root} has no complete record to verify; run the sweep first")
    chosen = random.Random(seed).sample(records, min(sample, len(records)))  # noqa: S311
    for record in chosen:
        yield _verify_one(folder, record, tasks[record.key])


def tasks_of(folder: RunFolder, spec: SweepSpec) -> dict[tuple[str, int], TrajectoryTask]:
    """The task that measures each configuration of a run, by configuration and seed.

    Raises:
        DataError, ModelError: the inputs of the run are gone.
    """
    plan = make_plan(spec, already_suggested(folder) or None)
    return {
        (readout.config_id, task.seed): task
        for task in make_tasks(plan, spec, resolve)
        for readout in task.readouts
    }


def solo_task(task: TrajectoryTask, config_id: str) -> TrajectoryTask:
    """The task that trains one configuration of a trajectory by itself, exactly as far as it needs."""
    readout = next(item for item in task.readouts if item.config_id == config_id)
    if readout.segment:
        tail = task.segments[readout.segment]
        before = Segment(0, tail.start, tail.start + 1, decay_steps=1)
        return replace(task, segments=(before, tail), readouts=(replace(readout, segment=1),))
    alone = Segment(0, readout.step, readout.step)
    return replace(task, segments=(alone,), readouts=(readout,))


def _verify_one(folder: RunFolder, record: TrialRecord, task: TrajectoryTask) -> Verification:
    with tempfile.TemporaryDirectory(prefix="sweeper-verify-") as scratch:
        storage = TrialStorage(Path(scratch), task.trajectory_id)
        return retrain(folder, record, task_alone(record, task), storage, len(task.readouts) - 1)[0]


def task_alone(record: TrialRecord, task: TrajectoryTask) -> TrajectoryTask:
    """The task that trains a record's configuration by itself, on the same kind of device and model."""
    measured_on_cpu = record.provenance["hardware"]["device"] == "cpu"
    device = "cpu" if measured_on_cpu else "cuda"
    compute = replace(task.compute, device=device, keep_weights="none")
    commit = record.provenance["model"]["commit"]
    model = replace(task.model, revision=commit or task.model.revision)
    return solo_task(replace(task, compute=compute, model=model), record.config_id)


def retrain(
    folder: RunFolder,
    record: TrialRecord,
    alone: TrajectoryTask,
    storage: TrialStorage,
    shared_with: int,
) -> tuple[Verification, TrialRecord]:
    """Train a configuration alone, score it, and compare it with its record.

    Args:
        folder: The run folder, which holds the recorded responses.
        record: What the sweep wrote.
        alone: See `task_alone`.
        storage: Where the retraining may write.
        shared_with: See `Verification`.
    """
    retrained = next(iter(run_trajectory(alone, storage)))
    key = (record.config_id, record.seed)
    before = folder.trial(alone.trajectory_id).generations(*key)
    found = compare(
        record,
        retrained,
        (_lines(before), _lines(storage.generations(*key))),
        shared_with=shared_with,
        deterministic=alone.compute.device == "cpu" or alone.compute.deterministic,
    )
    return found, retrained


def compare(
    record: TrialRecord,
    retrained: TrialRecord,
    responses: tuple[Sequence[str], Sequence[str]],
    shared_with: int,
    deterministic: bool = True,
) -> Verification:
    """Compare a retrained record and its responses with the recorded ones.

    Args:
        record: What the sweep wrote.
        retrained: The same configuration, trained alone.
        responses: The stored lines of both.
        shared_with: See `Verification`.
        deterministic: Whether kernels were deterministic.
    """
    hashes = [item.provenance.get("weights_sha256") for item in (record, retrained)]
    packed_with = len(record.provenance.get("shared", {}).get("trained_with", ()))
    verdicts = [[_verdicts(line) for line in lines] for lines in responses]
    return Verification(
        config_id=record.config_id,
        seed=record.seed,
        label=str(record.readout["label"]),
        step=int(record.readout["step"]),
        shared_with=shared_with,
        packed_with=packed_with,
        exact=deterministic and packed_with == 0,
        bit_equal=hashes[0] is not None and hashes[0] == hashes[1],
        responses_equal=bool(responses[0]) and list(responses[0]) == list(responses[1]),
        verdicts_equal=bool(verdicts[0]) and verdicts[0] == verdicts[1],
        difference=_difference(record, retrained),
        failure=None if retrained.reason is None else str(retrained.reason.get("message")),
    )


def _verdicts(line: str) -> tuple[str, str, dict[str, bool]]:
    raw = json.loads(line)
    verdicts = raw.get("verdicts", {})
    return raw["suite"], raw["id"], {name: item["refusal"] for name, item in verdicts.items()}


def _difference(record: TrialRecord, retrained: TrialRecord) -> float:
    names = {*record.metrics, *retrained.metrics}
    if any(name not in item.metrics for name in names for item in (record, retrained)):
        return math.inf
    pairs = [(record.metrics[name].value, retrained.metrics[name].value) for name in names]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b), default=0.0)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
