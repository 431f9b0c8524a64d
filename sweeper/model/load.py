"""Loads models and tokenizers, and checks them before a sweep."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sweeper.data.hub import MODEL, fetch, how_to_fetch, is_hub_id
from sweeper.errors import ModelError
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.sharding import shard
from sweeper.store.provenance import source_hash
from sweeper.task import ALL_LINEAR, ModelSource, Tuning

TRAINED_DTYPES = {
    "float32": torch.float32,
    "mixed_bf16": torch.float32,
    "pure_bf16": torch.bfloat16,
}
FROZEN_DTYPES = {**TRAINED_DTYPES, "mixed_bf16": torch.bfloat16}
"""The dtype of weights in memory, by `model.dtype`. Autocast would round frozen ones to bf16 anyway."""


def precision(source: ModelSource, device: torch.device) -> torch.autocast:
    """The autocast context of every forward pass: bf16 for `mixed_bf16`, disabled otherwise."""
    return torch.autocast(device.type, torch.bfloat16, enabled=source.dtype == "mixed_bf16")


def model_folder(source: ModelSource) -> Path:
    """The folder a model is loaded from: a local folder, or a hub snapshot (see `hub.fetch`).

    Raises:
        ModelError: no such folder, a revision for a local folder, or see `hub.fetch`.
    """
    if is_hub_id(source.path):
        return fetch(source.path, source.revision, MODEL)
    folder = Path(source.path)
    if not folder.is_dir():
        raise ModelError(
            f"{source.path}: no such model folder; check model.path, or use a hub id `owner/name`",
            code="model.not_found",
            path=source.path,
        )
    if source.revision is not None:
        raise ModelError(
            f"{source.path}: `model.revision` applies to hub models, but this is a local folder; remove it",
            code="model.setting",
            key="revision",
            path=source.path,
        )
    return folder


def model_commit(source: ModelSource) -> str | None:
    """The commit of a hub model; None for a local folder."""
    return model_folder(source).name if is_hub_id(source.path) else None


def model_hash(source: ModelSource) -> str | None:
    """Identifies the contents of a model: `ID@COMMIT` on the hub, else the hash of its folder."""
    commit = model_commit(source)
    return source_hash(source.path) if commit is None else f"{source.path}@{commit}"


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model. A missing pad token is replaced by the end token, for inputs only.

    Raises:
        ModelError: the tokenizer cannot be loaded.
    """
    folder = model_folder(source)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            _unloadable("tokenizer", source, error), code="model.unreadable", path=source.path
        ) from None
    if is_hub_id(source.path):
        tokenizer.name_or_path = f"{source.path} ({folder})"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    source: ModelSource,
    device: torch.device,
    world: World = SINGLE_PROCESS,
    *,
    frozen: bool = False,
    architecture: Any = AutoModelForCausalLM,
) -> PreTrainedModel:
    """Load the base model from safetensors, in eval mode and in its configured dtype.

    Args:
        source: The model and its dtype.
        device: The device to load it on.
        world: The processes that share it; each holds a shard.
        frozen: Whether its weights stay frozen.
        architecture: The transformers class to load it with.

    Raises:
        ModelError: no folder, no safetensors weights, or transformers cannot load it.
    """
    folder = model_folder(source)
    transformers.utils.logging.disable_progress_bar()
    try:
        loaded: Any = architecture.from_pretrained(
            folder,
            dtype=(FROZEN_DTYPES if frozen else TRAINED_DTYPES)[source.dtype],
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=source.attention,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            _unloadable("model", source, error), code="model.unreadable", path=source.path
        ) from None
    model, loading = loaded
    absent = sorted(loading["missing_keys"])
    if absent:  # transformers would fill them with random numbers.
        raise ModelError(
            f"{source.path}: the weights file lacks {len(absent)} weights of the model, for example "
            f"{absent[0]}; save the complete model again",
            code="model.incomplete",
            path=source.path,
            weights=absent,
        )
    # `generate` takes unset options from here, and penalties in the model's folder would change greedy
    # decoding. Only the model's end tokens are kept.
    if model.can_generate():
        ends = model.generation_config.eos_token_id if model.generation_config else None
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends)
    model.requires_grad_(not frozen)
    placed: PreTrainedModel = model.to(device) if world.size == 1 else shard(model, world, device)
    placed.eval()
    return placed


