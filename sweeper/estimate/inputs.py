"""The inputs of an estimate: this machine, the model folder and the data, read without torch."""

import os
import subprocess
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import NamedTuple, TypeVar

from sweeper.data.hub import MODEL, fetch, is_hub_id
from sweeper.data.load import check_cached, load_examples, load_prompts
from sweeper.data.split import split_rows
from sweeper.errors import DataError, MissingExtraError, ModelError
from sweeper.estimate.disk import DiskNeed, disk_need
from sweeper.estimate.estimate import Estimate, estimate, peak_memory
from sweeper.estimate.published import SHAPES, published_prompts, published_rows
from sweeper.estimate.rates import GPUS, Device, Rates, Tokens, analytic_rates, cpu
from sweeper.memory import ModelShape, read_shape
from sweeper.metrics import LIKELIHOOD_METRICS, TEXT_METRICS
from sweeper.planning import Plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.store.folder import cache_root
from sweeper.task import (
    DataSettings,
    DataSource,
    EvaluationSettings,
    ModelSource,
    PromptSuite,
    TrajectoryTask,
)

CHARACTERS_PER_TOKEN = 4
"""English text under a Llama tokenizer; without a tokenizer, characters are counted."""

BUILTIN = "builtin:"

Figures = TypeVar("Figures")


class Machine(NamedTuple):
    """The GPUs of this machine, one entry each, and the CPU cores this process may use."""

    gpus: tuple[Device, ...]
    cpus: int


class OnGpu(NamedTuple):
    """The cost of a sweep on one kind of GPU: how many trials fit on it, and total GPU-hours."""

    device: Device
    trials: int
    gpu_hours: float


def this_machine() -> Machine:
    """Detect this machine's hardware.

    GPUs are those that `nvidia-smi` lists; without it there are none.
    """
    return Machine(present_gpus(), len(os.sched_getaffinity(0)))


