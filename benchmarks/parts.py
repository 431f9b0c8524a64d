"""Each part of the speed by itself: training loop, packs, early stop, scoring.

On the miniature, with one thread. Everything is a ratio of two measurements taken in turns in one process;
medians of several turns.

    python benchmarks/parts.py
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from statistics import median
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from sweeper.data.encode import Encoded
from sweeper.data.sources import resolve
from sweeper.memory import micro_batch_rows
from sweeper.model.adapters import Adapter, AdapterStack, new_adapter
from sweeper.model.batches import Batch, RowOrder, collate, micro_batches
from sweeper.model.load import load_model
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.scoring.score import Scorer, Scores
from sweeper.spec import load_spec
from sweeper.task import Segment, TrajectoryTask
from sweeper.trial.train import (
    PathTrainer,
    learning_rate_schedule,
    step_seed,
    step_together,
)

CPU = torch.device("cpu")
STEPS = 50
TURNS = 3
PACK_TARGETS = {4: 1.8, 8: 2.2}
"""Paths of a pack -> how many times the throughput of one path is wanted."""


class Row(NamedTuple):
    """One line of the table. `met` is None where there is no target."""

    name: str
    measured: str
    target: str
    met: bool | None


def tasks_of(spec: str, changes: Sequence[str] = ()) -> list[TrajectoryTask]:
    """The candidates' trajectories of a shipped sweep, with some `key.path=value` changed."""
    loaded = load_spec(spec, changes)
    tasks = make_tasks(make_plan(loaded), loaded, resolve, "cpu")
    return [task for task in tasks if task.readouts[0].role == "candidate"]


