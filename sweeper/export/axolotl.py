"""For Axolotl: `axolotl train`, and with an average a plugin that adds the callback."""

from typing import Any

from sweeper.export.header import header
from sweeper.export.job import (
    ExportJob,
    adapter_fields,
    dump,
    has_adapter,
    is_quantized,
    openable,
    whole_alpha,
)
from sweeper.export.transformers import COPIED
from sweeper.task import ADAMW, ALL_LINEAR

PLUGIN_NAME = "ema_plugin.py"
_PLUGIN = '''"""Adds the averaging of the configuration beside this file to Axolotl's trainer."""

from axolotl.integrations.base import BasePlugin
from ema_callback import WeightAveraging


class WeightAveragingPlugin(BasePlugin):
    """`plugins: [ema_plugin.WeightAveragingPlugin]`, with this folder on PYTHONPATH."""

    def add_callbacks_post_trainer(self, cfg, trainer):
        return [WeightAveraging()]
'''
_OPTIMIZERS = {"adamw_8bit": "adamw_bnb_8bit"}
_RENAMED = {"lr_scheduler_type": "lr_scheduler"}
_NOTE_BF16 = (
    "Axolotl holds the trained weights in bf16 under `bf16: true`, where the sweep held them in fp32: "
    "small updates round away and RESULTS MAY DIFFER. `bf16: false` trains in fp32 throughout."
)


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.axolotl.yaml`, and where weights are averaged `ema_plugin.py`."""
    name = f"{job.stem}.axolotl.yaml"
    target = f"Axolotl: `PYTHONPATH=. axolotl train {name}`, here"
    callback = (
        "WITHOUT ema_callback.py AND ema_plugin.py BESIDE THIS FILE THE NUMBERS DO NOT HOLD. "
        "`plugins` below loads them; PYTHONPATH must hold this folder."
    )
    held_lower = job.config["dtype"] == "mixed_bf16" and job.config["method"] == "full"
    text = header(job, target, callback, (_NOTE_BF16,) if held_lower else ())
    found = {name: text + dump(values(job))}
    if job.averaging is not None:
        found[PLUGIN_NAME] = header(job, "Axolotl", callback) + _PLUGIN
    return found


def values(job: ExportJob) -> dict[str, Any]:
    """Fields of Axolotl 0.19's input configuration.

    Rows that have `input_ids`, `attention_mask` and `labels` are taken as they are, without a `type`.
    """
    config, optimizer = job.config, job.config.get("optim", ADAMW)
    found: dict[str, Any] = {"base_model": openable(config["model"])}
    if config.get("revision"):
        found["revision_of_model"] = config["revision"]
    if has_adapter(config):
        found |= _adapter(adapter_fields(config), config["method"])
    if is_quantized(config):
        found["load_in_4bit"] = True
    found |= {
        "datasets": [{"path": f"{job.stem}.rows.jsonl", "ds_type": "json", "type": None}],
        "shuffle_merged_datasets": False,
        "sequence_len": config["max_length"],
        "sample_packing": False,
        "pad_to_sequence_len": False,
        "train_on_inputs": False,
        "micro_batch_size": job.split.per_device,
        "gradient_accumulation_steps": job.split.accumulation,
        **{_RENAMED.get(name, name): config[name] for name in COPIED},
    }
    if config["lr_scheduler_type"] == "warmup_stable_decay":
        found["lr_scheduler_kwargs"] = {"num_decay_steps": config["decay_steps"]}
    found |= {
        "optimizer": _OPTIMIZERS.get(optimizer, optimizer),
        "bf16": config["dtype"] != "float32",
        "fp16": False,
        "tf32": False,
        "attn_implementation": config.get("attention", "sdpa"),
        "gradient_checkpointing": job.spec.compute.gradient_checkpointing,
        "seed": job.candidate.seeds[0],
        "val_set_size": 0.0,
        "save_strategy": "no",
        "output_dir": job.stem,
    }
    if job.averaging is not None:
        found["plugins"] = ["ema_plugin.WeightAveragingPlugin"]
    return found


def _adapter(fields: dict[str, Any], method: str) -> dict[str, Any]:
    targets = fields["target_modules"]
    layers = (
        {"lora_target_linear": True} if targets == ALL_LINEAR else {"lora_target_modules": targets}
    )
    return {
        "adapter": method,
        "lora_r": fields["r"],
        "lora_alpha": whole_alpha(fields["lora_alpha"]),
        "lora_dropout": fields["lora_dropout"],
        **layers,
        "peft_use_rslora": fields["use_rslora"],
        "peft_use_dora": fields["use_dora"],
    }
