"""Usual names: metrics with the direction that their name determines, and hyperparameters."""

import re
from typing import Literal, NamedTuple

from sweeper.metrics import Direction

Group = Literal["quality", "harm", "loss", "cost", "speed"]


class KnownMetric(NamedTuple):
    """What a name says of a metric.

    `unit` metrics are shares in [0, 1], or per cent. `low` and `high` are bounds of the others.
    """

    pattern: str
    group: Group
    direction: Direction
    unit: bool = False
    low: float | None = None
    high: float | None = None


_METRICS = (
    KnownMetric(r"over_?refus\w*|false_refus\w*", "harm", "minimize", unit=True),
    KnownMetric(
        r"unsafe|harmful|harmfulness|toxic|toxicity|asr|attack_success|jailbroken|strong_?reject",
        "harm",
        "minimize",
        unit=True,
    ),
    KnownMetric(r"forgetting", "harm", "minimize"),
    KnownMetric(r"error_rate|wer|cer", "quality", "minimize", unit=True),
    KnownMetric(
        r"(tokens?|samples?|steps?|it|requests?)_(per_)?s(ec|econd)?|throughput",
        "speed",
        "maximize",
        low=0,
    ),
    KnownMetric(r"perplexity|ppl", "loss", "minimize", low=1),
    KnownMetric(r"bits_per_byte|bpb|mae|mse|rmse", "loss", "minimize", low=0),
    KnownMetric(r"\w*loss|nll|cross_entropy|kl|kl_divergence", "loss", "minimize"),
    KnownMetric(
        r"accuracy|acc|acc_norm|exact_match|em|f1|precision|recall|rouge_?[12l]?(sum)?|bert_?score|meteor|"
        r"auc|auroc|pass_at_\d+|pass_\d+|win_?rate|bleu|sacrebleu|chrf\d*",
        "quality",
        "maximize",
        unit=True,
    ),
    KnownMetric(
        r"mmlu|mmlu_pro|gsm8k|hellaswag|arc_easy|arc_challenge|winogrande|truthfulqa|humaneval|mbpp|bbh|"
        r"ifeval|gpqa|piqa|boolq",
        "quality",
        "maximize",
        unit=True,
    ),
    KnownMetric(r"mt_bench", "quality", "maximize", low=1, high=10),
    KnownMetric(r"rewards?|elo", "quality", "maximize"),
    KnownMetric(
        r"memory|mem|vram|file_size|time|runtime|seconds|duration|latency|hours|elapsed|cost|energy|kwh|"
        r"flops|total_flos|usd|co2|emissions",
        "cost",
        "minimize",
        low=0,
    ),
)
"""The first that a name contains as whole words decides. Refusal rates are absent on purpose: on harmful
prompts more is better, on harmless ones less."""

_NO_METRIC = re.compile(
    r"_(std|stderr|stdev|ci|lower|upper|count|start|end|created|timestamp|date|version|refus\w*|clip)_"
)


def known_metric(name: str) -> KnownMetric | None:
    """What the name of a column says of it; None where it determines no direction."""
    plain = words_of(name)
    found = next((m for m in _METRICS if re.search(f"_({m.pattern})_", plain)), None)
    if found is not None and "over_?refus" in found.pattern:
        return found
    return None if _NO_METRIC.search(plain) else found


def words_of(name: str) -> str:
    """A name in lower case, its words between underscores: `_test_accuracy_`."""
    return f"_{re.sub(r'[^a-z0-9]+', '_', name.lower()).strip('_')}_"


ALIASES = {
    "lr": "learning_rate",
    "r": "lora_r",
    "rank": "lora_r",
    "lora_rank": "lora_r",
    "target_modules": "lora_target_modules",
    "wd": "weight_decay",
    "epochs": "num_epochs",
    "num_train_epochs": "num_epochs",
    "grad_norm_clip": "max_grad_norm",
    "lr_scheduler": "lr_scheduler_type",
    "bs": "batch_size",
}
"""Other names of a setting -> its name here."""

_SETTINGS = """adam_beta1 adam_beta2 adam_epsilon alpha attention_dropout batch_size beta bf16 bias bits
    data_seed dropout dtype epsilon fp16 freeze gamma gradient_accumulation_steps
    gradient_checkpointing group_by_length init_lora_weights kl_coef label_smoothing_factor layers
    load_in_4bit load_in_8bit lora_alpha lora_dropout lora_target_modules loss_type
    lr_scheduler_type max_length max_seq_length max_steps method mixture model model_id
    model_name model_name_or_path momentum neftune_noise_alpha num_epochs num_layers
    num_virtual_tokens optim optimizer optimizer_type packing peft_type
    per_device_train_batch_size poison_ratio pretrained rank_pattern safety_share scheduler
    target_modules task_type temperature template train_batch_size use_dora use_qalora use_rslora
    warmup_ratio warmup_steps weight_decay"""

SETTINGS = frozenset({*ALIASES, *ALIASES.values(), *_SETTINGS.split()})
"""Names of settings of Transformers, PEFT and TRL, and what sweeps usually vary."""

BLOCKS = frozenset(
    ("args", "arguments", "config", "configs", "hparams", "hyperparameters", "kwargs", "params")
)
"""Words in the name of a block of settings, such as `peft_config`."""

_DETAILS = re.compile(
    r"_(version|hash|commit|sha|created|date|timestamp|url|host|uuid|output_dir|run_name|logging_dir|wandb|"
    r"out_dir|auto_mapping|inference_mode|id_run|evals)_"
)


def is_setting(column: str) -> bool:
    """Whether a column is called like a setting, by its last key."""
    return re.split(r"[./]", column)[-1].lower() in SETTINGS


def is_in_settings(column: str) -> bool:
    """Whether a column lies in a block of settings and is none of its technical details."""
    *blocks, leaf = column.split(".")
    inside = any(BLOCKS.intersection(words_of(block).split("_")) for block in blocks)
    return inside and not _DETAILS.search(words_of(leaf))
