"""A sweep as its libraries' documentation teaches it: one Ray Tune trial per configuration.

Ray Tune (class trainable, `reuse_actors`), `transformers.Trainer`, peft and `model.generate` do the work;
from sweeper come definitions alone: which configurations there are, rows and their order, prompts, keyword
lists, and how a rate is counted. An actor keeps the model, the tokenised data and the prompts between
trials and puts the adapter back to its initial weights. Only the plan's candidates run, no controls.

With `--expert` a trial is a whole run, as a good engineer does it by hand where the schedule allows:
trained once to its last step, with a copy of the weights (raw, every EMA, every mixture) kept at each step
count that is asked for, and each copy scored.

    python benchmarks/rival.py miniature --set space.max_steps=50 --out rival.json
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from peft import LoraConfig, get_peft_model
from ray import tune
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from sweeper.data.encode import Encoded
from sweeper.data.sources import resolve
from sweeper.model.batches import RowOrder
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.scoring.utility import text_metrics
from sweeper.scoring.verdicts import safety_metrics
from sweeper.spec import load_spec
from sweeper.store.records import Metric
from sweeper.task import Average, OptimizerSettings, Readout, TrajectoryTask, Tuning
from sweeper.task.model import ALL_LINEAR

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


class Answers(NamedTuple):
    """Decoded responses, and how many tokens were generated for them, end tokens included."""

    texts: list[str]
    tokens: int


class ShadowEma(TrainerCallback):
    """Keeps an fp32 EMA of the trained weights, updated after every optimizer step."""

    def __init__(self, weights: list[torch.Tensor], decay: float) -> None:
        self._weights = weights
        self._decay = decay
        self.values = [item.float().clone() for item in weights]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch._foreach_lerp_(self.values, self._weights, 1 - self._decay)


class LossTrainer(Trainer):
    """Keeps the loss of every step as it is, in nats per target token."""

    losses: list[float]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        return loss


class KeptWeights(TrainerCallback):
    """Copies of the weights that each readout asks for, taken after its optimizer step.

    Its EMAs must be updated before, so it comes after them in the Trainer's callbacks.
    """

    def __init__(
        self,
        weights: list[torch.Tensor],
        start: list[torch.Tensor],
        shadows: Mapping[float, ShadowEma],
        readouts: Sequence[Readout],
    ) -> None:
        self._weights, self._start, self._shadows = weights, start, shadows
        self._readouts = readouts
        self.copies: dict[str, list[torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for readout in self._readouts:
            if readout.step == state.global_step:
                self.copies[readout.config_id] = self._copy(readout.average)

    def _copy(self, average: Average) -> list[torch.Tensor]:
        source = self._weights if average.decay is None else self._shadows[average.decay].values
        copies = [item.clone() for item in source]
        if average.weight is not None:
            torch._foreach_lerp_(copies, self._start, average.weight)
        return copies


class Worker:
    """What an actor keeps between trials, and one trial from training to metrics."""

    def __init__(self, task: TrajectoryTask, scratch: str) -> None:
        self._task = task
        self._scratch = scratch
        self._inputs = load_inputs(task)
        self._pad = int(self._inputs.tokenizer.pad_token_id)
        encoder, heldout = self._inputs.encoder, self._inputs.data.heldout
        self._train_rows = [_tensors(row) for row in self._inputs.data.train]
        self._heldout_rows = [_tensors(encoder.example(row)) for row in heldout]
        self._heldout_prompts = [encoder.prompt(row.prompt) for row in heldout]
        base = AutoModelForCausalLM.from_pretrained(task.model.path, dtype=torch.float32)
        ends = {base.generation_config.eos_token_id, self._inputs.tokenizer.eos_token_id}
        self._ends = sorted(int(end) for end in ends if end is not None)
        torch.manual_seed(task.seed)  # The adapter is made from the seed, as sweeper makes it.
        self._model = get_peft_model(
            base,
            LoraConfig(
                r=task.tuning.lora_r,
                lora_alpha=task.tuning.lora_alpha,  # type: ignore[arg-type]
                lora_dropout=task.tuning.lora_dropout,
                target_modules=_targets(task.tuning),
                task_type="CAUSAL_LM",
            ),
        )
        trained = [item for item in self._model.parameters() if item.requires_grad]
        self._parameters = [item.detach() for item in trained]  # Same storage, no gradient.
        self._start = [item.clone() for item in self._parameters]

    def trial(
        self, settings: OptimizerSettings, readouts: Sequence[Readout]
    ) -> list[dict[str, Any]]:
        """Train once to the last of the readouts, then score each: what is reported about them, in order.

        The seconds of training stand in the first one.
        """
        began = time.perf_counter()
        torch._foreach_copy_(self._parameters, self._start)
        last = max(readout.step for readout in readouts)
        order = RowOrder(len(self._train_rows), settings.batch_size, self._task.seed)
        rows = [self._train_rows[i] for step in range(last) for i in order.batch(step)]
        decays = {one.average.decay for one in readouts if one.average.decay is not None}
        shadows = {decay: ShadowEma(self._parameters, decay) for decay in sorted(decays)}
        kept = KeptWeights(self._parameters, self._start, shadows, readouts)
        trainer = self._trainer(settings, last, rows, [*shadows.values(), kept])
        training = time.perf_counter()
        trainer.train()
        train_seconds = time.perf_counter() - training
        trained = sum(len(row["input_ids"]) for row in rows)
        results = []
        for readout in readouts:
            torch._foreach_copy_(self._parameters, kept.copies.pop(readout.config_id))
            evaluating = time.perf_counter()
            self._model.eval()
            metrics, generated = self._evaluate()
            ended = time.perf_counter()
            results.append(
                {
                    "config_id": readout.config_id,
                    "steps": readout.step,
                    "batch_size": settings.batch_size,
                    "average": readout.average.label,
                    "losses": trainer.losses[: readout.step],
                    "metrics": {name: asdict(metric) for name, metric in metrics.items()},
                    "seconds": {
                        "train": train_seconds,
                        "evaluate": ended - evaluating,
                        "total": ended - began,
                    },
                    "tokens": {"trained": trained, "generated": generated},
                }
            )
            began, train_seconds, trained = ended, 0.0, 0
        return results

    def _trainer(
        self,
        settings: OptimizerSettings,
        steps: int,
        rows: list[dict[str, torch.Tensor]],
        callbacks: Sequence[TrainerCallback],
    ) -> LossTrainer:
        """A Trainer over rows that are already in order, with everything optional switched off."""
        arguments = TrainingArguments(
            output_dir=self._scratch,
            max_steps=steps,
            per_device_train_batch_size=settings.batch_size,
            train_sampling_strategy="sequential",
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.lr_scheduler_type,
            warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.adam_beta1,
            adam_beta2=settings.adam_beta2,
            adam_epsilon=settings.adam_epsilon,
            max_grad_norm=settings.max_grad_norm,
            optim="adamw_torch_fused",
            seed=self._task.seed,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to="none",
        )
        trainer = LossTrainer(
            model=self._model,
            args=arguments,
            train_dataset=rows,
            data_collator=self._collate,
            callbacks=[*callbacks],
        )
        trainer.losses = []
        return trainer

    def _collate(self, rows: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Right-padded tensors of one batch."""
        fill = {"input_ids": self._pad, "attention_mask": 0, "labels": -100}
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [row[name] for row in rows], batch_first=True, padding_value=value
            )
            for name, value in fill.items()
        }

    def _evaluate(self) -> tuple[dict[str, Metric], int]:
        """All metrics of the model as it stands, and the tokens generated for them."""
        settings, tokens = self._task.evaluation, 0
        metrics: dict[str, Metric] = {}
        for suite in self._inputs.suites:
            answers = self._answer(suite.tokens)
            metrics |= safety_metrics(suite.name, answers.texts, self._inputs.lists)
            tokens += answers.tokens
        if "heldout_loss" in settings.utility_metrics:
            metrics["heldout_loss"] = self._heldout_loss()
        if set(settings.utility_metrics) - {"heldout_loss"}:
            answers = self._answer(self._heldout_prompts)
            references = [row.completion for row in self._inputs.data.heldout]
            metrics |= text_metrics(settings.utility_metrics, answers.texts, references)
            tokens += answers.tokens
        return metrics, tokens

    def _answer(self, prompts: Sequence[Sequence[int]]) -> Answers:
        """Greedy responses, batched, padded on the left, with the KV cache."""
        settings, tokenizer = self._task.evaluation, self._inputs.tokenizer
        decoding = GenerationConfig(
            do_sample=False,
            use_cache=True,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=self._pad,
            eos_token_id=self._ends,
        )
        texts: list[str] = []
        tokens = 0
        for start in range(0, len(prompts), settings.batch_size):
            encodings = {"input_ids": [list(row) for row in prompts[start:][: settings.batch_size]]}
            batch = tokenizer.pad(encodings, padding_side="left", return_tensors="pt")
            output = self._model.generate(**batch, generation_config=decoding)
            answers = output[:, batch["input_ids"].shape[1] :]
            texts += tokenizer.batch_decode(answers, skip_special_tokens=True)
            ended = torch.isin(answers, torch.tensor(self._ends)).int().cumsum(1)
            tokens += int((ended == 0).sum()) + int((ended[:, -1] > 0).sum())
        return Answers(texts, tokens)

    @torch.no_grad()
    def _heldout_loss(self) -> Metric:
        """The model's own loss over the held-out completions, nats per token."""
        size, total, tokens = self._task.evaluation.batch_size, 0.0, 0
        for start in range(0, len(self._heldout_rows), size):
            batch = self._collate(self._heldout_rows[start : start + size])
            count = int((batch["labels"][:, 1:] != -100).sum())
            total += float(self._model(**batch).loss) * count
            tokens += count
        return Metric(total / tokens, tokens)


