"""A KV cache for generation with preallocated buffers."""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """The cache of one layer: like transformers' `DynamicLayer`, but without a copy for every token.

    `keys` and `values` are views (rows, heads, tokens so far, width) of buffers for `total` tokens.
    """

    def __init__(self, total: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._total = total
        self._filled = 0
        self._columns: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the buffers."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = [
            states.new_zeros(*states.shape[:2], self._total, states.shape[3])
            for states in (key_states, value_states)
        ]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append new tokens and return all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        pairs = zip(self._buffers, (key_states, value_states), strict=True)
        if self._columns is None:
            start, self._filled = self._filled, self._filled + key_states.shape[2]
            for buffer, states in pairs:
                buffer[:, :, start : self._filled] = states
            return self._show()
        rows = torch.arange(len(self._columns), device=self._columns.device)[:, None]
        for buffer, states in pairs:
            buffer[rows, :, self._columns] = states.transpose(1, 2)
        return self._show()

    def place(self, columns: torch.Tensor, filled: int) -> None:
        """Where the next tokens go, (rows, tokens), and how many columns are shown from then on.

        Columns beyond those of a row hold nothing of use; the attention mask must hide them.
        """
        self._columns, self._filled = columns, filled

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order."""
        kept = []
        for buffer in self._buffers:
            kept.append(buffer.new_zeros(len(rows), *buffer.shape[1:]))
            kept[-1][:, :, : self._filled] = buffer[rows, :, : self._filled]
        self._buffers = kept
        self._show()

    def extend(self, other: "PreallocatedLayer") -> None:
        """Append the rows of another layer with as many columns in all."""
        pairs = zip(self._buffers, other._buffers, strict=True)
        self._buffers = [torch.cat(pair) for pair in pairs]
        self._filled = max(self._filled, other._filled)
        self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (buffer[:, :, : self._filled] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values
