"""Stores the weights of readouts, and writes them as folders that peft and transformers load."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from transformers import AutoTokenizer

from sweeper.data.encode import Encoder
from sweeper.errors import ModelError
from sweeper.model.adapters import MAGNITUDE, lora_config
from sweeper.model.load import (
    LOAD_ERRORS,
    configured_end_tokens,
    load_model,
    load_tokenizer,
    model_folder,
    unloadable,
)
from sweeper.task import TrajectoryTask

GENERATION_CONFIG = "generation_config.json"

NAMES_KEY = "names"
"""The metadata key of the weight names, as JSON, in the order in which a record hashes them."""


def serialize_weights(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Serialize the weights of a readout, by name, on the CPU, in the order in which they are hashed."""
    return save(dict(weights), {NAMES_KEY: json.dumps(list(weights))})


def read_weights(path: Path) -> list[torch.Tensor] | None:
    """Weights written by `serialize_weights`, in hash order; None if the file is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return [file.get_tensor(name) for name in json.loads(file.metadata()[NAMES_KEY])]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def save_weights(task: TrajectoryTask, weights: Path, folder: Path) -> None:
    """Write an adapter folder for `PeftModel.from_pretrained`, or a model folder, with the tokenizer.

    Args:
        task: The task that trained the weights.
        weights: The weights file that a trial with `keep_weights` wrote.
        folder: An existing folder to write to.

    Raises:
        ModelError: the base model cannot be loaded.
    """
    named = load_file(weights)
    write = _save_adapter if task.tuning.has_adapter else _save_model
    write(task, named, folder)
    source = model_folder(task.model)
    try:
        AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(folder)
    except LOAD_ERRORS as error:
        raise ModelError(
            unloadable("tokenizer", task.model, error),
            code="model.unreadable",
            path=task.model.path,
        ) from None


def _save_adapter(task: TrajectoryTask, named: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write peft's files. `all-linear` is expanded, because not every adapter loader supports it."""
    config = lora_config(task.tuning)
    config.base_model_name_or_path = task.model.path
    config.revision = task.model.revision
    config.inference_mode = True
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in named}
    if isinstance(config.target_modules, str):
        config.target_modules = sorted(layers)
    tensors = {f"base_model.model.{_peft_name(name)}": value for name, value in named.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))


def _peft_name(name: str) -> str:
    """Peft's files name DoRA's magnitude without `.weight`."""
    return name if name.endswith(MAGNITUDE) else f"{name}.weight"


@torch.no_grad()
def _save_model(task: TrajectoryTask, named: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the complete model in its training dtype, with the generation settings of the base model.

    If these do not name the token with which the template ends an answer, as it was measured, it is added.
    """
    model = load_model(task.model, torch.device("cpu"))
    own = dict(model.named_parameters())
    for name, value in named.items():
        own[name].copy_(value)
    model.save_pretrained(folder)
    settings = model_folder(task.model) / GENERATION_CONFIG
    own_settings = folder / GENERATION_CONFIG
    own_settings.unlink(missing_ok=True)
    if settings.is_file():
        shutil.copyfile(settings, own_settings)
    side, stops = task.data.template.test, configured_end_tokens(model)
    encoder = Encoder(load_tokenizer(task.model), side.name, task.data.max_length, side.system)
    if encoder.end_token not in stops:
        written = json.loads(own_settings.read_text("utf-8")) if settings.is_file() else {}
        written["eos_token_id"] = sorted({*stops, encoder.end_token})
        own_settings.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
