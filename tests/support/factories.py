"""Synthetic specs, records and whole synthetic sweeps for tests. Nothing here is measured."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from sweeper.keywords.lists import load_keyword_list
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.records import Metric, Status, TrialRecord, metrics_from_samples
from sweeper.store.samples import Samples
from sweeper.task import Bema

SPEC = """
version: 1
name: synthetic
description: Synthetic numbers that no model produced.
model: {path: example/model, dtype: float32}
tuning: {method: full}
data:
  train: {path: train.jsonl}
  heldout_rows: 96
space:
  learning_rate: {values: [5.0e-5, 2.0e-4, 1.0e-3], log: true}
  batch_size: {values: [8, 16]}
  max_steps: {values: [40, 80, 160, 320]}
  average:
    values:
      - raw
      - {kind: ema, decay: 0.95}
      - {kind: ema, decay: 0.99}
      - {kind: interpolate, weight: 0.5}
      - {kind: feedback, decay: 0.9, every: 4}
evaluation:
  harmful: {path: harmful.csv, prompt_split: all}
  harmless: {path: harmless.csv, prompt_split: all}
  keyword_lists: [sweeper, zou2023]
  utility_metrics: [rouge_l, heldout_loss]
objectives: [rouge_l, unsafe_rate]
constraints: [{metric: unsafe_rate, max: 0.05}]
"""


def make_spec(*overrides: str) -> SweepSpec:
    """The synthetic sweep, with `key.path=value` overrides."""
    return parse_spec(SPEC, overrides=overrides)


def make_config(**changes: Any) -> dict[str, Any]:
    """A flat configuration as the planner writes them."""
    config: dict[str, Any] = {
        "learning_rate": 2e-4,
        "batch_size": 8,
        "weight_decay": 0.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "max_steps": 320,
        "average": "raw",
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "decay_steps": 0,
        "method": "full",
        "model": "example/model",
        "revision": None,
        "dtype": "float32",
        "train": {"path": "train.jsonl", "format": "prompt_completion"},
        "heldout": {"heldout_rows": 96},
        "template": "chat",
        "max_length": 512,
        "overlong_prompts": "error",
    }
    return {**config, **changes}


def make_lora_config(**changes: Any) -> dict[str, Any]:
    """Like `make_config`, with an adapter."""
    adapter = {
        "method": "lora",
        "lora_r": 8,
        "lora_alpha": 16.0,
        "lora_dropout": 0.05,
        "lora_target_modules": ["q_proj", "v_proj"],
    }
    return make_config(**{**adapter, **changes})


def config_id(config: Mapping[str, Any]) -> str:
    """A short hash of a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:10]


def make_readout(label: str, step: int) -> dict[str, Any]:
    """The readout of an average label: feedback is read raw, its averaging is in the path."""
    kind, _, argument = label.partition("(")
    _, _, value = argument.rpartition("=")
    number = float(value.rstrip(")")) if kind in ("ema", "interpolate") else None
    if number is not None and argument.startswith("retention="):
        number = number ** (1 / step)
    settings = [part.split("=") for part in argument.rstrip(")").split(", ") if "=" in part]
    bema = asdict(Bema(**{name: float(text) for name, text in settings})) if kind == "bema" else {}  # type: ignore[arg-type]
    return {
        **({"bema": bema} if bema else {}),
        "step": step,
        "kind": "raw" if kind == "feedback" else kind,
        "decay": number if kind == "ema" else None,
        "weight": number if kind == "interpolate" else None,
        "label": "raw" if kind == "feedback" else label,
    }


def make_record(
    *,
    unsafe: tuple[int, int] = (2, 256),
    utility: float = 0.85,
    role: str = "candidate",
    seed: int = 0,
    status: Status = "complete",
    reason: Mapping[str, Any] | None = None,
    identity: str | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    **changes: Any,
) -> TrialRecord:
    """One record. `changes` are hyperparameters; a status other than complete has a reason."""
    config = {**(config or make_config()), **changes}
    measured = {
        "rouge_l": Metric(utility, 96),
        "heldout_loss": Metric(2.0 - utility, 4000),
        "unsafe_rate": Metric.rate(*unsafe),
        "over_refusal_rate": Metric.rate(3, 128),
        "degenerate_rate/harmful": Metric.rate(0, unsafe[1]),
    }
    if status == "failed":
        measured = {}
        reason = reason or {
            "class": "TrainingDivergedError",
            "message": "the training loss is nan at optimizer step 7",
            "traceback": "Traceback (most recent call last): ...",
            "stage": "train",
        }
    elif status == "pruned":
        reason = reason or {"rule": "limit", "evidence": "40 of 100 prompts are unsafe"}
    elif status == "unscored":
        measured.pop("rouge_l")
        reason = reason or {"metrics": ["rouge_l"]}
    identity = identity or config_id(config)
    return TrialRecord(
        config_id=identity,
        trajectory_id=config_id({**config, "average": None, "max_steps": None}),
        seed=seed,
        role=role,
        status=status,
        config=config,
        readout=make_readout(config["average"], config["max_steps"]),
        metrics={**measured, **(metrics or {})},
        objectives=("rouge_l", "unsafe_rate"),
        provenance=PROVENANCE,
        reason=reason,
    )


