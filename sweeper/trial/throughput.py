"""What a trial logs of its optimizer steps: loss, learning rate, gradient norm, speed and memory."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sweeper.data.encode import Encoded
from sweeper.errors import TrainingDivergedError
from sweeper.memory import GIB, peak_flops, train_flops
from sweeper.task import Segment
from sweeper.trial.path import RunningPath
from sweeper.trial.resources import Resources


@dataclass(slots=True)
class _Interval:
    """Seconds of steps since the last line of a path, and the tokens and FLOP of all paths in them."""

    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0


class TrainingLog:
    """Logs every step whose number `compute.logging_steps` divides.

    Only then losses are fetched from a GPU for it, which waits for the step to end; no step, weight or
    random number depends on it. Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B) is tokens per
    second times FLOP per token (`memory.train_flops`) over the peak of all GPUs of the trial; padding,
    recomputation and evaluation do not count as work.
    """

    def __init__(self, resources: Resources) -> None:
        first = resources.paths[0]
        self._device = resources.device
        self._every = first.task.compute.logging_steps
        self._intervals = {path: _Interval() for path in resources.paths}
        self._flops: dict[RunningPath, float] = {}
        self._peak: float | None = None
        if resources.budget is not None and self._device.type == "cuda":
            name = torch.cuda.get_device_name(self._device)
            peak = peak_flops(name, first.task.model.dtype)
            self._peak = None if peak is None else peak * first.pending.world.size
            shape = resources.budget.facts.shape
            self._flops = {path: train_flops(shape, path.task.tuning) for path in resources.paths}

    def after_step(
        self,
        stepped: Mapping[RunningPath, Segment],
        rows: Mapping[RunningPath, Sequence[Encoded]],
        began: float,
    ) -> dict[RunningPath, TrainingDivergedError]:
        """Count a step that some paths took together, and log it where it is due.

        Every process of a trial has to call it: whether a path has diverged is decided by all alike.

        Args:
            stepped: The paths that took it, on which segment.
            rows: The effective batch of each path, those that diverged in this step included.
            began: When the step began, by `time.monotonic`.

        Returns:
            Paths that were found to have diverged in this step or shortly before.
        """
        due = [path for path in stepped if path.trainer.step % self._every == 0]
        diverged = {}
        for path in due:
            try:
                path.trainer.check()
            except TrainingDivergedError as error:
                diverged[path] = error
        seconds = time.monotonic() - began
        tokens = {path: sum(len(r.prompt) + len(r.completion) for r in rows[path]) for path in rows}
        flops = sum(self._flops.get(path, 0.0) * count for path, count in tokens.items())
        for path in stepped:
            interval = self._intervals[path]
            interval.seconds += seconds
            interval.tokens += sum(tokens.values())
            interval.flops += flops
        for path in due:
            if path not in diverged:
                self._write(path, stepped[path])
        return diverged

    def _write(self, path: RunningPath, segment: Segment) -> None:
        trainer, interval = path.trainer, self._intervals[path]
        self._intervals[path] = _Interval()
        seconds = max(interval.seconds, 1e-9)
        mfu = None if self._peak is None else interval.flops / seconds / self._peak
        on_gpu = self._device.type == "cuda"
        path.pending.log.write(
            "train",
            step=trainer.step,
            loss=trainer.losses[-1],
            learning_rate=trainer.learning_rate,
            grad_norm=trainer.grad_norm,
            tokens_per_second=round(interval.tokens / seconds, 1),
            mfu=mfu,
            peak_memory_gib=torch.cuda.max_memory_allocated(self._device) / GIB if on_gpu else None,
            segment=path.task.segments.index(segment) or None,
        )
