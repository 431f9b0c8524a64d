"""The training loop: one effective batch, one optimizer step, one update of every shadow.

Every step draws its randomness (dropout) from a seed made of the trajectory's seed and the step number.
So a step depends on the weights, the optimizer state and its number alone: reading the model between two
steps cannot disturb the next one, and a checkpoint needs neither generator states nor a data position.

Several paths can take their steps together (`step_together`): they share one forward and backward pass,
each in its own slot, and nothing else: loss, clipping, optimizer, schedule and shadows are each path's own.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers import get_scheduler

from sweeper.errors import TrainingDivergedError
from sweeper.model.adapters import AdapterWeights
from sweeper.model.averaging import Shadow, bias_corrected, interpolate
from sweeper.model.batches import Batch
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.logits import target_logits
from sweeper.model.sharding import local_shard
from sweeper.task import ADAMW, Average, OptimizerSettings, Segment, running_averages
from sweeper.trial.optimizers import make_optimizer, optimizer_state, restore_optimizer

UNCHECKED_STEPS = 32
"""On a GPU, fetching a loss waits for the queue, so losses are fetched at least every so many steps."""

Schedule = Callable[[int], float]


def learning_rate_schedule(settings: OptimizerSettings, segment: Segment) -> Schedule:
    """The factor on the learning rate at each step (from 0), as `transformers.get_scheduler` has it.

    The scheduler's own lambda is used and no scheduler state kept, so a schedule resumes anywhere.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    specific: dict[str, Any] = {}
    if settings.lr_scheduler_type == "warmup_stable_decay":
        specific = {"num_decay_steps": segment.decay_steps}
    scheduler = get_scheduler(
        settings.lr_scheduler_type,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=max(1, segment.total_steps),
        scheduler_specific_kwargs=specific,
    )
    factor: Schedule = scheduler.lr_lambdas[0]
    return factor


def step_seed(seed: int, step: int) -> int:
    """What the randomness of optimizer step `step` (from 0) is seeded with."""
    return seed * 1_000_003 + step


def step_together(
    model: torch.nn.Module,
    trainers: Sequence["PathTrainer"],
    batches: Sequence[Batch],
    schedules: Sequence[Schedule],
    *,
    targets: Sequence[int] | None = None,
    autocast: AbstractContextManager[Any] = nullcontext(),  # noqa: B008 - it holds nothing
    set_micro_batch: Callable[[int], None] = lambda number: None,
    world: World = SINGLE_PROCESS,
) -> dict[int, TrainingDivergedError]:
    """One optimizer step of every path, through one forward and backward pass.

    The loss of every micro-batch is divided by the target tokens of its path's whole effective batch,
    so that accumulation changes nothing but rounding.

    Args:
        model: In training mode, with the weights of path i in slot i.
        trainers: The paths.
        batches: The micro-batches of the effective batch, with one slot per path; in a world of several
            processes, this one's part of each.
        schedules: The schedule of each path.
        targets: The target tokens of each path's effective batch, where it is not all in `batches`.
        autocast: The precision of the forward passes.
        set_micro_batch: Called with the number of every micro-batch before its forward pass.
        world: The processes that take this step together.

    Returns:
        By their number, the paths whose loss or gradient is not finite. The others are untouched by it.
    """
    totals = targets or [sum(batch.counts[i] for batch in batches) for i in range(len(trainers))]
    for trainer in trainers:
        trainer.begin()
    losses = [torch.zeros((), device=batches[0].input_ids.device) for _ in trainers]
    for number, batch in enumerate(batches):
        set_micro_batch(number)
        with autocast:
            tokens = torch.nn.functional.cross_entropy(
                target_logits(model, batch), batch.targets, reduction="none"
            )
        parts = [
            part.sum() / max(1, count)
            for part, count in zip(tokens.split(batch.counts), totals, strict=True)
        ]
        torch.stack(parts).sum().backward()
        losses = [loss + part.detach() for loss, part in zip(losses, parts, strict=True)]
    world.all_reduce_(losses)
    world.all_reduce_([grad for trainer in trainers for grad in trainer.replicated_gradients()])
    diverged = {}
    for number, trainer in enumerate(trainers):
        try:
            trainer.finish(losses[number], schedules[number])
        except TrainingDivergedError as error:
            diverged[number] = error
    return diverged


