"""Axolotl's own classes read the exports: `python check_axolotl.py FOLDER`, in Axolotl's environment."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from axolotl.integrations.base import PluginManager
from axolotl.utils.config import validate_config
from axolotl.utils.dict import DictDefault
from axolotl.utils.schemas.config import AxolotlInputConfig
from compare import ADAPTERS, Case, Tally, cases, shared_fields, split

SAME_NAME = {"lr_scheduler_type": "lr_scheduler"}


def expected(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What Axolotl must have understood."""
    shared = shared_fields(settings)
    del shared["bf16"]
    if shared["lr_scheduler_kwargs"] is None:
        del shared["lr_scheduler_kwargs"]
    found = {
        **shared,
        "lr_scheduler": settings["lr_scheduler_type"],
        "base_model": settings["model"],
        "sequence_len": settings["max_length"],
        "bf16": settings["dtype"] != "float32",
        "tf32": False,
        "train_on_inputs": False,
        "sample_packing": False,
        "gradient_checkpointing": settings["gradient_checkpointing"],
        "attn_implementation": settings.get("attention", "sdpa"),
        "optimizer": settings.get("optim", "adamw_torch_fused"),
        "shuffle_merged_datasets": False,
        "val_set_size": 0.0,
        "save_strategy": "no",
    }
    if settings["revision"]:
        found["revision_of_model"] = settings["revision"]
    if settings["method"] in ADAPTERS:
        found |= {
            "adapter": settings["method"],
            "lora_r": settings["lora_r"],
            "lora_alpha": int(settings["lora_alpha"]),
            "lora_dropout": settings["lora_dropout"],
            "peft_use_dora": settings.get("use_dora", False),
            "peft_use_rslora": settings.get("use_rslora", False),
        }
        if settings["method"] == "qlora":
            found["load_in_4bit"] = True
        targets = settings["lora_target_modules"]
        if targets == ["all-linear"]:
            found["lora_target_linear"] = True
        else:
            found["lora_target_modules"] = targets
    return found


def check(case: Case, tally: Tally) -> None:
    """One file, through the validation that `axolotl train` begins with."""
    raw = yaml.safe_load(case.file("axolotl").read_text(encoding="utf-8"))
    unknown = set(raw) - set(AxolotlInputConfig.model_fields)
    assert not unknown, f"{case.folder.name}: Axolotl does not know {unknown}"
    averaged = case.settings["average"] != "raw"
    assert (case.folder / "ema_plugin.py").exists() == averaged
    plugins = raw.pop("plugins", [])
    assert plugins == (["ema_plugin.WeightAveragingPlugin"] if averaged else [])
    found = dict(validate_config(DictDefault(raw)))
    tally.same(case, found, expected(case.settings))
    split(case.settings, found["micro_batch_size"], found["gradient_accumulation_steps"])
    (data,) = found["datasets"]
    assert (data["type"], data["ds_type"]) == (None, "json")


def callbacks() -> None:
    """In the folder of an averaged configuration: Axolotl loads the plugin, a real trainer runs it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    manager = PluginManager.get_instance()
    manager.register("ema_plugin.WeightAveragingPlugin")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    rows = [{"input_ids": [1, 2, i % 16], "labels": [1, 2, i % 16]} for i in range(8)]
    model = LlamaForCausalLM(config)
    args = TrainingArguments(
        output_dir="out",
        max_steps=3,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=args, train_dataset=rows)
    (averaging,) = manager.add_callbacks_post_trainer(DictDefault({}), trainer)
    trainer.add_callback(averaging)
    path = [model.lm_head.weight.detach().clone()]
    step = averaging.on_step_end

    def noted(*words: Any, **named: Any) -> None:
        path.append(model.lm_head.weight.detach().clone())
        step(*words, **named)

    averaging.on_step_end = noted
    trainer.train()
    shadow = path[0]
    for weights in path[1:]:
        shadow = 0.99 * shadow + 0.01 * weights
    assert len(path) == 4
    assert torch.allclose(model.lm_head.weight, shadow, atol=1e-6)
    assert not torch.allclose(model.lm_head.weight, path[-1], atol=1e-3)


def main(root: Path) -> None:
    """All cases, and the plugin in a process of its own, as `axolotl train` would load it."""
    tally = Tally("axolotl", "axolotl")
    for case in cases(root, "axolotl"):
        check(case, tally)
    place = (root / "full-mixed").resolve()
    paths = os.pathsep.join([str(place), str(Path(__file__).parent)])
    command = [sys.executable, __file__, "--callbacks"]
    subprocess.run(command, check=True, cwd=place, env={**os.environ, "PYTHONPATH": paths})
    tally.report("validate_config (AxolotlInputConfig); plugin loaded and run by a Trainer")


if __name__ == "__main__":
    if sys.argv[1:] == ["--callbacks"]:
        callbacks()
    else:
        main(Path(sys.argv[1]))
