"""torchtune's own config reader and components: `python check_torchtune.py FOLDER`, in its environment."""

import importlib.util
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from compare import Case, Tally, cases, split
from omegaconf import OmegaConf
from torchtune import config

FILL_IN = "FILL_IN"
DTYPES = {"float32": "fp32", "mixed_bf16": "bf16", "pure_bf16": "bf16"}
NAMES = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}


def source_of(recipe: str) -> str:
    """A recipe's code without its comments."""
    found = importlib.util.find_spec("recipes")
    assert found is not None and found.submodule_search_locations
    place = Path(next(iter(found.submodule_search_locations)))
    return re.sub(r"#.*", "", (place / f"{recipe}.py").read_text(encoding="utf-8"))


def needed_by(recipe: str) -> set[str]:
    """The keys a recipe reads without a default: `cfg.KEY`."""
    return set(re.findall(r"\bcfg\.(?!get\b)(\w+)", source_of(recipe)))


def known_to(recipe: str) -> set[str]:
    """All keys a recipe reads, `cfg.get("KEY")` too."""
    return needed_by(recipe) | set(re.findall(r"\bcfg\.get\(\s*\"(\w+)\"", source_of(recipe)))


def expected(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What torchtune must have understood, in dotted keys."""
    found = {
        "optimizer.lr": settings["learning_rate"],
        "optimizer.betas": [settings["adam_beta1"], settings["adam_beta2"]],
        "optimizer.eps": settings["adam_epsilon"],
        "optimizer.weight_decay": settings["weight_decay"],
        "clip_grad_norm": settings["max_grad_norm"],
        "max_steps_per_epoch": settings["max_steps"],
        "epochs": 1,
        "seed": settings["seed"],
        "dtype": DTYPES[settings["dtype"]],
        "tokenizer.max_seq_len": settings["max_length"],
        "dataset.train_on_input": False,
        "dataset.packed": False,
        "shuffle": False,
        "enable_activation_checkpointing": settings["gradient_checkpointing"],
    }
    if settings["method"] == "lora":
        everything = settings["lora_target_modules"] == ["all-linear"]
        last = [name.rpartition(".")[2] for name in settings["lora_target_modules"]]
        found |= {
            "model.lora_rank": settings["lora_r"],
            "model.lora_alpha": settings["lora_alpha"]
            * (math.sqrt(settings["lora_r"]) if settings.get("use_rslora") else 1.0),
            "model.lora_dropout": settings["lora_dropout"],
            "model.use_dora": settings.get("use_dora", False),
            "model.apply_lora_to_mlp": everything,
            "model.lora_attn_modules": [
                theirs for ours, theirs in NAMES.items() if everything or ours in last
            ],
        }
    return found


def check(case: Case, tally: Tally) -> int:
    """One file as a recipe reads it; returns whether the model's builder was known."""
    settings = case.settings
    loaded = OmegaConf.load(case.file("torchtune"))
    kind = "lora_finetune" if settings["method"] == "lora" else "full_finetune"
    recipe = f"{kind}_{'distributed' if settings['world_size'] > 1 else 'single_device'}"
    known, needed = known_to(recipe), needed_by(recipe)
    assert set(loaded) <= known, f"{recipe} reads no {set(loaded) - known}"
    assert needed <= set(loaded), f"{recipe} needs {needed - set(loaded)}"
    values = OmegaConf.to_container(loaded, resolve=True)
    flat = {
        f"{name}.{inner}" if inner else name: leaf
        for name, value in values.items()
        for inner, leaf in (value.items() if isinstance(value, dict) else [("", value)])
    }
    tally.same(case, flat, expected(settings))
    split(settings, flat["batch_size"], flat["gradient_accumulation_steps"])
    if "Llama" not in settings["model"]:
        assert flat["model._component_"] == FILL_IN
        assert flat["checkpointer.checkpoint_dir"] == settings["model"]
        return 0
    config.validate(OmegaConf.create({k: v for k, v in loaded.items() if k != "checkpointer"}))
    model_of(loaded, settings)
    return 1


def model_of(loaded: Any, settings: Mapping[str, Any]) -> None:
    """torchtune builds the model, without memory, and adapts the layers of the sweep."""
    with torch.device("meta"):
        model = config.instantiate(loaded.model)
    adapted = {
        name.rpartition(".lora_")[0].rpartition(".")[2]
        for name, _ in model.named_parameters()
        if ".lora_a" in name
    }
    everything = {*NAMES.values(), "w1", "w2", "w3"}
    targets = settings.get("lora_target_modules", [])
    wanted = everything if targets == ["all-linear"] else {NAMES[t] for t in targets}
    assert adapted == wanted, (adapted, wanted)


def schedule(case: Case) -> None:
    """The learning rate, step by step, is that of the schedule the sweep followed."""
    settings = case.settings
    loaded = OmegaConf.load(case.file("torchtune"))
    wsd = settings["lr_scheduler_type"] == "warmup_stable_decay"
    rates = []
    for ours in (True, False):
        optimizer = config.instantiate(loaded.optimizer, [torch.nn.Parameter(torch.zeros(1))])
        steps = settings["max_steps"]
        made = (
            transformers.get_scheduler(
                settings["lr_scheduler_type"],
                optimizer,
                num_warmup_steps=settings["warmup_steps"],
                num_training_steps=steps,
                scheduler_specific_kwargs={"num_decay_steps": settings["decay_steps"]}
                if wsd
                else None,
            )
            if ours
            else config.instantiate(
                loaded.lr_scheduler, optimizer, num_training_steps=steps, last_epoch=-1
            )
        )
        walked = []
        for _ in range(steps):
            walked.append(made.get_last_lr()[0])
            optimizer.step()
            made.step()
        rates.append(walked)
    assert all(math.isclose(a, b, abs_tol=1e-15) for a, b in zip(*rates, strict=True))
    assert max(rates[0]) > 0


def main(root: Path) -> None:
    """All cases that torchtune can have."""
    tally = Tally("torchtune", "torchtune")
    found = list(cases(root, "torchtune"))
    assert len(found) == 7  # It has no inverse_sqrt.
    built = sum(check(case, tally) for case in found)
    assert built == 4
    for case in found:
        schedule(case)
    tally.report("config.validate and instantiate; keys its recipes read; learning rates by step")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
