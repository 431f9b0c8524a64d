"""The processes that share one trial, and what they have to agree on.

A trial on one device is a world of one process, in which everything here does nothing. On several GPUs
each process owns one of them, holds a shard of the weights and works on its part of every batch; all of
them take the same decisions, because everything that is decided on is summed or gathered first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of its trial: `rank` of `size`. Larger worlds have a process group."""

    rank: int = 0
    size: int = 1

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every `size`-th item, beginning with this process's own."""
        return items[self.rank :: self.size]

    def all_reduce_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1 and tensors:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, mine: bool, device: torch.device) -> bool:
        """Whether it is so in any process."""
        if self.size == 1:
            return mine
        flag = torch.tensor(float(mine), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def gather(self, mine: Item) -> list[Item]:
        """Everybody's, in the order of ranks."""
        if self.size == 1:
            return [mine]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine)
        return found

    def barrier(self) -> None:
        """Wait until all are here."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = World()
