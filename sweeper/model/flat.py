"""The weights of an adapter in one row, so that optimizer, clipping and averages are one operation each."""

from collections.abc import Sequence

import torch


class FlatWeights:
    """Copies of some weights of one dtype, side by side in memory.

    `row` (1, total) is what is trained and gets the gradient; it is a matrix because AdamW decays matrices.
    `parts` are the weights themselves, in the memory of `row`.
    """

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        self.shapes = tuple(weight.shape for weight in weights)
        self.row = torch.nn.Parameter(join(weights))
        self.parts = tuple(torch.nn.Parameter(part[0]) for part in self.split(self.row.detach()))

    def split(self, rows: torch.Tensor) -> list[torch.Tensor]:
        """(rows, total) -> per weight (rows, *shape), in the same memory."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = zip(rows.split(sizes, dim=1), self.shapes, strict=True)
        return [part.view(len(rows), *shape) for part, shape in parts]

    def share_gradient(self) -> None:
        """Give each of `parts` its part of the gradient of `row`, or none where that has none."""
        gradient = self.row.grad
        found = [None] * len(self.parts) if gradient is None else self.split(gradient)
        for part, own in zip(self.parts, found, strict=True):
            part.grad = None if own is None else own[0]


def join(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Copies of weights as one row (1, total)."""
    return torch.cat([weight.detach().flatten() for weight in weights])[None]
