"""The processes of one trial, and the collective operations between them.

A trial on one device has a world of one process, in which these operations do nothing. On several GPUs,
each process owns one GPU, holds a shard of the weights and processes its part of every batch. All take
the same decisions, because every value that a decision depends on is reduced or gathered first.
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
        """Whether this is the process that writes files."""
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
        """Whether the flag is set in any process."""
        if self.size == 1:
            return mine
        flag = torch.tensor(float(mine), device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag)

    def gather(self, mine: Item) -> list[Item]:
        """The items of all processes, in the order of ranks."""
        if self.size == 1:
            return [mine]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, mine)
        return gathered

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = World()
