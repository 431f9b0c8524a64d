"""The resources of an attempt, acquired and released in one place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.distributed import World
from sweeper.model.gpu_memory import usable_bytes
from sweeper.model.load import choose_device, end_tokens, load_model, model_commit, resident_model
from sweeper.model.logits import compiled_part
from sweeper.scoring.inputs import load_inputs
from sweeper.scoring.score import Scorer
from sweeper.task import ComputeSettings, TrajectoryTask
from sweeper.trial.heartbeat import Heartbeat
from sweeper.trial.memory_budget import MemoryBudget, gpu_memory_budget
from sweeper.trial.path import RunningPath
from sweeper.trial.pending import PendingReadouts
from sweeper.trial.provenance import Loaded


@dataclass(frozen=True, slots=True)
class Resources:
    """What one attempt works with.

    `paths` hold the trainable weights; with LoRA they are adapters, which `stack` puts beside the frozen
    `model`. Readouts are scored on `scored_model`, which is another one only if QLoRA asks for it.
    `memory_bytes` is what each process may use of its GPU, None on a CPU; `budget` is None where there is
    no such limit, or the architecture is not counted. `pad` is the token that fills up batches.
    """

    device: torch.device
    model: PreTrainedModel
    stack: AdapterStack | None
    scored_model: PreTrainedModel
    scored_stack: AdapterStack | None
    scorer: Scorer
    paths: tuple[RunningPath, ...]
    pad: int
    memory_bytes: int | None
    budget: MemoryBudget | None


@contextmanager
def acquire(pending: Sequence[PendingReadouts], heartbeat: Heartbeat) -> Iterator[Resources]:
    """Load the model and the inputs of a pack, and put its paths where they go on.

    At the end only the frozen base model of LoRA stays, for the next trial of this process.

    Args:
        pending: What is to be read from each path; at least one of the same sweep and batch size.
        heartbeat: Follows the paths from here on.

    Raises:
        ModelError, DataError: see `load_model` and `load_inputs`.
    """
    task, world = pending[0].task, pending[0].world
    device = choose_device(task.compute.device)
    torch.set_num_threads(task.compute.cpus_per_trial)
    if device.type == "cuda" and task.compute.deterministic:
        torch.use_deterministic_algorithms(True)
    inputs = load_inputs(task)
    model = scored = _model(task, device, world, task.tuning.quantized)
    if task.evaluation.base_weights == "unquantized":
        scored = _model(task, device, world, quantized=False)
    stacks: list[AdapterStack] = []
    try:
        _switch_training_aids(model, task.compute)
        if len(pending) > 1 and getattr(model.config, "attention_dropout", None):
            raise ModelError(
                "a model with attention dropout can train only one adapter at a time; set "
                "`compute.adapters_per_trial: 1`",
                code="model.unsupported",
            )
        name = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)
        ends = sorted(end_tokens(model, inputs.tokenizer, inputs.end_tokens))
        loaded = Loaded(inputs, model_commit(task.model), name, tuple(ends))
        paths = tuple(_path(one, pending, model, loaded) for one in pending)
        heartbeat.follow(paths)
        if (first := paths[0].adapter) is not None:
            stacks += [AdapterStack(one, first.factors) for one in dict.fromkeys((model, scored))]
        scorer = Scorer(inputs, task.evaluation, device, world, task.stop, heartbeat.tick)
        mine = usable_bytes(device, task.compute.gpu_share)
        memory_bytes = min((one for one in world.gather(mine) if one is not None), default=None)
        budget = None
        if memory_bytes is not None:
            tasks = [one.task for one in pending]
            budget = gpu_memory_budget(memory_bytes, tasks, inputs, model)
        pad = int(inputs.tokenizer.pad_token_id)
        stack, read = (stacks[0], stacks[-1]) if stacks else (None, None)
        yield Resources(
            device, model, stack, scored, read, scorer, paths, pad, memory_bytes, budget
        )
    finally:
        for one in stacks:
            one.remove()
        if task.compute.torch_compile:
            compiled_part(model)._compiled_call_impl = None


def _model(
    task: TrajectoryTask, device: torch.device, world: World, quantized: bool
) -> PreTrainedModel:
    if task.tuning.has_adapter:
        return resident_model(task.model, device, world, quantized)
    return load_model(task.model, device, world)


def _path(
    one: PendingReadouts,
    pack: Sequence[PendingReadouts],
    model: PreTrainedModel,
    loaded: Loaded,
) -> RunningPath:
    tuning = one.task.tuning
    adapter = new_adapter(model, tuning, one.task.seed) if tuning.has_adapter else None
    own = dict(model.named_parameters()) if adapter is None else adapter.parameters()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    others = [other.task.trajectory_id for other in pack if other is not one]
    embeddings = [name for name, value in own.items() if id(value) in tables]
    return RunningPath(one, own, adapter, loaded, others, embeddings)


def _switch_training_aids(model: PreTrainedModel, compute: ComputeSettings) -> None:
    """Apply settings that change the cost of a training step but not its result."""
    if compute.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    elif model.is_activation_checkpointing:
        model.activation_checkpointing_disable()
    if compute.torch_compile:
        compiled_part(model).compile(dynamic=True)
