"""The frozen base model of QLoRA: linear layers in 4 bits, NF4 with double quantisation (arXiv 2305.14314).

bitsandbytes holds and multiplies them. Embeddings, norms, biases and the output layer stay as they are.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from sweeper.errors import MissingExtraError
from sweeper.task import EIGHT_BIT, Tuning

QUANT_TYPE = "nf4"


def check_bitsandbytes(tuning: Tuning, optimizers: Iterable[str]) -> None:
    """Check that bitsandbytes is there if a sweep needs it.

    Raises:
        MissingExtraError: it is not installed.
    """
    needed = ["tuning.method: qlora"] if tuning.quantized else []
    needed += [f"optim: {name}" for name in optimizers if name in EIGHT_BIT]
    if needed and find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            f"`{needed[0]}` needs the package bitsandbytes; install `sweeper-llm[qlora]`"
        )


def loading_options(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantise a model while it is loaded.

    Args:
        dtype: What products are computed in, after the weights are expanded to it.
        device: Where the weights are put.
    """
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=QUANT_TYPE,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_one_layout(model: torch.nn.Module) -> None:
    """Keep the weights in the layout that training needs, in scoring, too.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks a layer at its first forward pass without gradients,
    for a kernel that has no backward pass: training would go on without the gradients of the layers below.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010 - not a field of Module


def plain_weight(layer: torch.nn.Linear) -> torch.Tensor:
    """The weight (out, in) of a linear layer, expanded if it is held in 4 bits."""
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return layer.weight
    from bitsandbytes.functional import dequantize_4bit

    weight: torch.Tensor = dequantize_4bit(layer.weight.data, state)
    return weight
