"""Finds weights and logits that are NaN or infinite: a model that has them cannot be measured."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether no value of some tensors is NaN or infinite; quantized ones have none."""
    ends = [
        torch.stack(torch.aminmax(tensor.detach())).isfinite().all()
        for tensor in tensors
        if tensor.dtype in _DTYPES and tensor.numel()
    ]
    return all(flag.item() for flag in ends)


@contextmanager
def watched_logits(model: torch.nn.Module) -> Iterator[Callable[[], bool]]:
    """Watch the logits of the last position of every forward pass; the last, as NaN passes on to it.

    Yields a function that tells whether the largest logit of every row was finite so far.
    """
    flags: list[torch.Tensor] = []

    def look(module: torch.nn.Module, arguments: Any, output: Any) -> None:
        fine = output.logits[:, -1].amax(dim=-1).isfinite().all()
        flags[:] = [fine & flags[0]] if flags else [fine]

    hook = model.register_forward_hook(look)
    try:
        yield lambda: all(bool(flag) for flag in flags)
    finally:
        hook.remove()
