"""What a planned sweep will cost: worker time, wall time, and the memory of its largest trial."""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from sweeper.errors import SweeperError
from sweeper.estimate.rates import Rates, Tokens
from sweeper.memory import (
    MemoryFacts,
    MemoryParts,
    ModelShape,
    fitting_readouts,
    fitting_rows,
    memory,
    micro_batch_rows,
)
from sweeper.metrics import LIKELIHOOD_METRICS
from sweeper.planning import AUTO_PACK, Plan, Trajectory
from sweeper.spec import SweepSpec
from sweeper.task import TrajectoryTask, running_averages


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of a sweep.

    `train_seconds`, `evaluate_seconds` and `load_seconds` are sums over all trajectories,
    `startup_seconds` over all workers, `worker_seconds` of all four. `gpu_hours` is 0 on a CPU.
    """

    rates: Rates
    tokens: Tokens
    workers: int
    train_seconds: float
    evaluate_seconds: float
    load_seconds: float
    startup_seconds: float
    wall_seconds: float
    gpu_hours: float
    cpu_core_hours: float
    memory: MemoryParts
    measured_memory_bytes: int | None = None

    @property
    def source(self) -> str:
        """`analytic` or `calibrated`."""
        return self.rates.source

    @property
    def worker_seconds(self) -> float:
        """The total of all workers."""
        work = self.train_seconds + self.evaluate_seconds
        return work + self.load_seconds + self.startup_seconds

    @property
    def peak_memory_bytes(self) -> int:
        """The peak of one trial: measured if available, else the sum of the parts at the peak."""
        return self.measured_memory_bytes or self.memory.peak_bytes

    def to_data(self) -> dict[str, Any]:
        """Everything, for JSON and plan.json."""
        return {
            "source": self.source,
            "device": self.rates.device,
            "workers": self.workers,
            "wall_seconds": round(self.wall_seconds, 3),
            "worker_seconds": round(self.worker_seconds, 3),
            "train_seconds": round(self.train_seconds, 3),
            "evaluate_seconds": round(self.evaluate_seconds, 3),
            "load_seconds": round(self.load_seconds, 3),
            "startup_seconds": round(self.startup_seconds, 3),
            "gpu_hours": round(self.gpu_hours, 4),
            "cpu_core_hours": round(self.cpu_core_hours, 4),
            "peak_memory_bytes": self.peak_memory_bytes,
            "measured_memory_bytes": self.measured_memory_bytes,
            "memory": self.memory.to_data(),
            "rates": self.rates.to_data(),
            "tokens": self.tokens._asdict(),
        }


def estimate(
    plan: Plan,
    spec: SweepSpec,
    shape: ModelShape,
    rates: Rates,
    tokens: Tokens,
    workers: int,
    *,
    device: Literal["cpu", "cuda"],
    memory_bytes: int | None = None,
    measured_memory_bytes: int | None = None,
) -> Estimate:
    """Estimate a sweep.

    Args:
        plan: What will be done.
        spec: The spec it came from.
        shape: The model.
        rates: Of the device the trials will run on.
        tokens: Of the data.
        workers: Trials that run at once.
        device: Where the trials run: `cuda` counts GPU-hours.
        memory_bytes: The GPU memory one trial may use; None where unknown, and on a CPU.
        measured_memory_bytes: The peak of a real trial, where one was run.

    Raises:
        SweeperError: no worker.
        ModelError: a LoRA target that the cost model does not know.
    """
    parts = [trajectory_seconds(item, rates, tokens) for item in plan.trajectories]
    used = min(workers, len(parts))
    wall = makespan((sum(part) for part in parts), workers) + rates.startup_seconds
    train, evaluate, load = (float(sum(column)) for column in zip(*parts, strict=True))
    startup = rates.startup_seconds * used
    hours = (train + evaluate + load + startup) / 3600
    asked = spec.compute.gpus_per_trial
    gpus = 0.0 if device == "cpu" else 1.0 if asked == "auto" else float(asked)
    return Estimate(
        rates=rates,
        tokens=tokens,
        workers=workers,
        train_seconds=train,
        evaluate_seconds=evaluate,
        load_seconds=load,
        startup_seconds=startup,
        wall_seconds=wall,
        gpu_hours=hours * gpus,
        cpu_core_hours=hours * spec.compute.cpus_per_trial,
        memory=peak_memory(plan, spec, shape, tokens, device, memory_bytes),
        measured_memory_bytes=measured_memory_bytes,
    )


def trajectory_seconds(
    trajectory: Trajectory, rates: Rates, tokens: Tokens
) -> tuple[float, float, float]:
    """Seconds to train, to evaluate and to load one trajectory."""
    readouts, batch = len(trajectory.configurations), trajectory.settings.batch_size
    return _path_seconds(trajectory.steps, batch, readouts, rates, tokens)


def task_seconds(task: TrajectoryTask, rates: Rates, tokens: Tokens) -> float:
    """Seconds of the trajectory of a task, trained alone: `trajectory_seconds`, summed up."""
    batch, readouts = task.optimizer.batch_size, len(task.readouts)
    return sum(_path_seconds(task.steps, batch, readouts, rates, tokens))


def _path_seconds(
    steps: int, batch_size: int, readouts: int, rates: Rates, tokens: Tokens
) -> tuple[float, float, float]:
    per_step = rates.step_seconds + rates.train_token_seconds * tokens.per_row * batch_size
    per_readout = rates.readout_seconds + rates.generate_token_seconds * tokens.generated
    return steps * per_step, readouts * per_readout, rates.load_seconds


def duration_text(seconds: float) -> str:
    """Seconds as text: `42 s`, `7.5 min`, `13.2 h`."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def makespan(seconds: Iterable[float], workers: int) -> float:
    """The finish time if the longest pending job always goes to the first free worker.

    Longest-processing-time-first: at most 4/3 - 1/(3 * workers) times the best possible schedule
    (Graham 1969, SIAM J. Appl. Math. 17(2)).

    Raises:
        SweeperError: no worker.
    """
    if workers < 1:
        raise SweeperError(f"at least one worker is needed, but got workers={workers}")
    free = [0.0] * workers
    for piece in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + piece)
    return max(free)


