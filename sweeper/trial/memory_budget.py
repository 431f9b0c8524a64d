"""How much a trial may take on at once on its GPU, by the memory model of its model and data."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.memory import MemoryFacts, fitting_readouts, fitting_rows
from sweeper.metrics import LIKELIHOOD_METRICS, TEXT_METRICS
from sweeper.model.shape import model_shape
from sweeper.scoring.inputs import Inputs
from sweeper.task import TrajectoryTask, running_averages


class MemoryBudget(NamedTuple):
    """A trial and the bytes of GPU memory that each of its processes may use."""

    facts: MemoryFacts
    memory_bytes: int

    def rows(self, most: int, paths: int) -> int:
        """Rows per path and micro-batch, at most `most`; see `memory.fitting_rows`."""
        return fitting_rows(self.facts, most, paths, self.memory_bytes)

    def readouts(self, most: int) -> int:
        """Readouts to score together, at most `most`; see `memory.fitting_readouts`."""
        return fitting_readouts(self.facts, most, self.memory_bytes)


def gpu_memory_budget(
    memory_bytes: int, tasks: Sequence[TrajectoryTask], inputs: Inputs, model: PreTrainedModel
) -> MemoryBudget | None:
    """The budget of the trial that trains some tasks, or None for an architecture that is not counted.

    Args:
        memory_bytes: What one process may use of its GPU.
        tasks: The tasks of the pack.
        inputs: Of these tasks.
        model: Their base model.
    """
    try:
        shape = model_shape(model)
        for task in tasks:
            shape.trainable(task.tuning)
    except ModelError:
        return None
    first = tasks[0]
    evaluation, heldout = first.evaluation, inputs.data.heldout
    rows = [inputs.encoder.example(row) for row in heldout]
    reads_text = not TEXT_METRICS.isdisjoint(evaluation.utility_metrics)
    reads_loss = not LIKELIHOOD_METRICS.isdisjoint(evaluation.utility_metrics)
    prompts = [len(tokens) for suite in inputs.suites for tokens in suite.tokens]
    prompts += [len(row.prompt) for row in rows] if reads_text else []
    read = [len(row.prompt) + len(row.completion) for row in rows] if reads_loss else []
    trained = inputs.data.train
    facts = MemoryFacts(
        shape=shape,
        tuning=max((task.tuning for task in tasks), key=lambda tuning: tuning.lora_r),
        paths=len(tasks),
        dtype=first.model.dtype,
        device="cuda",
        shadows=max(_shadows(task) for task in tasks),
        interpolates=any(r.average.kind == "interpolate" for t in tasks for r in t.readouts),
        forks=any(len(task.segments) > 1 for task in tasks),
        train_rows=1,
        train_length=max(len(row.prompt) + len(row.completion) for row in trained),
        evaluation_rows=min(evaluation.batch_size, len(prompts)),
        heldout_length=max(read, default=0),
        generation_length=max(prompts) + evaluation.max_new_tokens,
        target_length=max(len(row.completion) for row in trained),
        processes=first.compute.processes,
        gradient_checkpointing=first.compute.gradient_checkpointing,
        optim=min(task.optimizer.optim for task in tasks),  # That of 32 bits, if there is one.
        base_weights=evaluation.base_weights,
    )
    return MemoryBudget(facts, memory_bytes)


def _shadows(task: TrajectoryTask) -> int:
    averages = [item.average for item in task.readouts]
    return len(running_averages(averages)) + (task.optimizer.feedback is not None)
