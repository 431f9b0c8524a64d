"""Drafts: tokens that a response may begin with, checked by one forward pass instead of one each.

A draft cannot change a response. A token is taken from the checking pass only where its logit leads by more
than rounding can move logits; any other response is decoded again without a draft.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from transformers import Cache, PreTrainedModel

from sweeper.memory import LOGIT_ROWS
from sweeper.model.kv_cache import PreallocatedLayer
from sweeper.model.logits import PLAIN_HEADS
from sweeper.model.sharding import Lockstep
from sweeper.scoring.decode import Ending, Row, last_logits, prompt_mask

LEAD = 3e-5
"""The least lead of a token's logit over the next, relative to the largest logit of its position.

In fp32 the logits of two batch shapes differed by at most 1.5e-6 of it, at 12,000 positions of the
miniature.
"""


class Choice(NamedTuple):
    """The largest logit of each position, and whether another batch shape must have chosen it, too."""

    tokens: torch.Tensor  # (rows, positions)
    certain: torch.Tensor  # (rows, positions), False also where the logits are NaN or infinite


def choose(logits: torch.Tensor) -> Choice:
    """The greedy tokens of logits (rows, positions, vocabulary)."""
    (first, second), tokens = (part.unbind(-1) for part in logits.topk(2, dim=-1))
    size = torch.maximum(first.abs(), logits.amin(dim=-1).abs())
    return Choice(tokens[0], first - second > LEAD * size)


def can_check(model: PreTrainedModel) -> bool:
    """Whether drafts can be checked: in fp32 throughout, and where nothing but rounding can differ.

    That leaves out routers of experts, which rounding switches, and rotary embeddings that depend on the
    longest row.
    """
    rope = getattr(model.config, "rope_parameters", None) or {}
    return (
        model.config.model_type in PLAIN_HEADS
        and rope.get("rope_type", "default") not in ("dynamic", "longrope")
        and all(parameter.dtype == torch.float32 for parameter in model.parameters())
        and not torch.is_autocast_enabled(model.device.type)
        and torch.get_float32_matmul_precision() == "highest"
    )


TRIED_AGAIN = 2
"""Tokens of a draft that are tried, at their old places, after the first one that differs."""

SMALL_LOGITS = 2**24
"""Logits of one pass that need no room of their own in the memory estimate."""


class Prompts(NamedTuple):
    """The padded prompts of some rows."""

    ids: torch.Tensor  # (rows, length)
    mask: torch.Tensor  # (rows, length), True where there is a token
    rows: Sequence[Row]


class DraftedRows:
    """The responses of one adapter, decoded from drafts; those that rounding may decide are `uncertain`.

    One pass is over the prompts of a batch and their drafts. A row keeps what agrees with its draft and
    goes on from there, so rows have different lengths: each has its own next column in the cache. Rows of
    all batches go on together; the next batch joins when at most half a batch is left.

    Args:
        steps: Makes the forward passes.
        batches: The prompts, batch by batch.
        ending: When a response ends.
    """

    def __init__(self, steps: Lockstep, batches: Sequence[Prompts], ending: Ending) -> None:
        self._steps, self._batches, self._ending = steps, batches, ending
        self._model = steps.model
        self._config = self._model.config.get_text_config(decoder=True)
        self._total = max(batch.ids.shape[1] for batch in batches) + ending.most
        self._rows: list[Row] = []
        self._state: _State

    def finish(self, beat: Callable[[], None]) -> Iterator[Row]:
        """Generate tokens until every row is done; yields each row when it is."""
        for batch in self._batches:
            while 2 * len(self._rows) > len(batch.rows):
                yield from self._advance()
                beat()
            yield from self._join(batch)
            beat()
        while self._rows:
            yield from self._advance()
            beat()

    def _join(self, batch: Prompts) -> Iterator[Row]:
        """The pass over the prompts and drafts of a batch; its unfinished rows join the others."""
        device, most = self._model.device, self._ending.most
        drafts = [row.draft[: most - 1] for row in batch.rows]
        logits = max(LOGIT_ROWS, SMALL_LOGITS // self._config.vocab_size)
        many = min(max(map(len, drafts)), max(1, logits // len(drafts)) - 1)
        padded = [[*draft, *[-1] * (most - len(draft))] for draft in drafts]
        joined = _State(batch, torch.tensor(padded, device=device), self._total, self._config)
        fed = joined.draft[:, :many]
        mask = torch.cat([batch.mask.to(device), torch.ones_like(fed, dtype=torch.bool)], dim=1)
        ids = torch.cat([batch.ids.to(device), fed.clamp(min=0)], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        seen = prompt_mask(mask, self._model.dtype)
        found = last_logits(self._steps, ids, positions, seen, joined.cache, many + 1)
        rows = list(batch.rows)
        yield from self._take(rows, joined, fed, found)
        left = [i for i, row in enumerate(rows) if not row.done]
        joined.select(left)
        if self._rows:
            self._state.extend(joined)
        else:
            self._state = joined
        self._rows += [rows[i] for i in left]

    def _take(
        self, rows: Sequence[Row], state: "_State", fed: torch.Tensor, logits: torch.Tensor
    ) -> Iterator[Row]:
        """Accept what was fed up to the first token that differs; yields the rows that end."""
        chosen = choose(logits)
        accepted = (fed == chosen.tokens[:, :-1]).cumprod(dim=1).sum(dim=1)
        state.next = chosen.tokens.gather(1, accepted[:, None])[:, 0]
        state.known = state.known + accepted + 1
        found = (chosen.tokens.tolist(), chosen.certain.tolist(), accepted.tolist())
        for row, tokens, certain, many in zip(rows, *found, strict=True):
            for token, sure in zip(tokens[: many + 1], certain, strict=False):
                if sure:
                    row.take(token, self._ending)
                else:
                    row.done = row.uncertain = True
                if row.done:
                    yield row
                    break

    def _advance(self) -> Iterator[Row]:
        """At least one more token of every row; yields the rows that end."""
        state, most = self._state, self._ending.most
        tried = max(len(row.draft) - 1 - len(row.tokens) for row in self._rows)
        steps = torch.arange(1 + min(TRIED_AGAIN, max(0, tried)), device=state.known.device)
        # The last known token is fed first. Nothing of use is ever in the last column.
        places = (state.known[:, None] - 1 + steps).clamp(max=most - 1)
        drafted = state.draft.gather(1, (places + 1).clamp(max=most - 1))[:, :-1]
        fed = torch.cat([state.next[:, None], drafted], dim=1).clamp(min=0)
        columns = state.length[:, None] + places
        width = int(columns.max()) + 1
        state.place(columns, width)
        seen = torch.arange(width, device=places.device) <= columns[:, :, None]
        hidden = state.hidden[:, None, :width].expand(-1, len(steps), -1)
        hidden = hidden.masked_fill(~seen, -torch.inf)[:, None]
        positions = state.tokens[:, None] + places
        logits = last_logits(self._steps, fed, positions, hidden, state.cache, len(steps))
        yield from self._take(self._rows, state, drafted, logits)
        left = [i for i, row in enumerate(self._rows) if not row.done]
        if len(left) < len(self._rows):
            state.select(left)
            self._rows = [self._rows[i] for i in left]


class _State:
    """What is kept of each row between passes: one entry per row in every tensor."""

    def __init__(self, batch: Prompts, draft: torch.Tensor, total: int, config: Any) -> None:
        mask = batch.mask.to(draft.device)
        length = mask.shape[1]
        self.draft = draft  # (rows, most), -1 beyond its end
        self.next = draft[:, 0]
        self.known = torch.zeros_like(self.next)  # Tokens of the response.
        self.tokens = mask.sum(dim=1)  # Of the prompt.
        self.length = torch.full_like(self.tokens, length)  # Its columns.
        hidden = torch.zeros(len(mask), total, dtype=torch.float32, device=draft.device)
        hidden[:, :length].masked_fill_(~mask, -torch.inf)
        self.hidden = hidden  # Added to attention scores.
        self._layers = [PreallocatedLayer(total) for _ in range(config.num_hidden_layers)]
        self.cache = Cache(layers=list(self._layers))

    def place(self, columns: torch.Tensor, width: int) -> None:
        """Where the next tokens go; see `PreallocatedLayer.place`."""
        for layer in self._layers:
            layer.place(columns, width)

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.known.device)
        for name in _TENSORS:
            setattr(self, name, getattr(self, name)[index])
        for layer in self._layers:
            layer.select(index)

    def extend(self, other: "_State") -> None:
        """Append the rows of another."""
        for name in _TENSORS:
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.extend(theirs)


_TENSORS = ("draft", "next", "known", "tokens", "length", "hidden")