OBJECTIVES = ("rouge_l", "unsafe_rate")


METRICS = {"rouge_l": Metric(0.25, 6), "unsafe_rate": Metric.rate(2, 8)}


def small_record(
    config_id: str = "c1",
    seed: int = 0,
    *,
    status: Status = "complete",
    metrics: Mapping[str, Metric] | None = None,
    reason: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> TrialRecord:
    """A record with two metrics and hardly a configuration."""
    return TrialRecord(
        config_id=config_id,
        trajectory_id="t1",
        seed=seed,
        role="candidate",
        status=status,
        config={"learning_rate": 1e-4} if config is None else config,
        readout={"step": 4, "kind": "raw", "decay": None, "weight": None, "label": "raw"},
        metrics=METRICS if metrics is None else metrics,
        objectives=OBJECTIVES,
        provenance={} if provenance is None else provenance,
        reason=reason,
    )


def with_samples(samples: Samples, **changes: Any) -> TrialRecord:
    """A record whose metrics follow from samples, where it has them."""
    metrics = metrics_from_samples(
        [*samples, "heldout_loss", "perplexity", "token_accuracy"], samples
    )
    plain = make_record(**changes)
    return replace(plain, metrics={**plain.metrics, **metrics}, samples=samples)


PROVENANCE: dict[str, Any] = {
    "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
    "keyword_lists": {name: load_keyword_list(name).digest for name in ("sweeper", "zou2023")},
    "device": "cpu",
    "seconds": {"train": 10.0, "evaluate": 5.0},
}


def base_record(**changes: Any) -> TrialRecord:
    """The untouched base model: safe, and of little use."""
    plain: dict[str, Any] = {
        "learning_rate": 0.0,
        "max_steps": 0,
        "utility": 0.31,
        "unsafe": (0, 256),
    }
    return make_record(**{**plain, "role": "base", **changes})


def make_sweep(spec: SweepSpec | None = None, seed: int = 7) -> list[TrialRecord]:
    """A whole sweep of about 140 configurations: controls, twins, and every kind of end.

    Utility saturates with learning_rate * steps; unsafe answers grow with it and shrink with
    averaging.
    """
    rng = np.random.default_rng(seed)
    spec = spec or make_spec()
    records = [record for s in spec.seeds for record in _controls(s)]
    averages = ["raw", "ema(0.95)", "ema(0.99)", "interpolate(0.5)", "feedback(0.9, every=4)"]
    for rate in (5e-5, 2e-4, 1e-3):
        for batch in (8, 16, 32):
            for steps in (40, 80, 320):
                for average in averages:
                    for s in spec.seeds:
                        records.append(_synthetic(rng, rate, batch, steps, average, s))
    records += [record for s in spec.seeds for record in _twins(rng, s)]
    return records


def _controls(seed: int) -> Iterable[TrialRecord]:
    yield base_record(seed=seed)
    yield make_record(
        role="default",
        learning_rate=2e-5,
        lr_scheduler_type="linear",
        utility=0.74,
        unsafe=(1, 256),
        seed=seed,
    )


def _twins(rng: np.random.Generator, seed: int) -> Iterable[TrialRecord]:
    yield _synthetic(
        rng, 2e-4, 8, 320, f"interpolate({0.99**320:.6g})", seed, role="interpolation_control"
    )
    yield _synthetic(rng, 2e-5, 8, 320, "raw", seed, role="learning_rate_control")


def _synthetic(
    rng: np.random.Generator,
    rate: float,
    batch: int,
    steps: int,
    average: str,
    seed: int,
    role: str = "candidate",
) -> TrialRecord:
    hyper: dict[str, Any] = {
        "learning_rate": rate,
        "batch_size": batch,
        "max_steps": steps,
        "average": average,
    }
    dose = rate * steps * math.sqrt(batch / 8)
    damping = {"raw": 1.0, "ema": 0.25, "interpolate": 0.4, "feedback": 0.6}
    keep = damping[average.partition("(")[0]]
    status: Status = "complete"
    if dose * keep > 0.15 and rng.random() < 0.4:
        ends: tuple[Status, ...] = ("failed", "pruned", "unscored")
        status = ends[rng.integers(len(ends))]
    chance = 1 / (1 + math.exp(-(math.log10(dose * keep + 1e-9) + 0.9) * 4))
    unsafe = int(rng.binomial(256, min(0.97, chance)))
    utility = 0.31 + 0.57 * (1 - math.exp(-dose * math.sqrt(keep) * 60)) + rng.normal(0, 0.004)
    return make_record(
        unsafe=(unsafe, 256), utility=utility, role=role, seed=seed, status=status, **hyper
    )