class Path:
    """Some trajectories of one batch size, trained side by side as a trial trains them."""

    def __init__(self, tasks: Sequence[TrajectoryTask]) -> None:
        first = tasks[0]
        self._inputs = load_inputs(first)
        self.model = load_model(first.model, CPU)
        lora = first.tuning.method == "lora"
        self.model.requires_grad_(not lora).train()
        self.tasks = tasks
        self._adapters: list[Adapter] = []
        if lora:
            self._adapters = [new_adapter(self.model, t.tuning, t.seed) for t in tasks]
            self._slots = AdapterStack(self.model, self._adapters[0].factors)
        own = [a.parameters() for a in self._adapters] or [dict(self.model.named_parameters())]
        self.walkers = [PathTrainer(p, t.optimizer, []) for p, t in zip(own, tasks, strict=True)]
        self._schedules = [
            learning_rate_schedule(t.optimizer, Segment(0, 1000, 1000)) for t in tasks
        ]
        self._order = RowOrder(len(self._inputs.data.train), first.optimizer.batch_size, first.seed)
        self._pad = int(self._inputs.tokenizer.pad_token_id)

    def rows(self, step: int) -> list[Encoded]:
        """The effective batch of a step."""
        return [self._inputs.data.train[i] for i in self._order.batch(step)]

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of a step; every path has the same rows."""
        task, paths, rows = self.tasks[0], len(self.tasks), self.rows(step)
        size = micro_batch_rows(len(rows), task.data.max_length, None, paths)
        return [collate([part] * paths, self._pad) for part in micro_batches(rows, size)]

    def load(self) -> None:
        """Put the adapters into their slots, if there are any."""
        if self._adapters:
            self._slots.load(self._adapters)

    def advance(self, steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
        """Take some steps; returns the seconds on a clock."""
        began = clock()
        for _ in range(steps):
            step = self.walkers[0].step
            torch.manual_seed(step_seed(self.tasks[0].seed, step))
            batches = self.batches(step)
            self.load()
            step_together(self.model, self.walkers, batches, self._schedules)
        return clock() - began


class _Recorded(Trainer):
    """Keeps the unrounded loss of every step."""

    seen: list[float]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.seen.append(float(loss))
        return loss


def trainer_run(task: TrajectoryTask, steps: int, folder: str) -> tuple[float, list[float]]:
    """`transformers.Trainer` on the same rows: seconds in `train()`, and the losses."""
    inputs = load_inputs(task)
    model: Any = load_model(task.model, CPU)
    if task.tuning.method == "lora":
        torch.manual_seed(task.seed)
        tuning = task.tuning
        model = get_peft_model(
            model,
            LoraConfig(
                r=tuning.lora_r,
                lora_alpha=tuning.lora_alpha,  # type: ignore[arg-type]
                target_modules=list(tuning.lora_target_modules),
                task_type="CAUSAL_LM",
            ),
        )
    order = RowOrder(len(inputs.data.train), task.optimizer.batch_size, task.seed)
    rows = [inputs.data.train[i] for step in range(steps) for i in order.batch(step)]
    data = [{"ids": row.prompt + row.completion, "skip": len(row.prompt)} for row in rows]
    settings = task.optimizer
    trainer = _Recorded(
        model=model,
        args=TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=settings.batch_size,
            max_steps=steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
            seed=task.seed,
        ),
        train_dataset=data,
        data_collator=lambda rows: _padded(rows, int(inputs.tokenizer.pad_token_id)),
    )
    trainer.seen = []
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began, trainer.seen


def _padded(rows: Sequence[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    ids = [torch.tensor(row["ids"]) for row in rows]
    labels = [item.clone() for item in ids]
    for label, row in zip(labels, rows, strict=True):
        label[: row["skip"]] = -100
    fill = torch.nn.utils.rnn.pad_sequence
    padded = fill(ids, batch_first=True, padding_value=pad)
    mask = fill([torch.ones_like(item) for item in ids], batch_first=True)
    return {
        "input_ids": padded,
        "attention_mask": mask,
        "labels": fill(labels, batch_first=True, padding_value=-100),
    }


def training_loop() -> list[Row]:
    """Tokens per second of one configuration against the Trainer's, and the losses of both."""
    rows = []
    for spec, kind in (("miniature", "LoRA"), ("miniature_full", "full")):
        for batch in (4, 16):
            task = next(t for t in tasks_of(spec) if t.optimizer.batch_size == batch)
            ours, theirs, worst = [], [], 0.0
            with tempfile.TemporaryDirectory() as folder:
                for _ in range(TURNS):
                    path = Path([task])
                    ours.append(path.advance(STEPS))
                    seconds, losses = trainer_run(task, STEPS, folder)
                    theirs.append(seconds)
                    pairs = zip(path.walkers[0].losses, losses, strict=True)
                    worst = max(abs(a - b) for a, b in pairs)
            ratio = median(theirs) / median(ours)
            name = f"training loop, {kind}, batch {batch}"
            rows.append(
                Row(f"{name}: tokens/s over Trainer's", f"{ratio:.2f}x", ">= 1", ratio >= 1)
            )
            rows.append(
                Row(f"{name}: losses differ by at most", f"{worst:.1e}", "<= 1e-5", worst <= 1e-5)
            )
    return rows


def packs() -> list[Row]:
    """Throughput per path of packs over one path's, and how far a packed adapter is from its solo run.

    In CPU seconds of the one thread, which a busy machine does not change.
    """
    rows = []
    for batch in (4, 16):
        tasks = [t for t in tasks_of("miniature") if t.optimizer.batch_size == batch]
        paths = {n: Path((tasks * 2)[:n]) for n in (1, 2, 4, 8)}
        for path in paths.values():
            path.advance(2)
        turns: dict[int, list[float]] = {n: [] for n in paths}
        for _ in range(TURNS):
            for n, path in paths.items():
                turns[n].append(path.advance(6, time.process_time) / n)
        for n in (2, 4, 8):
            gain = median(turns[1]) / median(turns[n])
            name, least = f"pack of {n}, batch {batch}: throughput over solo", PACK_TARGETS.get(n)
            target, met = ("", None) if least is None else (f">= {least}x", gain >= least)
            rows.append(Row(name, f"{gain:.2f}x", target, met))
    tasks = [t for t in tasks_of("miniature") if t.optimizer.batch_size == 4]
    together = Path(tasks)
    together.advance(STEPS)
    worst, equal = 0.0, 0
    for number, task in enumerate(tasks):
        alone = Path([task])
        alone.advance(STEPS)
        left, right = (
            torch.cat([p.detach().flatten() for p in w.parameters])
            for w in (together.walkers[number], alone.walkers[0])
        )
        worst = max(worst, float((left - right).norm() / right.norm()))
        equal += torch.equal(left, right)
    text = f"{worst:.1e}, {equal} of {len(tasks)} bit-equal"
    rows.append(Row("pack of 4: weights after 50 steps, relative", text, "<= 1e-6", worst <= 1e-6))
    return rows


