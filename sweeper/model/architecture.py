"""Checks the architecture of a model without its weights, on torch's meta device."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, Cache, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from sweeper.errors import ModelError
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.files import Header
from sweeper.model.kv_cache import PreallocatedLayer
from sweeper.model.load import LOAD_ERRORS, check_complete, model_folder, unloadable
from sweeper.task import ModelSource, Tuning

META = torch.device("meta")


class Architecture(NamedTuple):
    """What a sweep has to respect: the context window in tokens, and the rows of the embeddings.

    With sliding-window attention `window` is the width of the sliding window, which our generation does not
    implement. None: no limit is known.
    """

    window: int | None
    vocabulary: int


def check_architecture(
    source: ModelSource, tuning: Tuning, weights: Mapping[str, Header] | None = None
) -> Architecture:
    """Check an architecture: the tuning, the shapes of the weights, and a forward pass without numbers.

    Args:
        source: The model.
        tuning: Which weights are trained.
        weights: The headers of its weights (`files.check_model`), to be compared with the configuration.

    Raises:
        ModelError: no readable configuration; not a decoder-only model; LoRA targets that do not exist or
            cannot have an adapter; weights that do not belong to the configuration.
    """
    model = empty_model(source)
    if weights is not None:
        check_shapes(source, model, weights)
    with torch.random.fork_rng(devices=[]):
        _dry_run(source, model, tuning)
    text = model.config.get_text_config(decoder=True)
    windows = [getattr(text, "max_position_embeddings", None)]
    if getattr(text, "use_sliding_window", True):
        windows.append(getattr(text, "sliding_window", None))
    window = min((int(one) for one in windows if one is not None), default=None)
    return Architecture(window, embedding_rows(model))


def embedding_rows(model: PreTrainedModel) -> int:
    """How many token ids the input embeddings have a row for."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def empty_model(source: ModelSource) -> PreTrainedModel:
    """The model of a folder's configuration, on the meta device: with shapes, without weights.

    Raises:
        ModelError: no readable configuration, or not a decoder-only model.
    """
    try:
        config = AutoConfig.from_pretrained(model_folder(source), trust_remote_code=False)
        _check_decoder(source, config)
        with META:
            model: Any = AutoModelForCausalLM.from_config(
                config, trust_remote_code=False, attn_implementation=source.attention
            )
    except ModelError:
        raise
    except LOAD_ERRORS as error:
        raise ModelError(
            unloadable("configuration", source, error), code="model.unreadable", path=source.path
        ) from None
    empty: PreTrainedModel = model.eval()
    return empty


def _check_decoder(source: ModelSource, config: Any) -> None:
    kind = str(config.model_type)
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if encoder or getattr(config, "is_encoder_decoder", False):
        what = "an encoder" if encoder else "an encoder with a decoder"
        raise ModelError(
            f"{source.path}: `{kind}` is {what}, but only decoder-only language models can be swept; "
            "choose one, for example of Llama, Qwen, Gemma, Phi or Mistral",
            code="model.unsupported_architecture",
            path=source.path,
            model_type=kind,
        )


def check_shapes(
    source: ModelSource, model: PreTrainedModel, weights: Mapping[str, Header]
) -> None:
    """Compare the weights with the model of the configuration, by transformers' own loading.

    Raises:
        ModelError: weights of other shapes, missing weights, weights of further blocks, or of layers that
            have others: a bias that the configuration turns off, an adapter that was never merged.
    """
    state = {name: torch.empty(header.shape, device=META) for name, header in weights.items()}
    loader: Any = type(model)
    with _quiet():
        try:
            _, loading = loader.from_pretrained(
                None,
                config=model.config,
                state_dict=state,
                device_map={"": META},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        except LOAD_ERRORS as error:
            raise ModelError(
                unloadable("model", source, error), code="model.unreadable", path=source.path
            ) from None
    if mismatched := sorted(loading["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise ModelError(
            f"{source.path}: `{name}` has shape {tuple(found)} in the weights, but {tuple(expected)} by "
            f"config.json ({len(mismatched)} such weights); the two do not belong together: copy the "
            "complete model again, or save it with `save_pretrained`",
            code="model.mismatch",
            path=source.path,
            weights=[str(item[0]) for item in mismatched],
        )
    check_complete(source, loading["missing_keys"])
    blocks = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    layers = tuple(f"{name.rpartition('.')[0]}." for name, _ in model.named_parameters())
    further = sorted(
        name
        for name in loading["unexpected_keys"]
        if re.sub(r"\d+", "#", name) in blocks or name.startswith(layers)
    )
    if further:
        raise ModelError(
            f"{source.path}: config.json leaves out {len(further)} of the weights, for example "
            f"{further[0]}; the two do not belong together: copy the complete model again, or merge the "
            "adapter that it holds",
            code="model.mismatch",
            path=source.path,
            weights=further,
        )


@torch.no_grad()
def _dry_run(source: ModelSource, model: PreTrainedModel, tuning: Tuning) -> None:
    """A prompt and one more token through the model as generation does, two adapters at once.

    Raises:
        ModelError: see `targets.target_layers`; an adapter would see other rows than its own, or none; or
            the model does not take the inputs of our generation.
    """
    if not tuning.has_adapter:
        _generate(source, model)
        return
    adapter = new_adapter(model, tuning, seed=0)
    idle = set(adapter.factors)
    for name in adapter.factors:
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda *_, name=name: idle.discard(name))
    stack = AdapterStack(model, adapter.factors)
    stack.load([adapter, adapter])
    whole = _generate(source, model)
    stack.remove()
    if whole and idle:
        raise ModelError(
            f"tuning.lora_target_modules: {len(idle)} of the layers are not used for text, for example "
            f"`{min(idle)}`, so an adapter there would never be trained; name other layers",
            code="model.unsupported_layer",
            layer=min(idle),
        )


def _generate(source: ModelSource, model: PreTrainedModel) -> bool:
    """Whether the forward passes of generation could be made without numbers."""
    rows, prompt = 4, 3
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")  # The one that needs no numbers.
    text = model.config.get_text_config(decoder=True)
    try:
        cache = Cache(layers=[PreallocatedLayer(prompt + 1) for _ in range(text.num_hidden_layers)])
        for length, seen in ((prompt, prompt), (1, prompt + 1)):
            model(
                input_ids=torch.zeros(rows, length, dtype=torch.int64, device=META),
                position_ids=torch.zeros(rows, length, dtype=torch.int64, device=META),
                attention_mask=torch.zeros(rows, 1, length, seen, dtype=model.dtype, device=META),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
    except NotImplementedError:
        return False
    except LOAD_ERRORS as error:
        if "meta" in str(error):
            return False
        kind, first = model.config.model_type, str(error).strip().split("\n")[0]
        raise ModelError(
            f"{source.path}: `{kind}` cannot be scored here: it does not take the padded batches and the "
            f"cache of a decoder with attention ({type(error).__name__}: {first}); choose another model",
            code="model.unsupported_architecture",
            path=source.path,
            model_type=kind,
        ) from None
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of what it loads."""
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
