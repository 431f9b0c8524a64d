"""How much disk a run needs, by parts. Formula: docs/explanation/performance-and-cost.md."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.estimate.estimate import pack_key
from sweeper.estimate.rates import Tokens
from sweeper.memory import ModelShape, state_bytes, weights_bytes
from sweeper.metrics import LIKELIHOOD_METRICS, TEXT_METRICS
from sweeper.planning import AUTO_PACK, Plan, Trajectory
from sweeper.spec import SweepSpec
from sweeper.task import running_averages

CHECKPOINT_COPIES = 3
"""Checkpoints of a trajectory at once: the last one, the one before it, and the one being written."""

CHARACTERS_PER_TOKEN = 4
"""Characters per token of English text with a Llama tokenizer."""

LINE_BYTES = 90
"""Overhead of a stored response besides its texts and verdicts: names, id, quotes."""

VERDICT_BYTES = 60
"""The verdict of one keyword list on one response."""

RECORD_BYTES = 4096
"""Size of a record without its samples: hyperparameters, provenance, versions, hashes."""

SAMPLE_BYTES = 21
"""One number of a sample as JSON; a verdict takes one byte."""

HEADER_BYTES = 4096
"""The names and shapes at the head of a file of tensors, about."""

LOSS_BYTES = 20
"""One training loss in progress.json."""

SCRATCH_BYTES = 2**14
"""Approximate size of Ray Tune's files in `ray/` for each readout: it stores tasks and results."""


@dataclass(frozen=True, slots=True)
class DiskNeed:
    """Peak disk usage of a run in bytes, by part.

    `checkpoints` are those of the trajectories that run at the same time, all copies. `weights` are what
    `compute.keep_weights` leaves beside the records. `other` holds training curves and Ray's scratch.
    """

    checkpoints: int
    weights: int
    responses: int
    records: int
    other: int

    @property
    def total_bytes(self) -> int:
        """The sum of the parts."""
        return sum(asdict(self).values())

    def to_data(self) -> dict[str, int]:
        """Parts and sum, for JSON."""
        return {**asdict(self), "total_bytes": self.total_bytes}


def disk_need(
    plan: Plan, spec: SweepSpec, shape: ModelShape, tokens: Tokens, workers: int
) -> DiskNeed:
    """Estimate what a run needs on disk, from sizes alone.

    Args:
        plan: What will be done.
        spec: The spec it came from.
        shape: The model.
        tokens: Of the data.
        workers: Trials that run at once.

    Raises:
        ModelError: a LoRA target that the cost model does not know.
    """
    trained = [item for item in plan.trajectories if item.steps]
    running = _running(trained, spec, workers)
    states = sorted((_checkpoint(item, spec, shape) for item in trained), reverse=True)
    readouts = sum(len(item.configurations) for item in plan.trajectories)
    evaluation = spec.evaluation
    texts = tokens.prompt_tokens + tokens.generated
    line = LINE_BYTES + VERDICT_BYTES * len(evaluation.keyword_lists)
    responses = tokens.prompts * line + CHARACTERS_PER_TOKEN * texts
    numbers = len(set(evaluation.utility_metrics) & (LIKELIHOOD_METRICS | TEXT_METRICS))
    samples = numbers * SAMPLE_BYTES + len(evaluation.keyword_lists)
    steps = sum(item.steps for item in trained)
    return DiskNeed(
        checkpoints=CHECKPOINT_COPIES * sum(states[:running]),
        weights=_weights(trained, spec, shape, running),
        responses=math.ceil(readouts * responses),
        records=readouts * (RECORD_BYTES + samples * tokens.prompts),
        other=LOSS_BYTES * steps + SCRATCH_BYTES * readouts,
    )


def _running(trained: Sequence[Trajectory], spec: SweepSpec, workers: int) -> int:
    """How many trajectories have checkpoints at the same time, at most: all of the packs that run."""
    asked = spec.compute.adapters_per_trial
    largest = AUTO_PACK if asked == "auto" else asked
    groups = Counter(pack_key(item) for item in trained)
    together = max((min(largest, count) for count in groups.values()), default=1)
    return min(len(trained), workers * together)


def _checkpoint(trajectory: Trajectory, spec: SweepSpec, shape: ModelShape) -> int:
    """One checkpoint of a trajectory; every process of a trial has a full copy of an adapter."""
    averages = [one.average for one in trajectory.configurations]
    shadows = len(running_averages(averages)) + (trajectory.settings.feedback is not None)
    copies = 1 if trajectory.tuning.method == "full" else spec.compute.processes
    optim = trajectory.settings.optim
    state = state_bytes(shape, trajectory.tuning, spec.model.dtype, shadows, optim)
    return copies * (state + HEADER_BYTES)


def _weights(
    trained: Sequence[Trajectory], spec: SweepSpec, shape: ModelShape, running: int
) -> int:
    """The kept weights at the peak.

    With `front`: those read at one step of each running trajectory, whose records are not written yet, and
    a front of the expected size; all of them if nothing can be discarded before further seeds are
    measured.
    """
    each = [
        (
            len(item.configurations),
            HEADER_BYTES + weights_bytes(shape, item.tuning, spec.model.dtype),
        )
        for item in trained
    ]
    whole = sum(count * size for count, size in each)
    if spec.compute.keep_weights == "none" or not each:
        return 0
    waits = len(spec.seeds) > 1 or spec.search.refine is not None
    if spec.compute.keep_weights == "all" or waits:
        return whole
    members = expected_front(sum(count for count, _ in each), len(spec.objectives))
    steps = [Counter(one.step for one in item.configurations) for item in trained]
    arriving = sorted((max(found.values()) for found in steps), reverse=True)
    kept = sum(arriving[:running]) + math.ceil(members)
    return min(whole, kept * max(size for _, size in each))


def expected_front(points: int, objectives: int) -> float:
    """The expected number of non-dominated ones among points whose coordinates are independent.

    A(n, 1) = 1, A(n, d) = sum over k = 1 ... n of A(k, d - 1) / k: about ln n for two objectives
    (Bentley, Kung, Schkolnick, Thompson 1978, J. ACM 25(4)). Trade-offs make fronts larger.
    """
    sizes = [1.0] * points
    for _ in range(objectives - 1):
        total = 0.0
        for k in range(points):
            total += sizes[k] / (k + 1)
            sizes[k] = total
    return sizes[-1] if sizes else 0.0


def disk_data(need: DiskNeed | None, free_bytes: int | None) -> dict[str, Any] | None:
    """The needed and the free space, for JSON; None where the need is not known."""
    return None if need is None else {**need.to_data(), "free_bytes": free_bytes}
