"""For `transformers.TrainingArguments(**yaml)`, and `peft.LoraConfig(**yaml)` with an adapter."""

from collections.abc import Mapping
from typing import Any

from sweeper.export.header import header
from sweeper.export.job import (
    ExportJob,
    adapter_fields,
    dump,
    has_adapter,
    is_quantized,
    loaded_dtype,
)
from sweeper.task import ADAMW

COPIED = (
    "learning_rate",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
)
"""Hyperparameters that have the same name on both sides."""


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.transformers.yaml`, with an adapter `.lora.yaml`, with QLoRA `.quantization.yaml` as well."""
    target = "transformers.TrainingArguments(**yaml)"
    found = {f"{job.stem}.transformers.yaml": header(job, target) + dump(arguments(job))}
    if has_adapter(job.config):
        adapter = adapter_fields(job.config)
        found[f"{job.stem}.lora.yaml"] = header(job, "peft.LoraConfig(**yaml)") + dump(adapter)
    if is_quantized(job.config):
        target = (
            "transformers.BitsAndBytesConfig(**yaml), the quantization_config of from_pretrained"
        )
        found[f"{job.stem}.quantization.yaml"] = header(job, target) + dump(
            quantization(job.config)
        )
    return found


def quantization(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `transformers.BitsAndBytesConfig`."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": loaded_dtype(config),
    }


def arguments(job: ExportJob) -> dict[str, Any]:
    """Fields of `transformers.TrainingArguments`.

    `bf16` is autocast, hence on for `mixed_bf16` alone: the dtype of the weights is that of the loaded
    model, which the header names. Gradient checkpointing is always set, since TRL enables it by default.
    No checkpoints are saved, because they would contain weights that are not averaged.
    """
    values = {
        "output_dir": job.stem,
        "per_device_train_batch_size": job.split.per_device,
        "gradient_accumulation_steps": job.split.accumulation,
        **{name: job.config[name] for name in COPIED},
    }
    if job.config["lr_scheduler_type"] == "warmup_stable_decay":
        values["lr_scheduler_kwargs"] = {"num_decay_steps": job.config["decay_steps"]}
    return {
        **values,
        "optim": job.config.get("optim", ADAMW),
        "bf16": job.config["dtype"] == "mixed_bf16",
        "fp16": False,
        "gradient_checkpointing": job.spec.compute.gradient_checkpointing,
        "seed": job.candidate.seeds[0],
        "save_strategy": "no",
        "report_to": "none",
    }