def early_stop() -> list[Row]:
    """Tokens the aligned base model generates on the harmful suite, stopped early and in full."""
    task = tasks_of("miniature")[0]
    model = load_model(task.model, CPU)
    found: dict[bool, Scores] = {}
    for full in (False, True):
        evaluation = replace(
            task.evaluation,
            stop_generation_early=not full,
            harmless=(),
            utility_metrics=("heldout_loss",),
        )
        inputs = load_inputs(replace(task, evaluation=evaluation))
        (found[full],) = Scorer(inputs, evaluation, CPU).score(model)
    short, whole = found[False], found[True]
    verdicts = [[line["verdicts"] for line in scores.lines] for scores in (short, whole)]
    gain = whole.tokens_generated / short.tokens_generated
    same = verdicts[0] == verdicts[1] and len(verdicts[0]) == len(inputs.suites[0].prompts)
    tokens = f"{gain:.2f}x ({whole.tokens_generated:,} to {short.tokens_generated:,})"
    return [
        # No target: a short refusal is generated whole, because an answer may still follow it.
        Row("early stop: fewer tokens, harmful suite, base model", tokens, "", None),
        Row("early stop: verdicts and phrases equal to full decoding", f"{same}", "True", same),
    ]


def scoring() -> list[Row]:
    """Seconds per readout scored together over one at a time, and whether anything differs."""
    task = tasks_of("miniature")[0]
    inputs = load_inputs(task)
    model = load_model(task.model, CPU)
    adapters = [new_adapter(model, task.tuning, seed) for seed in range(12)]
    for number, adapter in enumerate(adapters):
        generator = torch.Generator().manual_seed(number)
        for _, up in adapter.factors.values():
            up.data.normal_(0, 0.01 * (number % 6), generator=generator)
    slots = AdapterStack(model, adapters[0].factors)
    scorer = Scorer(inputs, task.evaluation, CPU)

    def scored(chosen: Sequence[Adapter]) -> tuple[float, list[Scores]]:
        began = time.perf_counter()
        with slots.loaded(chosen, [None] * len(chosen)):
            result = scorer.score(model, slots, len(chosen))
        return time.perf_counter() - began, result

    single = [scored([adapter]) for adapter in adapters]
    seconds, together = min((scored(adapters) for _ in range(2)), key=lambda pair: pair[0])
    same = together == [scores for _, (scores,) in single]
    gain = sum(part for part, _ in single) / seconds
    return [
        Row("scoring 12 readouts at once over one at a time", f"{gain:.2f}x", "", None),
        Row("scoring at once: metrics and responses equal", f"{same}", "True", same),
    ]


PARTS: dict[str, Callable[[], list[Row]]] = {
    "training_loop": training_loop,
    "packs": packs,
    "early_stop": early_stop,
    "scoring": scoring,
}


def show(rows: Sequence[Row]) -> None:
    """The table."""
    width = max(len(row.name) for row in rows)
    for row in rows:
        met = "" if row.met is None else "met" if row.met else "MISSED"
        print(
            f"{row.name:<{width}}  {row.measured:>32}  {row.target:<8} {met}".rstrip(), flush=True
        )


def measure(names: Sequence[str] = tuple(PARTS)) -> list[Row]:
    """Run some parts in this process, on one thread."""
    torch.set_num_threads(1)
    rows = []
    for name in names:
        rows += PARTS[name]()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--out", type=FilePath, help="also write the rows as JSON")
    given = parser.parse_args()
    rows = measure(given.parts)
    show(rows)
    if given.out is not None:
        given.out.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
