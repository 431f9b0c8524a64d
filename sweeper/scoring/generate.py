"""Greedy generation with several adapters at once; each gives the same responses as alone.

The batch layout is part of the measurement, because rounding depends on shapes: prompts are sorted by
length, batched by `batch_size`, padded on the left to the longest, and filled up to tiles of 16 rows. Every
adapter answers every batch; finished rows are removed in complete tiles. So the arithmetic of a row depends
only on its prompt's batch, not on the number of adapters, if matrix products treat all rows alike (they do
from 16 rows on in the CPU libraries this was measured with; see docs/explanation/sharing.md).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sweeper.memory import TILE
from sweeper.model.adapters import AdapterStack
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.load import end_tokens
from sweeper.model.sharding import Lockstep, is_sharded
from sweeper.scoring.decode import Batch, Draft, Ending, Node, Row, StopPredicate
from sweeper.scoring.drafts import DraftedRows, Prompts, can_check
from sweeper.scoring.stable_text import StableText


class Request(NamedTuple):
    """A tokenized prompt, and a predicate that may stop its response early (None: only an end token)."""

    tokens: tuple[int, ...]
    decided: StopPredicate | None = None


class Response(NamedTuple):
    """One decoded response and its number of generated tokens, including the end token.

    `cut`: it was stopped early, because no metric depends on the rest. `finite`: no logit that a token was
    chosen by was NaN or infinite; otherwise the response ends there and means nothing. `ids`: the generated
    tokens, which a later response may start from.
    """

    text: str
    tokens: int
    cut: bool
    finite: bool = True
    ids: Draft = ()


class Layout(NamedTuple):
    """The requests of one batch: indices in row order, and the padded prompts."""

    indices: tuple[int, ...]
    ids: torch.Tensor  # (rows, length)
    mask: torch.Tensor  # (rows, length), True where there is a token


def lay_out(requests: Sequence[Request], batch_size: int, pad: int) -> list[Layout]:
    """Batches of similar length. Rows beyond `indices` repeat the last prompt to fill a tile."""
    ordered = sorted(range(len(requests)), key=lambda i: len(requests[i].tokens))
    layouts = []
    for start in range(0, len(ordered), batch_size):
        indices = ordered[start : start + batch_size]
        rows = [requests[i].tokens for i in indices]
        rows += [rows[-1]] * (-len(rows) % TILE)
        length = max(len(row) for row in rows)
        ids = [[pad] * (length - len(row)) + list(row) for row in rows]
        mask = [[False] * (length - len(row)) + [True] * len(row) for row in rows]
        layouts.append(Layout(tuple(indices), torch.tensor(ids), torch.tensor(mask)))
    return layouts


class Generator:
    """Answers a fixed list of requests repeatedly, with the current weights and adapters of a model.

    Args:
        tokenizer: Decodes the responses.
        requests: The prompts.
        max_new_tokens: The most tokens of a response.
        batch_size: Prompts per batch.
        world: The processes that share the requests.
        beat: Called after every step.
        ends: Tokens that end a response beside those of model and tokenizer.
        opened: The text at the end of every prompt that belongs to its response: an open reasoning tag.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[Request],
        *,
        max_new_tokens: int,
        batch_size: int,
        world: World = SINGLE_PROCESS,
        beat: Callable[[], None] = lambda: None,
        ends: Collection[int] = (),
        opened: str = "",
    ) -> None:
        self._ends, self._opened = ends, opened
        self._tokenizer = tokenizer
        self._beat = beat
        self._world = world
        self._requests = requests
        self._max_new_tokens = max_new_tokens
        self._layouts = lay_out(requests, batch_size, int(tokenizer.pad_token_id))
        self._stable = StableText(tokenizer, opened)

    def answer(
        self,
        model: PreTrainedModel,
        stack: AdapterStack | None = None,
        adapters: int | Sequence[int] = 1,
        drafts: Sequence[Draft] = (),
    ) -> list[list[Response]]:
        """Answer every request with every adapter; several processes share the requests.

        Args:
            model: A causal language model in eval mode.
            stack: Its loaded adapters; None without adapters.
            adapters: The number of loaded adapters, or the indices of those that answer, ascending.
            drafts: What the responses may begin with, in the order of the requests. Of use for one adapter
                whose drafts can be checked (`drafts.can_check`), else ignored.

        Returns:
            Per adapter, the responses in the order of the requests.
        """
        loaded = range(adapters) if isinstance(adapters, int) else adapters
        used = drafts if len(loaded) == 1 and any(drafts) and can_check(model) else ()
        steps = Lockstep(model, self._world, partial(_idle, model, stack))
        # Tensors of inference mode must not stay behind in the buffers of sharded weights.
        with torch.no_grad() if is_sharded(model) else torch.inference_mode():
            mine = self._answers(steps, stack, loaded, used)
            steps.wait()
        parts = self._world.gather(mine)
        merged = [
            {i: response for part in parts for i, response in part[adapter].items()}
            for adapter in loaded
        ]
        return [[answers[i] for i in range(len(self._requests))] for answers in merged]

    def _answers(
        self,
        steps: Lockstep,
        stack: AdapterStack | None,
        loaded: Sequence[int],
        drafts: Sequence[Draft],
    ) -> dict[int, dict[int, Response]]:
        """Per adapter, the responses of this process by the number of their request."""
        responses: dict[int, dict[int, Response]] = {adapter: {} for adapter in loaded}
        roots: dict[StopPredicate | None, Node] = {}
        stops = end_tokens(steps.model, self._tokenizer, self._ends)
        ending = Ending(stops, self._max_new_tokens, self._stable)
        work = [
            (
                layout,
                [
                    Row(adapter, index, roots.setdefault(request.decided, Node()), request.decided)
                    for adapter in loaded
                    for index in layout.indices
                    for request in (self._requests[index],)
                ],
            )
            for layout in self._world.share(self._layouts)
        ]
        for row in self._finish(steps, stack, work, ending, drafts):
            responses[row.adapter][row.index] = self._response(row, stops)
        return responses

    def _finish(
        self,
        steps: Lockstep,
        stack: AdapterStack | None,
        work: Sequence[tuple[Layout, list[Row]]],
        ending: Ending,
        drafts: Sequence[Draft],
    ) -> Iterator[Row]:
        """Finish all rows; what a draft leaves uncertain, in its layout without one."""
        if drafts and work:
            if stack is not None:
                stack.arrange([work[0][1][0].adapter])
            for row in (row for _, rows in work for row in rows):
                row.draft = drafts[row.index]
            prompts = [
                Prompts(layout.ids[: len(rows)], layout.mask[: len(rows)], rows)
                for layout, rows in work
            ]
            for row in DraftedRows(steps, prompts, ending).finish(self._beat):
                if not row.uncertain:
                    yield row
        for layout, rows in work:
            left = [row for row in rows if not row.done or row.uncertain]
            for row in left:
                row.restart()
            if left:
                arranged = _arranged(layout, left, whole=len(left) == len(rows))
                yield from Batch(steps, stack, *arranged, ending).finish(self._beat)

    def _response(self, row: Row, stops: set[int]) -> Response:
        """The text of a row that is done, without its end token, which need not be a special one."""
        tokens = row.tokens[:-1] if row.tokens[-1:] and row.tokens[-1] in stops else row.tokens
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        ids = tuple(row.tokens)
        return Response(self._opened + text, len(ids), row.cut, row.finite, ids)

    def cache_bytes(self, model: PreTrainedModel) -> int:
        """Bytes of keys and values that one adapter needs for its largest batch."""
        config = model.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        per_token = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
        tokens = max(ids.numel() + len(ids) * self._max_new_tokens for _, ids, _ in self._layouts)
        return int(per_token * tokens)


def _arranged(
    layout: Layout, rows: Sequence[Row], whole: bool
) -> tuple[torch.Tensor, torch.Tensor, list[Row | None], list[int]]:
    """Prompts, their masks, rows with those that fill tiles, and the adapters of equal blocks of rows.

    Args:
        layout: The prompts.
        rows: Responses to some of them, adapter by adapter.
        whole: Whether each adapter has all of them, and so one block; else every tile is one.
    """
    places = {index: place for place, index in enumerate(layout.indices)}
    height = len(layout.ids)
    used: list[int] = []
    filled: list[Row | None] = []
    slots: list[int] = []
    for adapter, group in groupby(rows, key=lambda row: row.adapter):
        mine = list(group)
        missing = -len(mine) % TILE
        used += [places[row.index] for row in mine]
        used += list(range(len(mine), height)) if whole else [used[-1]] * missing
        filled += [*mine, *[None] * missing]
        slots += [adapter] * (1 if whole else (len(mine) + missing) // TILE)
    return layout.ids[used], layout.mask[used], filled, slots


def _idle(model: PreTrainedModel, stack: AdapterStack | None) -> None:
    """An empty forward pass, needed by the other processes of a sharded model."""
    if stack is not None:
        stack.arrange([0])
    model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
