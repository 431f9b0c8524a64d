"""Weight averages along a path, and evaluating a model with averaged weights without changing it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class Shadow:
    """An exponential moving average (EMA) of a list of tensors, kept in fp32.

    `update` sets e <- decay * e + (1 - decay) * theta. It starts at the given tensors, whose weight after N
    updates is decay^N. A bf16 EMA would stall, because its increments would be rounded away.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.values = [tensor.detach().float().clone() for tensor in tensors]

    @torch.no_grad()
    def update(self, tensors: Sequence[torch.Tensor]) -> None:
        """Update the average with the tensors after one optimizer step."""
        current = [tensor.detach().float() for tensor in tensors]
        torch._foreach_lerp_(self.values, current, 1 - self.decay)


@torch.no_grad()
def interpolate(
    current: Sequence[torch.Tensor], start: Sequence[torch.Tensor], weight: float
) -> list[torch.Tensor]:
    """(1 - weight) * current + weight * start, in fp32 (WiSE-FT, arXiv 2109.01903)."""
    origin = [tensor.float() for tensor in start]
    return list(torch._foreach_lerp([tensor.float() for tensor in current], origin, weight))


@contextmanager
def swapped_weights(
    parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor] | None
) -> Iterator[None]:
    """Replace the parameters by `values` within a context, and restore them bit for bit afterwards."""
    if values is None:
        yield
        return
    originals = [parameter.detach().clone() for parameter in parameters]
    _copy(parameters, values)
    try:
        yield
    finally:
        _copy(parameters, originals)


@torch.no_grad()
def _copy(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
