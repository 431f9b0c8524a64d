"""Checks that a sweep's trials fit their GPU before anything is launched."""

from collections.abc import Iterator
from dataclasses import replace

from sweeper.errors import DeviceError, ModelError
from sweeper.estimate.estimate import memory_facts
from sweeper.estimate.inputs import Machine, folder_shape
from sweeper.estimate.rates import Tokens
from sweeper.memory import GIB, TILE, MemoryFacts, MemoryParts, memory
from sweeper.planning import Plan
from sweeper.spec import SweepSpec
from sweeper.task import ADAMW, Tuning

MANY = (2, 4, 8)
"""Numbers of GPUs per trial that a message proposes."""


def check_memory(
    plan: Plan, spec: SweepSpec, model_folder: str, tokens: Tokens, machine: Machine
) -> None:
    """Reject a sweep with a trial that does not fit this machine's smallest GPU with one row at a time.

    Larger micro-batches are not checked: they are chosen to fit, or halved. Nothing is checked on a
    cluster, without GPUs, or for a model of unknown size.

    Args:
        plan: What will be done.
        spec: The spec it came from.
        model_folder: Where the model's config.json is.
        tokens: Of the data.
        machine: The one the trials will run on.

    Raises:
        DeviceError: it does not fit; with the parts, and with what would fit.
    """
    compute = spec.compute
    elsewhere = compute.ray_address not in (None, "auto", "local")
    if not machine.gpus or compute.gpus_per_trial == 0 or elsewhere:
        return
    facts = largest_trial(plan, spec, model_folder, tokens)
    if facts is None:
        return
    gpu = min(machine.gpus, key=lambda one: one.memory_bytes or 0)
    usable = int((gpu.memory_bytes or 0) * compute.gpu_share)
    parts = memory(facts)
    if parts.peak_bytes <= usable:
        return
    where = gpu.name if compute.gpu_share == 1 else f"{compute.gpu_share:g} of {gpu.name}"
    raise DeviceError(
        f"a trial does not fit its GPU with one row at a time: it needs about "
        f"{_gib(parts.peak_bytes)} in the phase `{parts.peak_phase}` ({_listed(parts)}), {where} has "
        f"{_gib(usable)}; {_remedies(facts, spec, usable)}; use `--no-memory-check` to try anyway"
    )


def largest_trial(
    plan: Plan, spec: SweepSpec, model_folder: str, tokens: Tokens
) -> MemoryFacts | None:
    """The trial of a sweep that needs most memory on a GPU with one row at a time.

    None for a model of unknown size.
    """
    try:
        shape = folder_shape(model_folder)
    except ModelError:
        return None
    least = {
        replace(memory_facts(item, spec, shape, tokens, "cuda"), train_rows=1)
        for item in plan.trajectories
    }
    return max(least, key=lambda item: memory(item).peak_bytes)


def _remedies(facts: MemoryFacts, spec: SweepSpec, usable: int) -> str:
    """Changes that each fit alone, with the memory they need; else changes that need less."""
    needed = [(text, memory(changed).peak_bytes) for text, changed in _changes(facts, spec)]
    fitting = [f"{text} ({_gib(count)})" for text, count in needed if count <= usable]
    now, share = memory(facts).peak_bytes, spec.compute.gpu_share
    if share < 1 and now <= usable / share:
        fitting.append(f"`compute.gpus_per_trial: 1` ({_gib(now)})")
    if fitting:
        return f"any of these fits: {', '.join(fitting)}"
    less = [f"{text} ({_gib(count)})" for text, count in needed if count < 0.95 * now]
    if not less:
        return "a larger GPU is needed"
    return f"none of these is enough alone, combine them: {', '.join(less)}"


def _changes(facts: MemoryFacts, spec: SweepSpec) -> Iterator[tuple[str, MemoryFacts]]:
    lora = Tuning("lora", lora_target_modules=("q_proj", "v_proj"))
    if facts.tuning.method == "full":
        yield "`tuning.method: lora`", replace(facts, tuning=lora)
        if facts.optim == ADAMW:
            yield "`space.optim: paged_adamw_8bit`", replace(facts, optim="paged_adamw_8bit")
    if not facts.tuning.quantized and facts.processes == 1:
        fields = facts.tuning if facts.tuning.has_adapter else lora
        yield "`tuning.method: qlora`", replace(facts, tuning=replace(fields, method="qlora"))
    if facts.base_weights != "4bit":
        yield "`evaluation.base_weights: 4bit`", replace(facts, base_weights="4bit")
    if not facts.gradient_checkpointing:
        changed = replace(facts, gradient_checkpointing=True)
        yield "`compute.gradient_checkpointing: true`", changed
    for many in MANY:
        if many > facts.processes:
            yield f"`compute.gpus_per_trial: {many}`", replace(facts, processes=many)
    length = spec.data.max_length // 2
    shorter = replace(
        facts,
        train_length=min(facts.train_length, length),
        heldout_length=min(facts.heldout_length, length),
    )
    yield f"`data.max_length: {length}`", shorter
    rows = max(TILE, facts.evaluation_rows // 4)
    if rows < facts.evaluation_rows:
        yield f"`evaluation.batch_size: {rows}`", replace(facts, evaluation_rows=rows)


def _listed(parts: MemoryParts) -> str:
    large = [(value, name) for name, value in parts.at_peak().items() if value >= GIB / 10]
    return ", ".join(f"{name} {_gib(value)}" for value, name in sorted(large, reverse=True))


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
