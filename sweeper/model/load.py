"""Loads models and tokenizers."""

import json
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sweeper.data.hub import MODEL, fetch, is_hub_id
from sweeper.errors import ModelError
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.finite import all_finite
from sweeper.model.quantized import keep_one_layout, loading_options
from sweeper.model.sharding import shard
from sweeper.store.provenance import source_hash
from sweeper.task import ModelSource

TRAINED_DTYPES = {
    "float32": torch.float32,
    "mixed_bf16": torch.float32,
    "pure_bf16": torch.bfloat16,
}
LOAD_ERRORS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What transformers raises for a folder that it cannot load."""

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


def check_no_adapter(source: ModelSource) -> None:
    """Reject a base model that is an adapter, or that transformers would silently attach one to.

    Raises:
        ModelError: the folder has an `adapter_config.json`.
    """
    folder = model_folder(source)
    config = folder / "adapter_config.json"
    if not config.is_file():
        return
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        base = "unknown"
    if not (folder / "config.json").is_file():
        remedy = (
            f"it is an adapter of `{base}`, not a model: merge it once with `PeftModel.from_pretrained("
            "base, adapter).merge_and_unload().save_pretrained(new_folder)`, and set model.path to the "
            "new folder, with the tokenizer in it"
        )
    else:
        remedy = (
            f"transformers would attach this adapter of `{base}` to the weights beside it: for the "
            "weights alone, use a copy of the folder without the adapter's files; for both, merge them "
            "once with peft (`merge_and_unload`), and set model.path to the result"
        )
    raise ModelError(
        f"{source.path}: found adapter_config.json; {remedy}",
        code="model.adapter",
        path=source.path,
        base=base,
    )


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
    except LOAD_ERRORS as error:
        raise ModelError(
            unloadable("tokenizer", source, error), code="model.unreadable", path=source.path
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
    quantized: bool = False,
    architecture: Any = AutoModelForCausalLM,
) -> PreTrainedModel:
    """Load the base model from safetensors, in eval mode and in its configured dtype.

    Args:
        source: The model and its dtype.
        device: The device to load it on.
        world: The processes that share it; each holds a shard.
        frozen: Whether its weights stay frozen.
        quantized: Whether its linear layers are held in 4 bits; then they are frozen.
        architecture: The transformers class to load it with.

    Raises:
        ModelError: no folder, an adapter in it, no safetensors weights, transformers cannot load it, or
            weights are not finite.
    """
    folder = model_folder(source)
    check_no_adapter(source)
    dtype = (FROZEN_DTYPES if frozen or quantized else TRAINED_DTYPES)[source.dtype]
    transformers.utils.logging.disable_progress_bar()
    try:
        loaded: Any = architecture.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=source.attention,
            output_loading_info=True,
            **(loading_options(dtype, device) if quantized else {}),
        )
    except LOAD_ERRORS as error:
        raise ModelError(
            unloadable("model", source, error), code="model.unreadable", path=source.path
        ) from None
    model, loading = loaded
    check_complete(source, loading["missing_keys"])
    # `generate` takes unset options from here, and penalties in the model's folder would change greedy
    # decoding. Only the model's end tokens are kept.
    if model.can_generate():
        ends = model.generation_config.eos_token_id if model.generation_config else None
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends)
    model.requires_grad_(not (frozen or quantized))
    if quantized:
        keep_one_layout(model)
        check_finite(source, model)
        model.eval()
        return model  # type: ignore[no-any-return]
    model = model.to(device) if world.size == 1 else model
    check_finite(source, model)
    placed: PreTrainedModel = model if world.size == 1 else shard(model, world, device)
    placed.eval()
    return placed


def check_complete(source: ModelSource, missing: Iterable[str]) -> None:
    """Reject missing weights, which transformers would fill with random numbers.

    Raises:
        ModelError: some are missing.
    """
    if absent := sorted(missing):
        raise ModelError(
            f"{source.path}: the weights file lacks {len(absent)} weights of the model, for example "
            f"{absent[0]}; save the complete model again",
            code="model.incomplete",
            path=source.path,
            weights=absent,
        )


def check_finite(source: ModelSource, model: PreTrainedModel) -> None:
    """Reject weights that are NaN or infinite: attention can hide them from the logits.

    Raises:
        ModelError: names the first of them.
    """
    for name, weights in model.named_parameters():
        if not all_finite([weights]):
            raise ModelError(
                f"{source.path}: the weights {name} hold NaN or infinite values, so nothing can be "
                "measured; copy the model again, or save it in a dtype that holds its weights",
                code="model.not_finite",
                path=source.path,
                weights=name,
            )


def resident_model(
    source: ModelSource,
    device: torch.device,
    world: World = SINGLE_PROCESS,
    quantized: bool = False,
) -> PreTrainedModel:
    """The frozen base model, loaded once per process and shared by adapters (`adapters.AdapterStack`).

    A process holds one source, plain or `quantized` or both.

    Raises:
        ModelError: see `load_model`.
    """
    held = _resident_models(source, device, world)
    if quantized not in held:
        held[quantized] = load_model(source, device, world, frozen=True, quantized=quantized)
    return held[quantized]


@lru_cache(maxsize=1)
def _resident_models(
    source: ModelSource, device: torch.device, world: World
) -> dict[bool, PreTrainedModel]:
    return {}


def unloadable(what: str, source: ModelSource, error: Exception) -> str:
    """The message of an error that transformers raised while it loaded a part of a model."""
    first = str(error).strip().split("\n")[0]
    remedy = "use a model with safetensors weights and a tokenizer that transformers can load"
    if "trust_remote_code" in str(error):
        first = "it requires custom code, but `trust_remote_code` is always off"
        remedy = "use a model whose architecture is part of transformers"
    if "attention implementation" in first and source.attention != "eager":
        first = f"its attention has no `{source.attention}` implementation"
        remedy = "set `model.attention: eager`"
    return (
        f"cannot load the {what} of `{source.path}` from {model_folder(source)}: {first}; {remedy}"
    )


def end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Collection[int] = ()
) -> set[int]:
    """The tokens that end generation: those of the model, of the tokenizer and of the chat template.

    The first release of Llama 3 shows that the template's (`ends`) need not be among the others.
    """
    last = tokenizer.eos_token_id
    return configured_end_tokens(model) | set(ends) | ({int(last)} if last is not None else set())


def configured_end_tokens(model: PreTrainedModel) -> set[int]:
    """The tokens that end generation by the model's own settings, as `generate` of transformers has it."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in several if token is not None}


def choose_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
