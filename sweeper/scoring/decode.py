"""One batch of responses, decoded greedily, token by token."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import Cache

from sweeper.memory import TILE
from sweeper.model.adapters import AdapterStack
from sweeper.model.kv_cache import PreallocatedLayer
from sweeper.model.sharding import Lockstep
from sweeper.scoring.stable_text import StableText

Draft = tuple[int, ...]
"""The tokens of one response, with its end token; () stands for no draft."""

NOT_FINITE = -1
"""Stands for the next token where the logits are NaN or infinite."""

StopPredicate = Callable[[str], bool]
"""Whether a response with this beginning can be stopped early."""


class Ending(NamedTuple):
    """When a response ends: at an end token, at `most` tokens, or when its predicate says so."""

    tokens: Collection[int]
    most: int
    stable: StableText


class Row:
    """A response that is being generated.

    `uncertain`: a draft was checked where rounding may decide, so that it must be decoded without one.
    """

    __slots__ = (
        "adapter",
        "cut",
        "decided",
        "done",
        "draft",
        "finite",
        "index",
        "node",
        "root",
        "tokens",
        "uncertain",
    )

    def __init__(
        self,
        adapter: int,
        index: int,
        root: "Node",
        decided: StopPredicate | None,
    ) -> None:
        self.adapter, self.index, self.root, self.decided = adapter, index, root, decided
        self.draft: Draft = ()
        self.restart()

    def restart(self) -> None:
        """Forget what was generated."""
        self.tokens: list[int] = []
        self.node = self.root
        self.done = self.cut = self.uncertain = False
        self.finite = True

    def take(self, token: int, ending: Ending) -> None:
        """Append a token, and end where the response ends."""
        if token == NOT_FINITE:
            self.done, self.finite = True, False
            return
        self.tokens.append(token)
        self.node = self.node.child(token)
        if token in ending.tokens or len(self.tokens) == ending.most:
            self.done = True
        elif self.decided is not None and self.node.is_decided(self, ending.stable):
            self.done = self.cut = True


class Node:
    """A beginning shared by several responses, so that its decision is computed only once."""

    __slots__ = ("_children", "_decided")

    def __init__(self) -> None:
        self._children: dict[int, Node] = {}
        self._decided: bool | None = None

    def child(self, token: int) -> "Node":
        """The beginning that is one token longer."""
        node = self._children.get(token)
        if node is None:
            node = self._children[token] = Node()
        return node

    def is_decided(self, row: Row, stable: StableText) -> bool:
        """Whether the response of a row, which begins like this, can be stopped here."""
        if self._decided is None:
            assert row.decided is not None
            self._decided = row.decided(stable(row.tokens))
        return self._decided


class Batch:
    """The active rows, adapter by adapter, in tiles that each belong to one adapter.

    Args:
        steps: Makes the forward passes.
        stack: The loaded adapters; None without adapters.
        ids: The prompts (rows, length), padded on the left.
        mask: (rows, length), True where there is a token.
        rows: The response of each row; None where it only fills a tile.
        slots: The adapters of equal blocks of rows, ascending.
        ending: When a response ends.
    """

    def __init__(
        self,
        steps: Lockstep,
        stack: AdapterStack | None,
        ids: torch.Tensor,
        mask: torch.Tensor,
        rows: Sequence[Row | None],
        slots: Sequence[int],
        ending: Ending,
    ) -> None:
        self._steps, self._stack, self._ending = steps, stack, ending
        model = steps.model
        self._ids, self._mask = ids.to(model.device), mask.to(model.device)
        self._rows = list(rows)
        self._owners = [slot for slot in slots for _ in range(len(rows) // len(slots))]
        config = model.config.get_text_config(decoder=True)
        length = ids.shape[1]
        total = length + ending.most
        self._layers = [PreallocatedLayer(total) for _ in range(config.num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))
        self._hidden = torch.zeros(len(rows), total, dtype=model.dtype, device=model.device)
        self._hidden[:, :length].masked_fill_(~self._mask, -torch.inf)
        self._column = length
        self._position = self._mask.sum(dim=1)
        if stack is not None:
            stack.arrange(slots)

    def finish(self, beat: Callable[[], None]) -> Iterator[Row]:
        """Generate tokens until every row is done; yields each row when it is."""
        self._start()
        while True:
            yield from self._take()
            if all(row is None or row.done for row in self._rows):
                return
            self._compact()
            self._advance()
            beat()

    def _start(self) -> None:
        """The pass over the prompts."""
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        self._choose(self._ids, positions, prompt_mask(self._mask, self._hidden.dtype))

    def _choose(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> None:
        """One forward pass; the next token of every row."""
        last = last_logits(self._steps, ids, positions, mask, self._cache)[:, 0]
        best = last.argmax(dim=-1)  # A NaN is the largest value to argmax.
        finite = last.gather(1, best[:, None])[:, 0].isfinite()
        self._next = best.where(finite, torch.full_like(best, NOT_FINITE))

    def _take(self) -> Iterator[Row]:
        """Give every row that is not done its next token; yields those that end."""
        for row, token in zip(self._rows, self._next.tolist(), strict=True):
            if row is not None and not row.done:
                row.take(token, self._ending)
                if row.done:
                    yield row

    def _advance(self) -> None:
        """Compute the next token of the rows that are not done."""
        self._column += 1
        hidden = self._hidden[:, None, None, : self._column]
        self._choose(self._next[:, None].clamp(min=0), self._position[:, None], hidden)
        self._position = self._position + 1

    def _compact(self) -> None:
        """Drop tiles whose rows are all done."""
        keep: list[int] = []
        for adapter in sorted(set(self._owners)):
            mine = [i for i, owner in enumerate(self._owners) if owner == adapter]
            busy = [i for i in mine if (row := self._rows[i]) is not None and not row.done]
            idle = [i for i in mine if (row := self._rows[i]) is None or row.done]
            keep += busy + idle[: -len(busy) % TILE]
        if len(keep) == len(self._rows):
            return
        self._rows = [self._rows[i] for i in keep]
        self._owners = [self._owners[i] for i in keep]
        index = torch.tensor(keep, device=self._next.device)
        self._next, self._position = self._next[index], self._position[index]
        self._hidden = self._hidden[index]
        for layer in self._layers:
            layer.select(index)
        if self._stack is not None:
            self._stack.arrange(self._owners[::TILE])


def last_logits(
    steps: Lockstep,
    ids: torch.Tensor,
    positions: torch.Tensor,
    mask: torch.Tensor,
    cache: Cache,
    keep: int = 1,
) -> torch.Tensor:
    """The logits (rows, keep, vocabulary) of the last tokens of a forward pass."""
    logits: torch.Tensor = steps.forward(
        input_ids=ids,
        position_ids=positions,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    ).logits
    return logits[:, -keep:]


def prompt_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(rows, 1, length, length): -inf where attention is masked, and 0 elsewhere.

    Padding attends to itself, because a row without any unmasked position would give NaN.
    """
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=mask.device)
    seen = ((causal & mask[:, None, :]) | own)[:, None]
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill_(~seen, -torch.inf)