def present_gpus() -> tuple[Device, ...]:
    """The GPUs that nvidia-smi lists; none if it is not installed."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.rpartition(",") for line in done.stdout.splitlines() if "," in line]
    return tuple(known_gpu(name.strip(), int(mib) * 2**20) for name, _, mib in rows)


def known_gpu(name: str, memory_bytes: int) -> Device:
    """A detected GPU with its own name and memory, and the peaks of its model, else of the nearest size."""
    same = [gpu for gpu in GPUS if gpu.name.split()[0] in name]
    nearest = min(same or GPUS, key=lambda gpu: abs((gpu.memory_bytes or 0) - memory_bytes))
    peaks = (nearest.fp32_flops, nearest.bf16_flops, nearest.bandwidth, nearest.link)
    label = name if same else f"{name} (peaks of {nearest.name})"
    return Device(label, "cuda", memory_bytes, *peaks)


def trial_device(spec: SweepSpec, machine: Machine) -> Device:
    """The device of a trial: a GPU if the machine has one and the spec allows it."""
    if machine.gpus and spec.compute.gpus_per_trial != 0:
        return machine.gpus[0]
    return cpu(spec.compute.cpus_per_trial)


def default_workers(spec: SweepSpec, machine: Machine) -> int:
    """How many trials this machine runs at once, at least one: its resources over those of a trial."""
    compute = spec.compute
    workers = machine.cpus // compute.cpus_per_trial
    if machine.gpus and compute.gpus_per_trial != 0:
        share = 1.0 if compute.gpus_per_trial == "auto" else compute.gpus_per_trial
        workers = min(workers, int(len(machine.gpus) / share))
    return max(1, min(workers, compute.max_concurrent_trials or workers))


def local_path(path: str) -> str:
    """The path to open. For a `builtin:` source, the newest one already built; none is built here.

    Raises:
        DataError: it is not built yet.
    """
    if not path.startswith(BUILTIN):
        return path
    world, _, inner = path.removeprefix(BUILTIN).partition("/")
    built = [found for found in cache_root().glob(f"{world}-*") if (found / inner).exists()]
    if not built:
        raise DataError(
            f"{path} is not built yet; `sweeper run` or `--calibrate` builds it",
            code="data.builtin",
            path=path,
        )
    return str(max(built, key=lambda found: found.stat().st_mtime) / inner)


class Template(NamedTuple):
    """Tokens that the chat formats add to a training row, to a held-out row, and to a prompt."""

    row: int
    heldout: int
    prompt: int


def counted_characters(
    task: TrajectoryTask, *, look: bool = True, template: Template | None = None
) -> Tokens:
    """Tokens of a task's data, from characters: no tokenizer is needed.

    `longest_row` is `max_length`, the bound the data is cut at, and `longest_prompt` likewise: memory is
    reserved for the worst case. Every response is assumed to reach `max_new_tokens`. `rows` counts only
    what needs no tokenizer: overlong and truncated rows are not in it. Hub data sets are read from the
    cache, nothing is downloaded; for those not in the cache, published figures are used if available,
    `source` names them, and `rows` is None.

    Args:
        task: Any task of the sweep.
        look: False uses published figures even if the cache has the data: the same result on every
            machine. Raises: DataError, MissingExtraError: see `trial.split` and `trial.data`.
        template: What the chat formats add; nothing where it is not known.
    """
    data, evaluation = task.data, task.evaluation
    found = _Sources(look)
    lengths, held, counts = found.rows(data)
    asked = set(evaluation.utility_metrics)
    prompts = [
        length
        for source in (*evaluation.harmful, *evaluation.harmless)
        for length in found.prompts(source)
    ]
    prompts += held if asked & TEXT_METRICS else []
    added = template or Template(0, 0, 0)
    lengths = [min(data.max_length, length + added.row) for length in lengths]
    prompts = [length + added.prompt for length in prompts]
    held = [length + added.heldout for length in held]
    return Tokens(
        per_row=sum(lengths) / len(lengths),
        longest_row=data.max_length,
        prompts=len(prompts),
        prompt_tokens=sum(prompts),
        longest_prompt=data.max_length,
        generated=float(len(prompts) * evaluation.max_new_tokens),
        heldout_tokens=sum(held) if asked & LIKELIHOOD_METRICS else 0.0,
        source=f"characters / {CHARACTERS_PER_TOKEN}"
        + ("" if template is None else " and the tokens of the chat template")
        + "; every response max_new_tokens long"
        + uncounted(evaluation)
        + from_published(found.published),
        rows=counts,
    )


class _Sources:
    """Reads lengths in tokens, and collects the names of sources with published figures."""

    def __init__(self, look: bool) -> None:
        self._look = look
        self.published: list[str] = []

    def rows(self, data: DataSettings) -> tuple[list[float], list[float], dict[str, int] | None]:
        """Training rows, held-out rows, and what was left out where rows were read."""
        train = self._figures(data.train, published_rows(data.train))
        own = data.heldout
        heldout = None if own is None else self._figures(own, published_rows(own))
        if train is None and heldout is None:
            split = split_rows(data)
            sides = [
                [row.characters for row in side.values()] for side in (split.train, split.heldout)
            ]
            return _tokens(sides[0]), _tokens(sides[1]), split.counts
        lengths = _read(data.train) if train is None else [train.row_tokens]
        if own is None:
            assert train is not None and data.heldout_rows is not None
            return lengths, [train.row_tokens] * data.heldout_rows, None
        held = _read(own) if heldout is None else [heldout.row_tokens] * heldout.rows
        return lengths, held, None

    def prompts(self, source: PromptSuite) -> list[float]:
        """The prompts of a suite."""
        found = self._figures(source, published_prompts(source))
        return _tokens(len(item.text) for item in load_prompts(source)) if found is None else found

    def _figures(self, source: DataSource, known: Figures | None) -> Figures | None:
        """The published figures of a source that is not available here; None if it can be read."""
        if self._look or known is None:
            try:
                check_cached(source)
            except (DataError, MissingExtraError):
                if known is None:
                    raise
            else:
                return None
        self.published.append(getattr(source, "suite", None) or source.path)
        return known


def _tokens(characters: Iterable[int]) -> list[float]:
    return [count / CHARACTERS_PER_TOKEN for count in characters]


def _read(source: DataSource) -> list[float]:
    return _tokens(row.characters for row in load_examples(source))


def from_published(names: Sequence[str]) -> str:
    """A note on published figures in an estimate, and how to count instead."""
    if not names:
        return ""
    return (
        f"; ESTIMATED FROM PUBLISHED FIGURES of {', '.join(dict.fromkeys(names))}: run `sweeper "
        f"prefetch` to have a plan count them"
    )


def uncounted(evaluation: EvaluationSettings) -> str:
    """A note on parts that no estimate includes."""
    return "" if evaluation.lm_eval is None else "; the lm_eval tasks are NOT counted"


def planned_tokens(plan: Plan, spec: SweepSpec, *, look: bool = True) -> Tokens:
    """The tokens of a sweep's data, from characters; see `counted_characters`.

    Those that the chat template adds are counted where the tokenizer is on this machine.
    """
    task = make_tasks(plan, spec, local_path)[0]
    return counted_characters(task, look=look, template=_template(task) if look else None)


def _template(task: TrajectoryTask) -> Template | None:
    """What the chat formats add; None where there is no tokenizer here, or it cannot write them."""
    if find_spec("transformers") is None:
        return None
    from sweeper.data.encode import Encoder  # These need transformers and torch.
    from sweeper.model.load import load_tokenizer

    model, chosen, length = task.model, task.data.template, task.data.max_length
    try:
        if is_hub_id(model.path):
            fetch(model.path, model.revision, MODEL, download=False)
        tokenizer = load_tokenizer(model)
        train, test = (
            Encoder(tokenizer, side.name, length, side.system).added_tokens
            for side in (chosen.train, chosen.test)
        )
    except (DataError, MissingExtraError, ModelError):
        return None
    return Template(train.row, test.row, test.prompt)


def planned_shape(spec: SweepSpec, *, look: bool = True) -> tuple[ModelShape, bool]:
    """The shape of a sweep's model, and whether it is the published one because there is no config.json.

    Raises:
        ModelError: see `folder_shape`.
    """
    known = SHAPES.get(spec.model.path)
    if known is not None and not look:
        return known, True
    try:
        return folder_shape(local_path(spec.model.path), spec.model.revision), False
    except ModelError:
        if known is None:
            raise
        return known, True


def folder_shape(path: str, revision: str | None = None) -> ModelShape:
    """The shape of a local or cached model; torch is needed for other families than Llama's.

    Raises:
        ModelError: see `model.shape.known_shape`; or another family, without torch.
    """
    try:
        return read_shape(path, revision)
    except ModelError as error:
        if error.code != "model.unsupported" or find_spec("transformers") is None:
            raise
    from sweeper.model.shape import known_shape  # It needs torch.

    return known_shape(ModelSource(path, revision))


def plan_estimate(
    plan: Plan,
    spec: SweepSpec,
    *,
    workers: int | None = None,
    machine: Machine | None = None,
    device: Device | None = None,
    tokens: Tokens | None = None,
    rates: Rates | None = None,
    measured_memory_bytes: int | None = None,
    look: bool = True,
) -> Estimate:
    """Estimate a sweep on this machine; arguments replace what would be detected.

    Args:
        plan: What will be done.
        spec: The spec it came from.
        workers: Trials at once; otherwise as many as this machine runs.
        machine: Instead of looking at this one.
        device: What one trial runs on, instead of the detected one.
        tokens: Counted with the tokenizer, instead of characters.
        rates: Measured, instead of analytic ones.
        measured_memory_bytes: The peak of a real trial.
        look: False uses published figures even if this machine has the data; see `counted_characters`.

    Raises:
        ModelError: no config.json available, or not one of a Llama.
        DataError: a data file that cannot be read.
        SweeperError: no worker.
    """
    machine = machine or this_machine()
    device = device or trial_device(spec, machine)
    shape, published = planned_shape(spec, look=look)
    if tokens is None:
        tokens = planned_tokens(plan, spec, look=look)
    said = f"; the shape of {spec.model.path} is the published one"
    if published and said not in tokens.source:
        tokens = tokens._replace(source=tokens.source + said)
    if rates is None:
        tuning = max((t.tuning for t in plan.trajectories), key=shape.trainable)
        rows = spec.evaluation.batch_size
        processes = spec.compute.processes
        rates = analytic_rates(shape, tuning, spec.model.dtype, device, tokens, rows, processes)
    return estimate(
        plan,
        spec,
        shape,
        rates,
        tokens,
        default_workers(spec, machine) if workers is None else workers,
        device=device.kind,
        memory_bytes=gpu_bytes(spec, device),
        measured_memory_bytes=measured_memory_bytes,
    )


def plan_disk(plan: Plan, spec: SweepSpec, tokens: Tokens, workers: int | None = None) -> DiskNeed:
    """The disk space a sweep needs, with `workers` trials at once, by default as many as this machine runs.

    Raises:
        ModelError: see `plan_estimate`.
    """
    shape, _ = planned_shape(spec)
    at_once = default_workers(spec, this_machine()) if workers is None else workers
    return disk_need(plan, spec, shape, tokens, at_once)


def gpu_bytes(spec: SweepSpec, device: Device) -> int | None:
    """The GPU memory one trial may use; None on a CPU."""
    if device.memory_bytes is None:
        return None
    return int(device.memory_bytes * spec.compute.gpu_share)


def on_gpus(plan: Plan, spec: SweepSpec, tokens: Tokens, machine: Machine) -> tuple[OnGpu, ...]:
    """How many trials fit on the detected GPU, else on each common one, and analytic GPU-hours.

    For a trial on several GPUs: 1 if its shard fits on each of them. If none fits with the default
    micro-batch, one with a smaller micro-batch counts.

    Raises:
        ModelError: see `plan_estimate`.
    """
    found = []
    for gpu in machine.gpus[:1] or GPUS:
        made = plan_estimate(
            plan, spec, workers=1, machine=Machine((gpu,), machine.cpus), device=gpu, tokens=tokens
        )
        assert gpu.memory_bytes is not None
        shape, _ = planned_shape(spec)
        plain = peak_memory(plan, spec, shape, tokens, "cuda")
        alone = int(made.memory.peak_bytes <= gpu.memory_bytes)
        trials = gpu.memory_bytes // plain.peak_bytes or alone
        if spec.compute.processes > 1:
            trials = min(1, trials)
        hours = made.worker_seconds / 3600 * spec.compute.processes
        found.append(OnGpu(gpu, trials, hours))
    return tuple(found)