class PathTrainer:
    """A point on an optimizer path: trainable weights, AdamW's moments, and the shadows of the path.

    Not thread-safe. It owns the parameters while it lives; those of an adapter lie in one row, and what is
    done to each weight by itself is done to the row. `grad_norm` is that of the last step that was
    checked, before clipping; `learning_rate` that of the last step.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        settings: OptimizerSettings,
        averages: Iterable[Average],
        embeddings: Collection[str] = (),
    ) -> None:
        self.step = 0
        self.names = list(parameters)
        self.parameters = list(parameters.values())
        self.values = [local_shard(parameter) for parameter in self.parameters]
        self.grad_norm = math.nan
        self.learning_rate = math.nan
        self._losses: list[float] = []
        self._unchecked: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._settings = settings
        self._flat = parameters.flat if isinstance(parameters, AdapterWeights) else None
        self._whole = self.values if self._flat is None else [self._flat.row.detach()]
        self._start = [value.clone() for value in self._whole]
        self._shadows = {one: Shadow(self._start, one) for one in running_averages(averages)}
        feedback = settings.feedback
        self._fed = Shadow(self._start, feedback.decay) if feedback is not None else None
        self._sharded = any(isinstance(parameter, DTensor) for parameter in self.parameters)
        weights = self.values if self._sharded else self.parameters
        named: dict[str, torch.Tensor] = dict(zip(parameters, weights, strict=True))
        self._receiving = self.parameters if self._flat is None else [self._flat.row]
        # Moments in 8 bits have a scale per block, and blocks do not span two weights.
        self._stepped = self._flat if settings.optim == ADAMW else None
        if self._stepped is not None:
            named = {"row": self._stepped.row}
        self._optimizer = make_optimizer(named, settings, embeddings)
        self._patience = UNCHECKED_STEPS if self.parameters[0].is_cuda else 1

    @property
    def losses(self) -> list[float]:
        """The loss of every step so far, in nats per target token.

        Raises:
            TrainingDivergedError: see `finish`.
        """
        self.check()
        return self._losses

    @property
    def seen_losses(self) -> tuple[float, ...]:
        """The losses that were fetched already; fetches no further one."""
        return tuple(self._losses)

    def begin(self) -> None:
        """Forget the gradients of the step before."""
        for parameter in self._receiving:
            parameter.grad = None

    def replicated_gradients(self) -> list[torch.Tensor]:
        """The gradients of weights that every process has whole, and computed from its own rows alone."""
        if self._sharded:
            return []
        return [parameter.grad for parameter in self._receiving if parameter.grad is not None]

    def finish(self, loss: torch.Tensor, schedule: Schedule) -> None:
        """Clip the gradients that are there, take the step, update the shadows.

        Raises:
            TrainingDivergedError: the loss or its gradient was NaN or infinite, in this step or, on a GPU,
            in one shortly before. On a CPU the weights are left as they were.
        """
        limit = self._settings.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self._receiving, limit)
        if self._flat is not None and self._stepped is None:
            self._flat.share_gradient()
        if self._sharded:
            norm = whole_norm(norm)
            for parameter, value in zip(self.parameters, self.values, strict=True):
                value.grad = None if parameter.grad is None else local_shard(parameter.grad)
        self._unchecked.append((loss, norm))
        if len(self._unchecked) >= self._patience:
            self.check()
        self.learning_rate = self._settings.learning_rate * schedule(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.step()
        self.step += 1
        self._average()

    def check(self) -> None:
        """Fetch and check the losses of the steps since the last check.

        A NaN weight can hide from the loss (CPU attention maps NaN scores to zeros), not from the
        gradient, so both are checked.

        Raises:
            TrainingDivergedError: one of them, or the gradient's norm, is NaN or infinite.
        """
        if not self._unchecked:
            return
        values = torch.stack([torch.stack(pair) for pair in self._unchecked]).tolist()
        self._unchecked = []
        for loss, norm in values:
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingDivergedError(len(self._losses) + 1, loss, norm)
            self._losses.append(loss)
            self.grad_norm = norm

    def _average(self) -> None:
        for shadow in self._shadows.values():
            shadow.update(self._whole, self.step)
        feedback = self._settings.feedback
        if self._fed is not None and feedback is not None:
            self._fed.update(self._whole, self.step)
            if self.step % feedback.every == 0:
                for value, average in zip(self._whole, self._fed.values, strict=True):
                    value.copy_(average)

    def read(self, average: Average) -> list[torch.Tensor] | None:
        """The averaged weights at this point, in fp32, or None for the weights themselves.

        Of sharded weights, like all that a path holds, this process's part.
        """
        if average.running is not None:
            shadow = self._shadows[average.running].values
            if average.bema is None:
                return self._parts(shadow)
            correction = average.bema.correction(self.step)
            return self._parts(bias_corrected(shadow, self._whole, self._start, correction))
        if average.kind == "interpolate":
            assert average.weight is not None
            return self._parts(interpolate(self._whole, self._start, average.weight))
        return None

    def _parts(self, whole: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Weight by weight, in the same memory."""
        if self._flat is None:
            return list(whole)
        return [part[0] for part in self._flat.split(whole[0])]

    def state(self) -> dict[str, torch.Tensor]:
        """Everything the next step depends on, by name: copies, each where its original is."""
        return {n: v.clone(memory_format=torch.contiguous_format) for n, v in self._state().items()}

    def state_to_write(self) -> dict[str, torch.Tensor]:
        """The state on the CPU; what is there already is no copy, and changes with the next step."""
        return {name: value.cpu().contiguous() for name, value in self._state().items()}

    def _state(self) -> dict[str, torch.Tensor]:
        named: dict[str, torch.Tensor] = {}
        for index, value in enumerate(self.values):
            named[f"parameter.{index}"] = value
        for place, value in optimizer_state(self._optimizer, self._stepped).items():
            named[f"optimizer.{place}"] = value
        for name, shadow in self._all_shadows().items():
            for index, value in enumerate(self._parts(shadow.values)):
                named[f"{name}.{index}"] = value
        losses = torch.tensor(self.losses, dtype=torch.float64)
        return {**named, "losses": losses, "step": torch.tensor(self.step)}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go back to a `state`; it may be used again afterwards."""
        self.step = int(state["step"])
        self._losses, self._unchecked = state["losses"].tolist(), []
        with torch.no_grad():
            for index, value in enumerate(self.values):
                value.copy_(state[f"parameter.{index}"])
            for place, shadow in self._all_shadows().items():
                for index, value in enumerate(self._parts(shadow.values)):
                    value.copy_(state[f"{place}.{index}"])
        prefix = "optimizer."
        restore_optimizer(
            self._optimizer,
            {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)},
            self._stepped,
        )

    def fits(self, state: dict[str, torch.Tensor]) -> bool:
        """Whether a state is one of this path: the same weights and the same shadows."""
        shadows = self._all_shadows()
        names = {f"{place}.{i}" for place in shadows for i in range(len(self.parameters))}
        names |= {f"parameter.{i}" for i in range(len(self.parameters))}
        return {n for n in state if n.startswith(("shadow", "feedback", "parameter"))} == names

    def _all_shadows(self) -> dict[str, Shadow]:
        named = {f"shadow.{one!r}": shadow for one, shadow in self._shadows.items()}
        return named if self._fed is None else {**named, "feedback": self._fed}


def whole_norm(norm: torch.Tensor) -> torch.Tensor:
    """A gradient norm as every process knows it."""
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