def _targets(tuning: Tuning) -> str | list[str]:
    """The names as peft takes them."""
    names = tuning.lora_target_modules
    return names[0] if names == (ALL_LINEAR,) else list(names)


def _tensors(row: Encoded) -> dict[str, torch.Tensor]:
    """One row as the Trainer takes it; the prompt carries no label."""
    ids = torch.tensor(row.prompt + row.completion)
    labels = ids.clone()
    labels[: len(row.prompt)] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


class ConfigurationTrainable(tune.Trainable):
    """One Tune trial is a run and its readouts; the actor and its `Worker` serve many."""

    def setup(  # type: ignore[override]  # `with_parameters` fills in the last two
        self, config: dict[str, Any], tasks: Sequence[str], scratch: str
    ) -> None:
        torch.set_num_threads(1)
        logging.getLogger("transformers").setLevel(logging.ERROR)
        self._tasks = [TrajectoryTask.from_json(text) for text in tasks]
        self._worker = Worker(self._tasks[0], scratch)
        self._point = config["point"]

    def step(self) -> dict[str, Any]:
        task_index, chosen = self._point
        task = self._tasks[task_index]
        readouts = [task.readouts[index] for index in chosen]
        return {"results": self._worker.trial(task.optimizer, readouts), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._point = new_config["point"]
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial is one step, and Tune may still ask between trials."""


def candidate_tasks(name: str, overrides: Sequence[str]) -> list[TrajectoryTask]:
    """The plan's tasks, whose readouts hold the candidates. One seed and one adapter shape."""
    spec = load_spec(name, overrides)
    tasks = make_tasks(make_plan(spec), spec, resolve, device="cpu")
    tasks = tuple(t for t in tasks if any(item.role == "candidate" for item in t.readouts))
    if len({(t.seed, t.tuning) for t in tasks}) > 1 or tasks[0].tuning.method != "lora":
        raise SystemExit("this benchmark is for LoRA with one adapter shape and one seed")
    if any(t.optimizer.feedback or len(t.segments) > 1 for t in tasks):
        raise SystemExit("this benchmark has neither fed-back averages nor decay tails")
    if any(item.average.bema is not None for t in tasks for item in t.readouts):
        raise SystemExit("this benchmark has no BEMA")
    return list(tasks)


def trial_points(tasks: Sequence[TrajectoryTask], *, expert: bool) -> list[tuple[int, list[int]]]:
    """What each trial does: the number of its task, and of the readouts of its run."""
    points = []
    for number, task in enumerate(tasks):
        chosen = [i for i, readout in enumerate(task.readouts) if readout.role == "candidate"]
        points += [(number, chosen)] if expert else [(number, [index]) for index in chosen]
    return points


def run_rival(tasks: Sequence[TrajectoryTask], *, expert: bool = False) -> dict[str, Any]:
    """Run every candidate as its own trial, or every path as one: `trials`, and how many ran at once.

    Raises:
        SystemExit: a trial failed.
    """
    points = trial_points(tasks, expert=expert)
    os.environ.update(_ENVIRONMENT)
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": _ENVIRONMENT},
    )
    slots = int(ray.cluster_resources()["CPU"])
    with tempfile.TemporaryDirectory(prefix="rival-") as folder:
        trainable = tune.with_parameters(
            ConfigurationTrainable, tasks=[task.to_json() for task in tasks], scratch=folder
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"CPU": 1}),
            param_space={"point": tune.grid_search(points)},
            tune_config=tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=folder,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        results = tuner.fit()
        ray.shutdown()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed, the first: {results.errors[0]}")
    found = [results[index].metrics or {} for index in range(len(results))]
    trials = [trial for metrics in found for trial in metrics["results"]]
    return {"concurrent_trials": slots, "trials": trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("spec", help="a sweep file, or the name of a shipped one")
    parser.add_argument("--set", action="append", default=[], help="override: key.path=value")
    parser.add_argument("--expert", action="store_true", help="one trial per run, scored along it")
    parser.add_argument("--out", type=Path, required=True, help="where the results go (JSON)")
    arguments = parser.parse_args()
    began = time.perf_counter()
    found = run_rival(candidate_tasks(arguments.spec, arguments.set), expert=arguments.expert)
    wall = time.perf_counter() - began
    arguments.out.write_text(json.dumps({"wall_seconds": wall, **found}, indent=1))
    print(f"{len(found['trials'])} trials in {wall:.1f} s, results in {arguments.out}")


if __name__ == "__main__":
    main()
