"""For TRL: a configuration for `trl sft --config`, which rejects unknown keys, and a script."""

import re
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
    loaded_dtype,
    openable,
    whole_alpha,
)
from sweeper.export.transformers import arguments
from sweeper.task import ALL_LINEAR

_SCRIPT = "trl_script.py.txt"
_QUANTIZED = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
_NOTE_BF16 = (
    "`trl sft` holds an adapter over weights in 4 bits in bf16, where the sweep and the script hold it in "
    "fp32: small updates round away and RESULTS MAY DIFFER."
)
_FP32 = """    for parameter in trainer.model.parameters():  # TRL casts adapters over 4 bits to bf16.
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
"""


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.trl.yaml`, and `<stem>.trl.py`, which trains it.

    The data set is chosen by the user: it needs prompt and completion columns, formatted with the training
    template in the header.
    """
    config = job.config
    values: dict[str, Any] = {"model_name_or_path": openable(config["model"])}
    if config.get("revision"):
        values["model_revision"] = config["revision"]
    values["dtype"] = loaded_dtype(config)
    if "attention" in config:
        values["attn_implementation"] = config["attention"]
    values |= arguments(job)
    values |= {
        "max_length": config["max_length"],
        "completion_only_loss": True,
        "packing": False,
        "shuffle_dataset": False,
    }
    if has_adapter(config):
        values |= _adapter(adapter_fields(config))
    if is_quantized(config):
        values |= _QUANTIZED
    name, script = f"{job.stem}.trl.yaml", f"{job.stem}.trl.py"
    command = f"`python {script} --dataset_name FILE`"
    if job.averaging is None:
        command += (
            f", or `trl sft --config {name} --dataset_name FOLDER` with nothing in FOLDER but the rows of "
            "`sweeper export` (of other rows `trl sft` makes other tokens)"
        )
    else:
        values |= CALLBACK_KEY
        command += "; not for `trl sft`, which takes no callbacks"
    text = header(job, command, notes=(_NOTE_BF16,) if is_quantized(config) else ())
    return {name: text + dump(values), script: _script(job, name, script)}


def _adapter(fields: dict[str, Any]) -> dict[str, Any]:
    """TRL's names. Its `lora_alpha` is a whole number.

    Of a list of one target TRL makes a bare string, which peft reads as a pattern of whole names.
    """
    targets = fields["target_modules"]
    if targets == ALL_LINEAR:
        targets = [ALL_LINEAR]
    elif len(targets) == 1:
        targets = [rf"(.*\.)?{re.escape(targets[0])}"]
    return {
        "use_peft": True,
        "lora_r": fields["r"],
        "lora_alpha": whole_alpha(fields["lora_alpha"]),
        "lora_dropout": fields["lora_dropout"],
        "lora_target_modules": targets,
        "lora_task_type": fields["task_type"],
        "use_rslora": fields["use_rslora"],
        "use_dora": fields["use_dora"],
    }


def _script(job: ExportJob, config: str, script: str) -> str:
    averaged = job.averaging is not None
    text = (resources.files("sweeper.export") / _SCRIPT).read_text(encoding="utf-8")
    return Template(text).substitute(
        header=header(job, "TRL"),
        config=config,
        script=script,
        imports="\nfrom ema_callback import WeightAveraging\n" if averaged else "",
        callbacks="[WeightAveraging()]" if averaged else "None",
        held=_FP32 if is_quantized(job.config) else "",
        guard=[f"--{next(iter(CALLBACK_KEY))}", *CALLBACK_KEY.values()] if averaged else [],
    )