def peak_memory(
    plan: Plan,
    spec: SweepSpec,
    shape: ModelShape,
    tokens: Tokens,
    device: Literal["cpu", "cuda"],
    memory_bytes: int | None = None,
) -> MemoryParts:
    """The memory of the largest trial, per process.

    With `memory_bytes`, micro-batches are reduced to what fits, as the trial itself does.
    """
    sizes = Counter(pack_key(item) for item in plan.trajectories)
    largest = (
        AUTO_PACK if spec.compute.adapters_per_trial == "auto" else spec.compute.adapters_per_trial
    )
    facts = {
        memory_facts(
            item, spec, shape, tokens, device, min(largest, sizes[pack_key(item)]), memory_bytes
        )
        for item in plan.trajectories
    }
    return max((memory(item) for item in facts), key=lambda parts: parts.peak_bytes)


def pack_key(trajectory: Trajectory) -> object:
    """Equal for trajectories that may train together; see `plan.make_packs`."""
    together = trajectory.tuning.has_adapter and trajectory.steps > 0
    if not together:
        return trajectory.trajectory_id
    tuning = trajectory.tuning
    return (
        trajectory.seed,
        trajectory.settings.batch_size,
        tuning.lora_target_modules,
        tuning.use_dora,
        repr(trajectory.data),
    )


def memory_facts(
    trajectory: Trajectory,
    spec: SweepSpec,
    shape: ModelShape,
    tokens: Tokens,
    device: Literal["cpu", "cuda"],
    paths: int = 1,
    memory_bytes: int | None = None,
) -> MemoryFacts:
    """The inputs of the memory model for one trajectory, or for a pack of `paths` like it.

    With `memory_bytes`, the micro-batch and the readouts scored together are those that fit.
    """
    settings, evaluation, compute = trajectory.settings, spec.evaluation, spec.compute
    averages = [item.average for item in trajectory.configurations]
    reads_loss = not LIKELIHOOD_METRICS.isdisjoint(evaluation.utility_metrics)
    rows = micro_batch_rows(
        settings.batch_size, spec.data.max_length, compute.micro_batch_size, paths
    )
    facts = MemoryFacts(
        shape=shape,
        tuning=trajectory.tuning,
        paths=paths,
        dtype=spec.model.dtype,
        device=device,
        shadows=len(running_averages(averages)) + (settings.feedback is not None),
        interpolates=any(item.kind == "interpolate" for item in averages),
        forks=len(trajectory.segments) > 1,
        train_rows=paths * rows,
        train_length=tokens.longest_row,
        evaluation_rows=min(evaluation.batch_size, max(1, tokens.prompts)),
        heldout_length=tokens.longest_row if reads_loss else 0,
        generation_length=tokens.longest_prompt + evaluation.max_new_tokens,
        processes=compute.processes,
        gradient_checkpointing=compute.gradient_checkpointing,
        optim=settings.optim,
        base_weights=evaluation.base_weights,
    )
    if memory_bytes is None:
        return facts
    if compute.micro_batch_size is None:
        rows = fitting_rows(facts, rows, paths, memory_bytes)
    together = 1
    if trajectory.tuning.has_adapter:
        steps = Counter(item.step for item in trajectory.configurations)
        together = fitting_readouts(facts, paths * max(steps.values()), memory_bytes)
    return replace(facts, train_rows=paths * rows, readouts=together)
