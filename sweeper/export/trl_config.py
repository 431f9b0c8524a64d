"""For TRL's `SFTConfig` and `trl sft --config`, which refuse keys they do not know."""

from sweeper.export.job import ExportJob, dump, header
from sweeper.export.transformers_args import arguments

_DTYPES = {"float32": "float32", "mixed_bf16": "float32", "pure_bf16": "bfloat16"}


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.trl.yaml`.

    The data set stays open: it must hold prompt and completion columns, formatted by the template
    the header names.
    """
    config = job.config
    values = {"model_name_or_path": config["model"]}
    if config.get("revision"):
        values["model_revision"] = config["revision"]
    values["dtype"] = _DTYPES[config["dtype"]]
    values |= arguments(job)
    values |= {
        "max_length": config["max_length"],
        "completion_only_loss": True,
        "packing": False,
    }
    if config["method"] == "lora":
        values |= {
            "use_peft": True,
            "lora_r": config["lora_r"],
            # TRL's field is a whole number.
            "lora_alpha": _whole(config["lora_alpha"]),
            "lora_dropout": config["lora_dropout"],
            "lora_target_modules": list(config["lora_target_modules"]),
        }
    command = "`trl sft --config` (add dataset_name: rows with prompt and completion)"
    if job.averaging is not None:
        command = (
            "trl.SFTTrainer with SFTConfig and ModelConfig; `trl sft` takes no callbacks, so start "
            "it from a script"
        )
    return {f"{job.stem}.trl.yaml": header(job, command) + dump(values)}


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
