"""The training loop against `transformers.Trainer` and TRL's `SFTTrainer`: losses and final weights.

The same rows in the same order, the same start, the same settings: 30 steps of batch 8 on Alpaca rows with
warm-up, linear decay, clipping and weight decay. Ours is a whole trial (`run_trajectory`) with its final
checkpoint. The Trainer is given our tokens, TRL the text of the rows (but see `sft_rows`).

    python benchmarks/parity.py [--rows alpaca.json] [--out benchmarks/results/parity.json]
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from datasets import Dataset, disable_progress_bars
from parity_world import ROWS, STEPS, World, build, encoded_rows, spec_of, task_of
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from sweeper.model.adapters import PARTS, new_adapter
from sweeper.model.load import load_model, load_tokenizer
from sweeper.store.folder import TrialStorage
from sweeper.store.provenance import git_commit, package_versions
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory
from sweeper.trial.texts import ordered_rows

CPU = torch.device("cpu")
LOSS_BOUND = 1e-5
"""Relative, per step, in fp32."""

WEIGHTS_BOUND = 1e-5
"""|ours - theirs| / |theirs - start| over all trained weights, in fp32: what differs of the way walked."""

TUNINGS = {
    "full": ("tuning={method: full}", "space.learning_rate=1e-3"),
    "LoRA": (
        "tuning={method: lora, lora_r: 8, lora_target_modules: [q_proj, v_proj]}",
        "space.learning_rate=1e-2",
    ),
    "DoRA": (
        "tuning={method: lora, lora_r: 4, lora_target_modules: all-linear, use_dora: true, "
        "use_rslora: true}",
        "space.learning_rate=4e-3",
    ),
}

Rival = Literal[
    "Trainer",
    "SFTTrainer",
    "Trainer, base in fp32",
    "Trainer, mean of micro-batches",
    "sweeper, not accumulated",
]


class Case(NamedTuple):
    """One comparison; `accumulation` micro-batches make one optimizer step."""

    tuning: str
    dtype: str
    accumulation: int
    rival: Rival


class Training(NamedTuple):
    """What a training leaves: the loss of each step, and all trained weights in one vector."""

    losses: list[float]
    weights: torch.Tensor


class Outcome(NamedTuple):
    """Largest relative difference of a loss; |difference| of the weights over theirs, and over the way."""

    tuning: str
    dtype: str
    accumulation: int
    rival: Rival
    loss: float
    weights: float
    way: float
    first_loss: float
    last_loss: float


CASES = (
    *(
        Case(tuning, "float32", accumulation, rival)
        for tuning in ("full", "LoRA")
        for accumulation in (1, 4)
        for rival in ("Trainer", "SFTTrainer")
    ),
    Case("DoRA", "float32", 4, "Trainer"),
    Case("DoRA", "float32", 4, "SFTTrainer"),
    *(
        Case(tuning, "mixed_bf16", accumulation, rival)
        for tuning in ("full", "LoRA")
        for accumulation in (1, 4)
        for rival in ("Trainer", "SFTTrainer")
    ),
    Case("LoRA", "mixed_bf16", 1, "Trainer, base in fp32"),
    *(Case(tuning, "mixed_bf16", 4, "sweeper, not accumulated") for tuning in ("full", "LoRA")),
)
WRONG = tuple(
    Case(tuning, "float32", 4, "Trainer, mean of micro-batches") for tuning in ("full", "LoRA")
)
"""How far off it is to average micro-batches instead of tokens: what the bounds tell apart.

`sweeper, not accumulated` says how far a path in bf16 is from itself when its sums are merely ordered
otherwise.
"""


def task_for(world: World, case: Case) -> TrajectoryTask:
    """The trial of a case."""
    changes = [*TUNINGS[case.tuning], f"model.dtype={case.dtype}"]
    task = task_of(spec_of(world, *changes))
    size = task.optimizer.batch_size // case.accumulation
    return replace(task, compute=replace(task.compute, micro_batch_size=size))


@lru_cache(maxsize=4)
def ours(world: World, tuning: str, dtype: str, accumulation: int) -> Training:
    """A whole trial, read from its last checkpoint."""
    task = task_for(world, Case(tuning, dtype, accumulation, "Trainer"))
    with tempfile.TemporaryDirectory() as folder:
        storage = TrialStorage(Path(folder), task.trajectory_id)
        (record,) = run_trajectory(task, storage)
        assert record.status == "complete", record.reason
        state = load_file(storage.checkpoint)
    count = sum(name.startswith("parameter.") for name in state)
    return Training(state["losses"].tolist(), flat([state[f"parameter.{i}"] for i in range(count)]))


def flat(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """All of them in one fp64 vector."""
    return torch.cat([value.detach().double().flatten() for value in weights])


def trained_weights(model: Any, tuning: str) -> list[torch.Tensor]:
    """The trained weights of a rival's model in the order of our checkpoint."""
    if tuning == "full":
        return list(model.parameters())
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    parts = [getattr(layer, part) for layer in layers for part in PARTS]
    return [part["default"].weight for part in parts if "default" in part]


def starting_weights(task: TrajectoryTask) -> torch.Tensor:
    """Those of a trial."""
    lora = task.tuning.method == "lora"
    model = load_model(task.model, CPU, frozen=lora)
    if not lora:
        return flat(list(model.parameters()))
    return flat(list(new_adapter(model, task.tuning, task.seed).parameters().values()))


class Recorded:
    """Keeps the unrounded loss of every micro-batch."""

    seen: list[float]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.seen.append(float(loss))
        return loss


class RecordedTrainer(Recorded, Trainer):
    """`transformers.Trainer`."""


class RecordedSft(Recorded, SFTTrainer):
    """TRL's `SFTTrainer`."""


