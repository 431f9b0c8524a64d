"""The trainers of the project's own environment read the exports: `python check_project.py FOLDER`."""

import contextlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from compare import ADAPTERS, Case, Tally, cases, shared_fields, split
from peft import LoraConfig
from transformers import BitsAndBytesConfig, TrainingArguments
from trl import ModelConfig, SFTConfig, TrlParser

DTYPES = {"float32": "float32", "pure_bf16": "bfloat16"}


def trainer_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `TrainingArguments` and its children must hold."""
    return {
        **shared_fields(settings),
        "lr_scheduler_type": settings["lr_scheduler_type"],
        "gradient_checkpointing": settings["gradient_checkpointing"],
        "save_strategy": "no",
        "optim": settings.get("optim", "adamw_torch_fused"),
    }


def shown(part: Any) -> dict[str, Any]:
    """The fields of a dataclass; enumerations by value."""
    return {name: getattr(value, "value", value) for name, value in vars(part).items()}


def batch(case: Case, args: Any) -> None:
    split(case.settings, args.per_device_train_batch_size, args.gradient_accumulation_steps)


def transformers(case: Case, tally: Tally) -> None:
    raw = yaml.safe_load(case.file("transformers").read_text(encoding="utf-8"))
    args = TrainingArguments(**{**raw, "output_dir": str(case.folder / "out")}, use_cpu=True)
    found, expected = shown(args), trainer_fields(case.settings)
    batch(case, args)
    settings = case.settings
    if settings["method"] in ADAPTERS:
        adapter = LoraConfig(**yaml.safe_load(case.file("lora").read_text(encoding="utf-8")))
        found |= {f"LoraConfig.{name}": value for name, value in shown(adapter).items()}
        targets = settings["lora_target_modules"]
        expected |= {
            "LoraConfig.r": settings["lora_r"],
            "LoraConfig.lora_alpha": settings["lora_alpha"],
            "LoraConfig.lora_dropout": settings["lora_dropout"],
            "LoraConfig.use_dora": settings.get("use_dora", False),
            "LoraConfig.use_rslora": settings.get("use_rslora", False),
            "LoraConfig.bias": "none",
        }
        everything = targets == ["all-linear"]
        assert adapter.target_modules == ("all-linear" if everything else set(targets))
    if settings["method"] == "qlora":
        four = BitsAndBytesConfig(**yaml.safe_load(case.file("quantization").read_text("utf-8")))
        found |= {f"BitsAndBytesConfig.{name}": value for name, value in four.to_dict().items()}
        expected |= {
            "BitsAndBytesConfig.load_in_4bit": True,
            "BitsAndBytesConfig.bnb_4bit_quant_type": "nf4",
            "BitsAndBytesConfig.bnb_4bit_use_double_quant": True,
            "BitsAndBytesConfig.bnb_4bit_compute_dtype": "bfloat16",
        }
    tally.same(case, found, expected)


def trl(case: Case, tally: Tally) -> None:
    settings = case.settings
    parser = TrlParser((SFTConfig, ModelConfig))
    words = ["--config", str(case.file("trl")), "--output_dir", str(case.folder / "out")]
    args, model, unknown = parser.parse_args_and_config(
        [*words, "--use_cpu", "true"], return_remaining_strings=True
    )
    guard = ["--requires_callback", "ema_callback.WeightAveraging"]
    assert unknown == (guard if settings["average"] != "raw" else [])
    batch(case, args)
    low = settings["dtype"] != "float32" and settings["method"] in ADAPTERS
    expected = {
        **trainer_fields(settings),
        "max_length": settings["max_length"],
        "completion_only_loss": True,
        "packing": False,
        "model_name_or_path": settings["model"],
        "dtype": "bfloat16" if low else DTYPES.get(settings["dtype"], "float32"),
    }
    if settings["revision"]:
        expected["model_revision"] = settings["revision"]
    if settings.get("attention"):
        expected["attn_implementation"] = settings["attention"]
    if settings["method"] in ADAPTERS:
        expected |= {
            "use_peft": True,
            "lora_r": settings["lora_r"],
            "lora_alpha": int(settings["lora_alpha"]),
            "lora_dropout": settings["lora_dropout"],
            "use_dora": settings.get("use_dora", False),
            "use_rslora": settings.get("use_rslora", False),
        }
        if settings["method"] == "qlora":
            expected |= {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "use_bnb_nested_quant": True,
            }
        targets = settings["lora_target_modules"]
        if len(targets) > 1:
            expected["lora_target_modules"] = targets
    tally.same(case, shown(args) | shown(model), expected)


def accelerate(case: Case, tally: Tally) -> None:
    settings, path = case.settings, str(case.file("accelerate"))
    found = load_config_from_file(path)
    assert isinstance(found, ClusterConfig)
    with contextlib.redirect_stdout(io.StringIO()):
        parsed = launch_command_parser().parse_args(["--config_file", path, "train.py"])
        launched, *_ = _validate_launch_command(parsed)
    sharded = settings["method"] == "full" and settings["world_size"] > 1
    many = "FSDP" if sharded else "MULTI_GPU"
    expected = {
        "distributed_type": many if settings["world_size"] > 1 else "NO",
        "num_processes": settings["world_size"],
        "mixed_precision": "bf16" if settings["dtype"] == "mixed_bf16" else "no",
        "num_machines": 1,
        "use_cpu": False,
        "launch.use_fsdp": sharded,
        "launch.num_processes": settings["world_size"],
    }
    if sharded:
        expected |= {
            "launch.fsdp_version": 2,
            "launch.fsdp_state_dict_type": "FULL_STATE_DICT",
            "launch.fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "launch.fsdp_activation_checkpointing": False,
        }
        numbers = {"fsdp_version": int(launched.fsdp_version)}
        flag = str(launched.fsdp_activation_checkpointing).lower()
        numbers["fsdp_activation_checkpointing"] = {"false": False, "true": True}[flag]
    else:
        numbers = {}
    ran = {f"launch.{name}": value for name, value in {**vars(launched), **numbers}.items()}
    tally.same(case, {**shown(found), **ran}, expected)


def main(root: Path) -> None:
    """All cases through all three."""
    checks = {
        "transformers": (transformers, "TrainingArguments, peft.LoraConfig"),
        "trl": (trl, "TrlParser((SFTConfig, ModelConfig))"),
        "accelerate": (accelerate, "load_config_from_file (ClusterConfig), launch validation"),
    }
    for name, (check, how) in checks.items():
        tally = Tally(name, name)
        for case in cases(root, name):
            check(case, tally)
        tally.report(how)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
