"""The shape of any decoder-only model, for estimates of memory and cost."""

import re
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.memory import FAMILIES, ModelShape, read_shape, shape_of
from sweeper.model.architecture import empty_model
from sweeper.task import ModelSource


def known_shape(source: ModelSource) -> ModelShape:
    """The shape in a local folder's or cached model's configuration; no weights are read.

    Raises:
        ModelError: no configuration, or not one of a decoder-only model.
    """
    try:
        return read_shape(source.path, source.revision)
    except ModelError as error:
        if error.code != "model.unsupported":
            raise
        folder = Path(str(error.values["path"])).parent
    return model_shape(empty_model(ModelSource(str(folder))))


def model_shape(model: PreTrainedModel) -> ModelShape:
    """The shape of a model, which may be on the meta device.

    Blocks of other families than `memory.FAMILIES` are counted weight by weight, and their activations as
    those of a Llama block of the same widths. Of experts, the active ones count as the width of the MLP,
    all as weights and as arithmetic.

    Raises:
        ModelError: the configuration does not say how wide the model is.
    """
    text: Any = model.config.get_text_config(decoder=True)
    if text.model_type in FAMILIES:
        return shape_of(text.to_dict(), text.model_type)
    try:
        layers, heads, hidden = (
            int(getattr(text, name))
            for name in ("num_hidden_layers", "num_attention_heads", "hidden_size")
        )
        kv_heads = int(getattr(text, "num_key_value_heads", None) or heads)
        head_dim = int(getattr(text, "head_dim", None) or hidden // heads)
        return ModelShape(
            layers=layers,
            hidden=hidden,
            intermediate=_intermediate(text),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            vocabulary=int(text.vocab_size),
            tied=bool(getattr(text, "tie_word_embeddings", False)),
            counted=sum(value.numel() for value in model.parameters()),
            linear=_linear_layers(model),
            extra_norms=_extra_norms(model, hidden, (heads + kv_heads) * head_dim),
        )
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"`{text.model_type}`: no estimate, as the configuration does not say how wide it is: {error}",
            code="model.unsupported",
            model_type=text.model_type,
        ) from None


def _intermediate(text: Any) -> int:
    """The width of the MLP that one token passes through."""
    dense = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    active = getattr(text, "num_experts_per_tok", None)
    if active is None:
        return int(dense)
    return int(active * (getattr(text, "moe_intermediate_size", None) or dense))


def _linear_layers(model: PreTrainedModel) -> tuple[tuple[str, int, int], ...]:
    """(name, inputs, outputs) of the linear layers of a block, by the last part of their names."""
    found: dict[str, tuple[int, int]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and re.search(r"\.\d+\.", name):
            found.setdefault(name.rpartition(".")[2], (layer.in_features, layer.out_features))
    return tuple((name, *sizes) for name, sizes in found.items())


def _extra_norms(model: PreTrainedModel, hidden: int, per_head: int) -> int:
    """Values per token that the norms of the first block read, beyond two of the hidden width.

    Norms of one width per head come in pairs, for queries and keys: `per_head` values in all.
    """
    norms = [
        sum(value.numel() for value in module.parameters(recurse=False)) >= hidden
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__ and ".0." in name
    ]
    wide: int = sum(norms)
    return max(0, wide - 2) * hidden + (len(norms) - wide) // 2 * per_head