def theirs(task: TrajectoryTask, case: Case, folder: Path) -> tuple[Training, torch.Tensor]:
    """A rival's training, and the weights it started from."""
    lora = task.tuning.method == "lora"
    model: Any = load_model(task.model, CPU, frozen=lora and case.rival != "Trainer, base in fp32")
    if lora:
        torch.manual_seed(task.seed)
        tuning = task.tuning
        config = LoraConfig(
            r=tuning.lora_r,
            lora_alpha=tuning.lora_alpha,  # type: ignore[arg-type]
            lora_dropout=tuning.lora_dropout,
            target_modules="all-linear" if case.tuning == "DoRA" else [*tuning.lora_target_modules],
            use_rslora=tuning.use_rslora,
            use_dora=tuning.use_dora,
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, config)
    trainer = trainer_of(task, case, folder, model)
    start = flat(trained_weights(model, case.tuning))
    trainer.seen = []
    trainer.train()
    count = case.accumulation
    parts = [trainer.seen[i : i + count] for i in range(0, len(trainer.seen), count)]
    end = flat(trained_weights(model, case.tuning))
    return Training([sum(part) for part in parts], end), start


def trainer_of(task: TrajectoryTask, case: Case, folder: Path, model: Any) -> Any:
    """The rival, ready to train on the rows of the trial in the trial's order."""
    settings, steps = task.optimizer, task.segments[-1].stop
    arguments: dict[str, Any] = {
        "output_dir": str(folder / "rival"),
        "per_device_train_batch_size": settings.batch_size // case.accumulation,
        "gradient_accumulation_steps": case.accumulation,
        "gradient_checkpointing": False,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler_type,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "bf16": case.dtype == "mixed_bf16",
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": task.seed,
    }
    if case.rival == "SFTTrainer":
        rows = sft_rows(task, steps)
        return RecordedSft(
            model=model,
            args=SFTConfig(
                **arguments,
                max_length=task.data.max_length,
                completion_only_loss="completion" in rows[0],
            ),
            train_dataset=Dataset.from_list(rows),
        )
    data = [
        {"ids": row.prompt + row.completion, "skip": len(row.prompt)}
        for row in encoded_rows(task, steps)
    ]
    trainer = RecordedTrainer(
        model=model,
        args=TrainingArguments(**arguments, remove_unused_columns=False),
        train_dataset=data,
        data_collator=padded,
    )
    if case.rival == "Trainer, mean of micro-batches":
        trainer.model_accepts_loss_kwargs = False
    return trainer


def sft_rows(task: TrajectoryTask, steps: int) -> list[dict[str, Any]]:
    """The rows for TRL: their text, or tokens as an export writes them where TRL would add an end token.

    It adds one to a text that does not end with it, as after the line break that ChatML puts behind.
    """
    rows, end = ordered_rows(task, steps), str(load_tokenizer(task.model).eos_token)
    if all(row.completion.endswith(end) for row in rows):
        return [{"prompt": row.prompt, "completion": row.completion} for row in rows]
    return [
        {
            "input_ids": [*row.prompt_ids, *row.completion_ids],
            "labels": [-100] * len(row.prompt_ids) + [*row.completion_ids],
        }
        for row in rows
    ]


def padded(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch as transformers' own collators make it: token 0 pads, prompts are no targets."""
    ids = [torch.tensor(row["ids"]) for row in rows]
    labels = [item.clone() for item in ids]
    for label, row in zip(labels, rows, strict=True):
        label[: row["skip"]] = -100
    fill = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": fill(ids, batch_first=True),
        "attention_mask": fill([torch.ones_like(item) for item in ids], batch_first=True),
        "labels": fill(labels, batch_first=True, padding_value=-100),
    }


def compare(world: World, case: Case) -> Outcome:
    """Train both ways."""
    task = task_for(world, case)
    mine = ours(world, case.tuning, case.dtype, case.accumulation)
    if case.rival == "sweeper, not accumulated":
        other, start = ours(world, case.tuning, case.dtype, 1), starting_weights(task)
    else:
        with tempfile.TemporaryDirectory() as folder:
            other, start = theirs(task, case, Path(folder))
    pairs = list(zip(mine.losses, other.losses, strict=True))
    apart = float((mine.weights - other.weights).norm())
    return Outcome(
        *case,
        loss=max(abs(a - b) / b for a, b in pairs),
        weights=apart / float(other.weights.norm()),
        way=apart / float((other.weights - start).norm()),
        first_loss=other.losses[0],
        last_loss=other.losses[-1],
    )


HEAD = (
    "tuning",
    "dtype",
    "accumulation",
    "against",
    "losses",
    "weights",
    "of the way",
    "loss from, to",
)


def table(found: Sequence[Outcome]) -> str:
    """The outcomes as Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for item in found:
        numbers = [f"{value:.1e}" for value in (item.loss, item.weights, item.way)]
        loss = f"{item.first_loss:.3f}, {item.last_loss:.3f}"
        cells = [item.tuning, item.dtype, f"{item.accumulation}", item.rival, *numbers, loss]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=Path, default=ROWS, help="Alpaca rows as JSON")
    parser.add_argument("--out", type=Path, help="also write the outcomes as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        world = build(Path(folder), given.rows)
        found = [compare(world, case) for case in (*CASES, *WRONG)]
    print(table(found))
    if given.out is not None:
        content = {
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": f"{len(os.sched_getaffinity(0))} cores, no GPU; one thread",
            "versions": {**package_versions(), "trl": version("trl")},
            "git_commit": git_commit(),
            "steps": STEPS,
            "bounds_fp32": {"loss": LOSS_BOUND, "way": WEIGHTS_BOUND},
            "outcomes": [item._asdict() for item in found],
        }
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
