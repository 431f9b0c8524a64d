"""Bytes of weights in 4 bits and of moments in 8, as bitsandbytes 0.50 holds them; tests compare both."""

from collections.abc import Iterator

from sweeper.memory.shape import ModelShape
from sweeper.task import ADAMW, Tuning

WEIGHT_BLOCK = 64
"""Weights that share a scale. With double quantisation a scale is a byte, and 256 share an fp32 one: 4.127
bits per weight (arXiv 2305.14314, section 3)."""

MOMENT_BLOCK = 256
"""Moments that share a scale in fp32 (arXiv 2110.02861)."""

TABLE_BYTES = 4 * (16 + 256 + 1)
"""The codes of weights and of scales, and the mean scale, in fp32; each layer has its own."""

LEAST_8_BIT = 4096
"""Moments of smaller tensors stay in 32 bits."""

LEAST_PAGED = 100_000
"""Moments of smaller tensors are not paged."""


def nf4_bytes(weights: int) -> int:
    """Bytes of one linear layer in NF4 with double quantisation."""
    blocks = -(-weights // WEIGHT_BLOCK)
    return -(-weights // 2) + blocks + 4 * -(-blocks // MOMENT_BLOCK) + TABLE_BYTES


def base_bytes(shape: ModelShape, tuning: Tuning, held: int) -> int:
    """Bytes of the model's weights.

    Args:
        shape: The model.
        tuning: With QLoRA, the linear layers of the blocks are in 4 bits.
        held: Bytes of one weight that is not.
    """
    if not tuning.quantized:
        return shape.parameters * held
    sizes = [inputs * outputs for inputs, outputs in shape.linear_layers.values()]
    rest = shape.parameters - shape.layers * sum(sizes)
    return shape.layers * sum(map(nf4_bytes, sizes)) + rest * held


def expanded_bytes(shape: ModelShape, tuning: Tuning, size: int) -> int:
    """Bytes of the largest layer in 4 bits while it is expanded, in every pass; 0 without such layers."""
    if not tuning.quantized:
        return 0
    return size * max(inputs * outputs for inputs, outputs in shape.linear_layers.values())


def moment_bytes(
    shape: ModelShape, tuning: Tuning, own: int, optim: str, *, resident: bool = False
) -> int:
    """Bytes of the two moments of every trained weight.

    Args:
        shape: The model.
        tuning: Which weights are trained.
        own: Bytes of one trained weight, which 32-bit AdamW keeps its moments in, too.
        optim: The optimizer.
        resident: Without those of a paged optimizer that may be on the CPU instead of the GPU.

    Raises:
        ModelError: a LoRA target that a Llama block does not have.
    """
    if optim == ADAMW:
        return 2 * own * shape.trainable(tuning)
    away = LEAST_PAGED if resident and optim.startswith("paged") else None
    return sum(
        many * _moments(count, eight)
        for count, many, eight in _tensors(shape, tuning)
        if away is None or count < away
    )


def _moments(count: int, eight: bool) -> int:
    if not eight or count < LEAST_8_BIT:
        return 8 * count
    return 2 * count + 8 * -(-count // MOMENT_BLOCK)


def _tensors(shape: ModelShape, tuning: Tuning) -> Iterator[tuple[int, int, bool]]:
    """Weights of a trained tensor, how many tensors are like it, and whether 8 bits are for it.

    Full tuning: norms and biases, small as they are, count as one tensor per block.
    """
    if tuning.has_adapter:
        for inputs, outputs in shape.adapted(tuning):
            yield tuning.lora_r * inputs, shape.layers, True
            yield tuning.lora_r * outputs, shape.layers, True
            if tuning.use_dora:
                yield outputs, shape.layers, True
        return
    sizes = [inputs * outputs for inputs, outputs in shape.linear_layers.values()]
    for size in sizes:
        yield size, shape.layers, True
    table = shape.vocabulary * shape.hidden
    yield table, 1, False
    if not shape.tied:
        yield table, 1, True
    others = shape.parameters - table * (1 if shape.tied else 2) - shape.layers * sum(sizes)
    yield others // shape.layers, shape.layers, True
