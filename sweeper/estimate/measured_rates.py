"""Rates measured in about a minute, by running a shortened trajectory twice on the real model and data.

Only the records of `run_trajectory` are used. The two runs differ in batch size and response length, so
that the costs of a step and of a token can be separated.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from sweeper.errors import SweeperError
from sweeper.estimate.estimate import Estimate
from sweeper.estimate.inputs import plan_estimate, this_machine, trial_device, uncounted
from sweeper.estimate.rates import WORKER_START_SECONDS, Rates, Tokens
from sweeper.metrics import LIKELIHOOD_METRICS, TEXT_METRICS
from sweeper.planning import Plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import SweepSpec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import Average, Readout, Segment, Source, TrajectoryTask
from sweeper.trial.run import Keys, run_trajectory

TrialFunction = Callable[[TrajectoryTask, TrialStorage, Keys], Iterator[TrialRecord]]

FIRST_STEP = 1
"""Warm-up steps before the first readout; they are excluded from all rates."""

MOST_STEPS = 30
LEAST_STEPS = 2

SHORTER = 4
"""The first run generates this fraction of `max_new_tokens`."""

TRAIN_ROWS = 256
"""Training rows the short runs read; tokens are counted on all of them before."""


class MeasuredRates(NamedTuple):
    """Measured rates, counted tokens, the peak memory of the short runs in bytes, and the duration."""

    rates: Rates
    tokens: Tokens
    peak_bytes: int
    seconds: float


class Observation(NamedTuple):
    """The measurements of one short run: between its two readouts, and on average at a readout."""

    steps: int
    trained: float
    train_seconds: float
    prompts: int
    generated: float
    evaluate_seconds: float
    load_seconds: float


def count_tokens(task: TrajectoryTask) -> Tokens:
    """Tokens of a task's data, counted with its tokenizer and template.

    Raises:
        DataError, ModelError: see `trial.inputs`.
    """
    inputs, evaluation = load_inputs(task), task.evaluation
    rows = [len(row.prompt) + len(row.completion) for row in inputs.data.train]
    held = [inputs.encoder.example(row) for row in inputs.data.heldout]
    asked = set(evaluation.utility_metrics)
    prompts = [len(tokens) for suite in inputs.suites for tokens in suite.tokens]
    prompts += [len(row.prompt) for row in held] if asked & TEXT_METRICS else []
    read = [len(row.prompt) + len(row.completion) for row in held]
    return Tokens(
        per_row=sum(rows) / len(rows),
        longest_row=max([*rows, *read]),
        prompts=len(prompts),
        prompt_tokens=float(sum(prompts)),
        longest_prompt=max(prompts),
        generated=float(len(prompts) * evaluation.max_new_tokens),
        heldout_tokens=float(sum(read)) if asked & LIKELIHOOD_METRICS else 0.0,
        source="counted with the tokenizer; every response max_new_tokens long"
        + uncounted(evaluation),
        rows=dict(inputs.data.counts),
    )


def measure_rates(
    tasks: Sequence[TrajectoryTask],
    guess: Rates,
    *,
    budget_seconds: float = 60.0,
    run: TrialFunction = run_trajectory,
) -> MeasuredRates:
    """Measure the rates of a sweep.

    Args:
        tasks: Its tasks; those with the smallest and the largest batch are run.
        guess: Analytic rates: they choose how many steps fit into the budget.
        budget_seconds: About how long it may take. A quarter is used for the steps of each run; readouts
            answer one batch of each suite and are not limited.
        run: Runs one task.

    Raises:
        SweeperError: no task trains, or a short run failed.
        DataError, ModelError: see `trial.inputs`.
    """
    training = [task for task in tasks if task.segments[0].stop > 0]
    if not training:
        raise SweeperError("nothing to calibrate: no trajectory of this sweep takes a step")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # For deterministic kernels.
    began = time.monotonic()
    ordered = sorted(training, key=lambda t: (t.optimizer.batch_size, t.optimizer.learning_rate))
    largest = ordered[-1].optimizer.batch_size
    ends = (ordered[0], next(t for t in ordered if t.optimizer.batch_size == largest))
    tokens = count_tokens(ends[0])
    reading = time.monotonic() - began
    on_gpu = ends[0].compute.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    steps = [_steps(task, tokens, guess, budget_seconds / 4) for task in ends]
    new = ends[0].evaluation.max_new_tokens
    answers = (max(1, new // SHORTER), new)
    shorts = [shortened(t, n, a) for t, n, a in zip(ends, steps, answers, strict=True)]
    seen = [_observe(short, run) for short in shorts]
    rates = fit(seen, tokens, reading + WORKER_START_SECONDS, _device_name(on_gpu, ends[0]))
    longest = seen[-1]
    tokens = tokens._replace(
        generated=longest.generated * tokens.prompts / longest.prompts,
        source="counted with the tokenizer; responses as long as after "
        f"{steps[-1] + FIRST_STEP} steps{uncounted(ends[0].evaluation)}",
    )
    return MeasuredRates(rates, tokens, _peak_bytes(on_gpu), time.monotonic() - began)


def measured_estimate(
    plan: Plan, spec: SweepSpec, resolve: Callable[[str], str], workers: int | None = None
) -> Estimate:
    """Estimate a sweep from rates measured now, on the device its trials would run on here.

    Raises:
        SweeperError, DataError, ModelError: see `measure_rates` and `plan_estimate`.
    """
    machine = this_machine()
    device = trial_device(spec, machine)
    tasks = make_tasks(plan, spec, resolve, device.kind)
    guess = plan_estimate(plan, spec, workers=workers, machine=machine)
    found = measure_rates(tasks, guess.rates)
    return plan_estimate(
        plan,
        spec,
        workers=workers,
        machine=machine,
        tokens=found.tokens,
        rates=found.rates,
        # With several processes, this one holds no tensors.
        measured_memory_bytes=found.peak_bytes if spec.compute.processes == 1 else None,
    )


def _steps(task: TrajectoryTask, tokens: Tokens, guess: Rates, seconds: float) -> int:
    """How many steps of a task fit into some seconds, between LEAST_STEPS and MOST_STEPS."""
    trained = tokens.per_row * task.optimizer.batch_size
    step = guess.step_seconds + guess.train_token_seconds * trained
    return max(LEAST_STEPS, min(MOST_STEPS, int(seconds / step)))


def shortened(task: TrajectoryTask, steps: int, max_new_tokens: int) -> TrajectoryTask:
    """The task cut to a warm-up step and some more, read twice, on one batch of every suite.

    Tasks of lm-evaluation-harness are left out: their time is not estimated. The second readout is one of
    the task's EMAs, if any. The others stay on the path as readouts that are not measured (`unmeasured`),
    for their time and memory.
    """
    last = FIRST_STEP + steps
    shadows = {item.average for item in task.readouts if item.average.running is not None}
    at_last = sorted(shadows, key=lambda average: (average.decay or 0.0, average.label)) or [
        Average()
    ]
    averages = [(FIRST_STEP, Average()), *((last, average) for average in at_last)]
    evaluation, data = task.evaluation, task.data
    few = evaluation.batch_size
    held = None if data.heldout_rows is None else min(data.heldout_rows, few)
    train = TRAIN_ROWS + (held or 0)
    return replace(
        task,
        trajectory_id=f"calibrate-{task.trajectory_id}",
        optimizer=replace(
            task.optimizer, lr_scheduler_type="constant", warmup_steps=0, decay_steps=0
        ),
        segments=(Segment(0, last, last),),
        readouts=tuple(
            Readout(f"calibrate-{number}", "candidate", 0, step, average, {})
            for number, (step, average) in enumerate(averages)
        ),
        data=replace(
            data,
            train=_first(data.train, train),
            heldout=None if data.heldout is None else _first(data.heldout, few),
            heldout_rows=held,
        ),
        evaluation=replace(
            evaluation,
            harmful=tuple(_first(source, few) for source in evaluation.harmful),
            harmless=tuple(_first(source, few) for source in evaluation.harmless),
            max_new_tokens=max_new_tokens,
            lm_eval=None,
        ),
        stop=None,
    )


def unmeasured(task: TrajectoryTask) -> Keys:
    """The readouts of a shortened task that only keep their EMA in memory."""
    return frozenset((readout.config_id, task.seed) for readout in task.readouts[2:])


def _first(source: Source, rows: int) -> Source:
    return replace(source, rows=rows if source.rows is None else min(source.rows, rows))


def _observe(task: TrajectoryTask, run: TrialFunction) -> Observation:
    """Run a shortened task in a temporary folder.

    Raises:
        SweeperError: a readout failed.
    """
    with tempfile.TemporaryDirectory(prefix="sweeper-calibrate-") as folder:
        records = list(run(task, TrialStorage(Path(folder), task.trajectory_id), unmeasured(task)))
    for record in records:
        if record.status == "failed":
            reason = record.reason or {}
            raise SweeperError(
                f"the calibration failed in {reason.get('stage')}: {reason.get('message')}; the sweep "
                f"would fail in the same way; fix the cause, or plan without --calibrate"
            )
    first, last = sorted(records, key=lambda record: int(record.readout["step"]))
    before, after = first.provenance["seconds"], last.provenance["seconds"]
    trained = [float(record.provenance["tokens"]["trained"]) for record in (first, last)]
    generated = [float(record.provenance["tokens"]["generated"]) for record in (first, last)]
    return Observation(
        steps=int(last.readout["step"]) - int(first.readout["step"]),
        trained=trained[1] - trained[0],
        train_seconds=float(after["train"]) - float(before["train"]),
        prompts=count_tokens(task).prompts,
        generated=sum(generated) / 2,
        evaluate_seconds=(float(before["evaluate"]) + float(after["evaluate"])) / 2,
        load_seconds=float(after["load"]),
    )


def fit(seen: Sequence[Observation], tokens: Tokens, startup: float, device: str) -> Rates:
    """Rates from short runs, the fixed part of a readout scaled to all prompts of a real one.

    The load time is the smallest one measured: a worker loads from a cold cache only once.
    """
    step, token = two_rates([(item.steps, item.trained, item.train_seconds) for item in seen])
    fixed, generated = two_rates(
        [(item.prompts, item.generated, item.evaluate_seconds) for item in seen]
    )
    return Rates(
        train_token_seconds=token,
        step_seconds=step,
        generate_token_seconds=generated,
        readout_seconds=fixed * tokens.prompts,
        load_seconds=min(item.load_seconds for item in seen),
        startup_seconds=startup,
        source="calibrated",
        device=device,
    )


def two_rates(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The a, b >= 0 of the least-squares fit `seconds = a * x + b * y` over all rows (x, y, seconds).

    Where x and y are proportional in all rows they cannot be distinguished: all goes to b.
    """
    table = np.array(rows, dtype=float)
    known, seconds = table[:, :2], table[:, 2]
    if np.linalg.matrix_rank(known) < 2:
        known[:, 0] = 0.0
    a, b = nnls(known, seconds)[0]
    return float(a), float(b)


def _device_name(on_gpu: bool, task: TrajectoryTask) -> str:
    if on_gpu:
        return str(torch.cuda.get_device_name())
    return f"CPU, {task.compute.cpus_per_trial} thread{'' if task.compute.cpus_per_trial == 1 else 's'}"


def _peak_bytes(on_gpu: bool) -> int:
    """Peak bytes of tensors on the GPU, or of this process (earlier work included)."""
    if on_gpu:
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
