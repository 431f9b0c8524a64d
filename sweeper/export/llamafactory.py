"""For LLaMA-Factory: `llamafactory-cli train`; with an average, a script that passes the callback."""

import json
from importlib import resources
from string import Template
from typing import Any

from sweeper.export.header import header
from sweeper.export.job import (
    CALLBACK_KEY,
    ExportJob,
    adapter_fields,
    dump,
    has_adapter,
    is_quantized,
    openable,
    whole_alpha,
)
from sweeper.export.transformers import arguments
from sweeper.task import ALL_LINEAR

_SCRIPT = "llamafactory_script.py.txt"
_METHODS = {"full": "full", "lora": "lora", "qlora": "lora"}
_QUANTIZED = {
    "quantization_bit": 4,
    "quantization_method": "bnb",
    "quantization_type": "nf4",
    "double_quantization": True,
}
_NOTE_FP32 = (
    "LLaMA-Factory loads a frozen model in the dtype of its checkpoint: where that is not float32, it "
    "computes in a lower precision than the sweep did."
)


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.llamafactory.yaml`, `dataset_info.json`, and where weights are averaged a script."""
    name, script = f"{job.stem}.llamafactory.yaml", f"{job.stem}.llamafactory.py"
    callback = (
        f"WITHOUT ema_callback.py THE NUMBERS DO NOT HOLD: run `python {script}`, which passes it"
    )
    averaged = job.averaging is not None
    command = f"python {script}" if averaged else f"llamafactory-cli train {name}"
    target = f"LLaMA-Factory: `{command}`, here"
    config = job.config
    unheld = config["dtype"] == "float32" and has_adapter(config)
    notes = (_NOTE_FP32,) if unheld else ()
    text = header(job, target, f"{callback}; `llamafactory-cli` cannot.", notes)
    guarded = values(job) | (CALLBACK_KEY if averaged else {})
    found = {name: text + dump(guarded), "dataset_info.json": _data_set(job)}
    if averaged:
        source = (resources.files("sweeper.export") / _SCRIPT).read_text(encoding="utf-8")
        found[script] = Template(source).substitute(
            header=header(job, "LLaMA-Factory", f"{callback}."), config=name, script=script
        )
    return found


def values(job: ExportJob) -> dict[str, Any]:
    """Arguments of LLaMA-Factory 0.9.5. Its `template: empty` leaves the exported rows as they are.

    `pure_bf16` keeps trained weights in bf16; otherwise they are cast to float32 whatever was loaded.
    """
    config, shared = job.config, arguments(job)
    del shared["gradient_checkpointing"]  # LLaMA-Factory has a switch, and a way, of its own.
    found: dict[str, Any] = {"model_name_or_path": openable(config["model"])}
    if config.get("revision"):
        found["model_revision"] = config["revision"]
    found |= {"stage": "sft", "do_train": True, "finetuning_type": _METHODS[config["method"]]}
    if has_adapter(config):
        found |= _adapter(adapter_fields(config))
    if is_quantized(config):
        found |= _QUANTIZED
    found |= {
        "dataset": job.stem,
        "dataset_dir": ".",
        "template": "empty",
        "cutoff_len": config["max_length"],
        "train_on_prompt": False,
        "packing": False,
        "disable_shuffling": True,
        **shared,
        "pure_bf16": config["dtype"] == "pure_bf16",
        "disable_gradient_checkpointing": not job.spec.compute.gradient_checkpointing,
    }
    if "attention" in config:
        found["flash_attn"] = "disabled" if config["attention"] == "eager" else config["attention"]
    return found


def _adapter(fields: dict[str, Any]) -> dict[str, Any]:
    targets = fields["target_modules"]
    return {
        "lora_rank": fields["r"],
        "lora_alpha": whole_alpha(fields["lora_alpha"]),
        "lora_dropout": fields["lora_dropout"],
        "lora_target": "all" if targets == ALL_LINEAR else ",".join(targets),
        "use_rslora": fields["use_rslora"],
        "use_dora": fields["use_dora"],
    }


def _data_set(job: ExportJob) -> str:
    columns = {"prompt": "prompt", "response": "completion"}
    entry = {"file_name": f"{job.stem}.rows.jsonl", "columns": columns}
    return json.dumps({job.stem: entry}, indent=2) + "\n"
