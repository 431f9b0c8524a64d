"""LLaMA-Factory's classes read the exports: `python check_llamafactory.py FOLDER`, run by its Python."""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from compare import ADAPTERS, Case, Tally, cases, shared_fields, split
from llamafactory.hparams import get_train_args
from llamafactory.hparams.parser import _parse_train_args
from safetensors.torch import load_file

BOUND = 1e-5
"""The distance that is still the same path in fp32; see tests/test_export_trl.py."""


def expected(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What LLaMA-Factory must have understood."""
    found = {
        **shared_fields(settings),
        "model_name_or_path": settings["model"],
        "cutoff_len": settings["max_length"],
        "finetuning_type": settings["method"].removeprefix("q"),
        "optim": settings.get("optim", "adamw_torch_fused"),
        "stage": "sft",
        "template": "empty",
        "train_on_prompt": False,
        "packing": False,
        "disable_shuffling": True,
        "pure_bf16": settings["dtype"] == "pure_bf16",
        "disable_gradient_checkpointing": not settings["gradient_checkpointing"],
    }
    if settings["revision"]:
        found["model_revision"] = settings["revision"]
    if settings["method"] in ADAPTERS:
        if settings["method"] == "qlora":
            found |= {
                "quantization_bit": 4,
                "quantization_method": "bnb",
                "quantization_type": "nf4",
                "double_quantization": True,
            }
        targets = settings["lora_target_modules"]
        found |= {
            "lora_rank": settings["lora_r"],
            "lora_alpha": int(settings["lora_alpha"]),
            "lora_dropout": settings["lora_dropout"],
            "lora_target": ["all"] if targets == ["all-linear"] else targets,
            "use_dora": settings.get("use_dora", False),
            "use_rslora": settings.get("use_rslora", False),
        }
    return found


def check(case: Case, tally: Tally) -> None:
    """One file, through the parser that `llamafactory-cli train` begins with; it refuses unknown keys.

    Only `pure_bf16`, which is refused without a GPU that has it, is left to the parser alone.
    """
    raw = yaml.safe_load(case.file("llamafactory").read_text(encoding="utf-8"))
    if case.settings["average"] != "raw":
        with contextlib.suppress(ValueError):
            _parse_train_args(dict(raw))
            raise AssertionError(f"{case.folder.name}: trained without its average, unasked")
        del raw["requires_callback"]
    read = _parse_train_args if case.settings["dtype"] == "pure_bf16" else get_train_args
    words = {**raw, "use_cpu": True, "output_dir": str(case.folder / "out")}
    parts = read(words)
    found = {f.name: getattr(part, f.name) for part in parts for f in dataclasses.fields(part)}
    if found["lr_scheduler_kwargs"] == {}:
        found["lr_scheduler_kwargs"] = None
    found["optim"] = str(found["optim"].value)
    schedule = str(found["lr_scheduler_type"].value)
    assert schedule == case.settings["lr_scheduler_type"], schedule
    attention = case.settings.get("attention")
    if attention is not None:
        named = {"eager": "disabled", "sdpa": "sdpa"}
        assert found["flash_attn"] == named[attention], found["flash_attn"]
    tally.same(case, found, expected(case.settings))
    per_device, accumulation = "per_device_train_batch_size", "gradient_accumulation_steps"
    split(case.settings, found[per_device], found[accumulation])
    info = json.loads((case.folder / "dataset_info.json").read_text(encoding="utf-8"))
    assert list(info) == found["dataset"]


def train(folder: Path) -> float:
    """Run the exported script, on the exported rows, as it is; LLaMA-Factory does the training.

    Returns how far its weights are from those that were measured, of their length. `torchaudio`, which it
    imports for rows with sound, exists for this torch with CUDA only: an empty module stands in for it.
    """
    (script,) = folder.glob("*.llamafactory.py")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "torchaudio.py").touch()
        paths = {"PYTHONPATH": scratch, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, str(script.resolve())],
            cwd=scratch,
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        (saved,) = Path(scratch).rglob("adapter_model.safetensors")
        theirs = load_file(saved)
    ours = load_file(folder / "measured.safetensors")
    assert len(ours) == len(theirs) == 4
    named = {name: theirs[f"base_model.model.{name}.weight"] for name in ours}
    apart = sum(float((named[name] - ours[name]).double().square().sum()) for name in ours)
    return math.sqrt(apart / sum(float(own.double().square().sum()) for own in ours.values()))


def main(root: Path) -> None:
    """All cases, and one that is trained."""
    tally = Tally("llamafactory", "llamafactory")
    for case in cases(root, "llamafactory"):
        check(case, tally)
    apart = train(root / "trained")
    assert apart < BOUND, f"the weights are {apart:.1e} apart"
    tally.report(f"get_train_args; script run, weights within {apart:.0e} of those measured")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