def resident_model(
    source: ModelSource, device: torch.device, world: World = SINGLE_PROCESS
) -> PreTrainedModel:
    """The frozen base model, loaded once per process and shared by adapters (`adapters.AdapterStack`).

    Raises:
        ModelError: see `load_model`.
    """
    return _resident_model(source, device, world)


@lru_cache(maxsize=1)
def _resident_model(source: ModelSource, device: torch.device, world: World) -> PreTrainedModel:
    return load_model(source, device, world, frozen=True)


def check_model(source: ModelSource) -> None:
    """Check a model's files without loading them; a hub model is downloaded first.

    Raises:
        ModelError: see `model_folder`; or no configuration, no safetensors weights, or incomplete weights.
    """
    folder = model_folder(source)
    hub = is_hub_id(source.path)
    where = f"{source.path} ({folder})" if hub else source.path
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{where}: no config.json, so this is not a model folder{_again(hub)}",
            code="model.not_found",
            path=source.path,
        )
    if not any(folder.glob("*.safetensors")):
        others = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ModelError(
            f"{where}: no *.safetensors weights (found {others}); pickled weights are not loaded: "
            "choose a model with safetensors weights, or save it with "
            f"`save_pretrained(..., safe_serialization=True)`{_again(hub)}",
            code="model.unsafe_weights",
            path=source.path,
        )
    absent = _absent_shards(folder)
    if absent:
        raise ModelError(
            f"{where}: {len(absent)} weights files are missing, for example {absent[0]}; copy "
            f"the complete model{_again(hub)}",
            code="model.incomplete",
            path=source.path,
            files=absent,
        )


def _again(hub: bool) -> str:
    """How to complete a partly filled hub cache, as the end of a message."""
    return f"; if the cache is incomplete, {how_to_fetch()}" if hub else ""


def _absent_shards(folder: Path) -> list[str]:
    """The weights files that are listed in the index of a sharded model but missing in the folder."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{index}: not a valid index of weights files: {error!r}; copy the complete model",
            code="model.unreadable",
            path=index,
        ) from None
    return sorted(name for name in names if not (folder / name).is_file())


def check_tuning(source: ModelSource, tuning: Tuning) -> int | None:
    """Check the tuning against the architecture, without weights; returns the context window in tokens.

    With sliding-window attention it is the width of the sliding window, which our generation does not
    implement.

    Raises:
        ModelError: no readable configuration, or a LoRA target that the model does not have.
    """
    try:
        config = AutoConfig.from_pretrained(model_folder(source), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(
            _unloadable("configuration", source, error), code="model.unreadable", path=source.path
        ) from None
    modules = model.named_modules()
    known = {name.rpartition(".")[2] for name, m in modules if isinstance(m, torch.nn.Linear)}
    for target in tuning.lora_target_modules if tuning.method == "lora" else ():
        if target != ALL_LINEAR and target.rpartition(".")[2] not in known:
            raise ModelError(
                f"tuning.lora_target_modules: {source.name} has no linear layer `{target}`; "
                f"it has {', '.join(sorted(known))}",
                code="model.unknown_layer",
                layer=target,
            )
    text = config.get_text_config(decoder=True)
    windows = [getattr(text, "max_position_embeddings", None)]
    if getattr(text, "use_sliding_window", True):
        windows.append(getattr(text, "sliding_window", None))
    return min((int(window) for window in windows if window is not None), default=None)


def _unloadable(what: str, source: ModelSource, error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    remedy = "use a model with safetensors weights and a tokenizer that transformers can load"
    if "trust_remote_code" in str(error):
        first = "it requires custom code, but `trust_remote_code` is always off"
        remedy = "use a model whose architecture is part of transformers"
    return (
        f"cannot load the {what} of `{source.path}` from {model_folder(source)}: {first}; {remedy}"
    )


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
