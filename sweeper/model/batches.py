"""Batches of encoded rows as tensors, and the order in which training sees the rows."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from sweeper.data.encode import Encoded


class Batch(NamedTuple):
    """A padded micro-batch of one or more slots, and the positions that predict its target tokens.

    Rows are padded on the right, which causal attention of real tokens cannot see, so no mask is needed.
    """

    input_ids: torch.Tensor  # (rows, length), int64
    places: torch.Tensor  # (targets,): indices into (rows * length) of the positions that predict
    targets: torch.Tensor  # (targets,): the tokens to predict there, slot by slot
    counts: tuple[int, ...]  # targets per slot

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            self.places.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.counts,
        )

    def repeated(self, slots: int) -> "Batch":
        """The same rows for each of several slots, from a batch of one."""
        if slots == 1:
            return self
        shifts = torch.arange(slots, device=self.places.device) * self.input_ids.numel()
        return Batch(
            self.input_ids.repeat(slots, 1),
            (shifts[:, None] + self.places).flatten(),
            self.targets.repeat(slots),
            self.counts * slots,
        )


class RowOrder:
    """The rows in the effective batch of each optimizer step, as a pure function of seed and step.

    Rows are an endless sequence of seeded permutations, one per epoch, split into batches; a batch may
    span two epochs. As it is a function of the step, the position needs no checkpoint.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    def batch(self, step: int) -> list[int]:
        """The row indices of optimizer step `step` (from 0), `batch_size` of them."""
        start = step * self._batch_size
        places = range(start, start + self._batch_size)
        return [self._epoch(place // self._rows)[place % self._rows] for place in places]

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            order: list[int] = torch.randperm(self._rows, generator=generator).tolist()
            self._epochs = {e: rows for e, rows in self._epochs.items() if e >= epoch - 1}
            self._epochs[epoch] = order
        return self._epochs[epoch]


def collate(slots: Sequence[Sequence[Encoded]], pad_token_id: int) -> Batch:
    """Pad the rows of all slots on the right to the longest row; only completions are targets.

    Args:
        slots: The rows of each slot, the same number for all.
        pad_token_id: The token to pad with.
    """
    rows = [row for slot in slots for row in slot]
    length = max(len(row.prompt) + len(row.completion) for row in rows)
    ids: list[list[int]] = []
    places: list[int] = []
    targets: list[int] = []
    for number, row in enumerate(rows):
        padding = length - len(row.prompt) - len(row.completion)
        ids.append([*row.prompt, *row.completion, *[pad_token_id] * padding])
        first = number * length + len(row.prompt) - 1
        places += range(first, first + len(row.completion))
        targets += row.completion
    counts = tuple(sum(len(row.completion) for row in slot) for slot in slots)
    return Batch(torch.tensor(ids), torch.tensor(places), torch.tensor(targets), counts)


def micro_batches(rows: Sequence[Encoded], size: int) -> list[Sequence[Encoded]]:
    """Split an effective batch into micro-batches of `size` rows of similar length.

    The split affects only rounding, because the loss is divided by the target tokens of the whole effective
    batch.
    """
    if size >= len(rows):
        return [rows]
    ordered = sorted(rows, key=lambda row: len(row.prompt) + len(row.completion))
    return [ordered[start : start + size] for start in range(0, len(rows), size)]
