"""Weight averages along a path, and evaluating a model with averaged weights without changing it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from sweeper.task import Bema


class Shadow:
    """A running average of a list of tensors, kept in fp32: an EMA given by its decay, or that of a BEMA.

    `update` sets e <- (1 - b) * e + b * theta, where b is 1 - decay or `Bema.newest_weight`. It starts at
    the given tensors, whose weight after N updates of an EMA is decay^N. A bf16 EMA would stall, because
    its increments would be rounded away.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], average: float | Bema) -> None:
        self.average = average
        self.values = [tensor.detach().float().clone() for tensor in tensors]

    @torch.no_grad()
    def update(self, tensors: Sequence[torch.Tensor], step: int) -> None:
        """Update the average with the tensors after optimizer step `step`, counted from 1."""
        one = self.average
        newest = one.newest_weight(step) if isinstance(one, Bema) else 1 - one
        if newest:
            current = [tensor.detach().float() for tensor in tensors]
            torch._foreach_lerp_(self.values, current, newest)


@torch.no_grad()
def bias_corrected(
    shadow: Sequence[torch.Tensor],
    current: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    correction: float,
) -> list[torch.Tensor]:
    """Shadow + correction * (current - start), in fp32 (BEMA, arXiv 2508.00180)."""
    moved = torch._foreach_sub([x.float() for x in current], [x.float() for x in start])
    return list(torch._foreach_add(list(shadow), list(moved), alpha=correction))


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
