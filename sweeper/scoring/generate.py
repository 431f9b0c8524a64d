"""Greedy generation with several adapters at once; each gives the same responses as alone.

The batch layout is part of the measurement, because rounding depends on shapes: prompts are sorted by
length, batched by `batch_size`, padded on the left to the longest, and filled up to tiles of 16 rows. Every
adapter answers every batch; finished rows are removed in complete tiles. So the arithmetic of a row depends
only on its prompt's batch, not on the number of adapters, if matrix products treat all rows alike (they do
from 16 rows on in the CPU libraries this was measured with; see docs/explanation/sharing.md).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from sweeper.memory import TILE
from sweeper.model.adapters import AdapterStack
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.kv_cache import PreallocatedLayer
from sweeper.model.load import end_tokens
from sweeper.model.sharding import Lockstep, is_sharded

NOT_FINITE = -1
"""Stands for the next token where the logits are NaN or infinite."""

StopPredicate = Callable[[str], bool]
"""Whether a response with this beginning can be stopped early."""


class Request(NamedTuple):
    """A tokenized prompt, and a predicate that may stop its response early (None: only an end token)."""

    tokens: tuple[int, ...]
    decided: StopPredicate | None = None


class Response(NamedTuple):
    """One decoded response and its number of generated tokens, including the end token.

    `cut`: it was stopped early, because no metric depends on the rest. `finite`: no logit that a token was
    chosen by was NaN or infinite; otherwise the response ends there and means nothing.
    """

    text: str
    tokens: int
    cut: bool
    finite: bool = True


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
    ) -> list[list[Response]]:
        """Answer every request with every adapter; several processes share the requests.

        Args:
            model: A causal language model in eval mode.
            stack: Its loaded adapters; None without adapters.
            adapters: The number of loaded adapters, or the indices of those that answer, ascending.

        Returns:
            Per adapter, the responses in the order of the requests.
        """
        loaded = range(adapters) if isinstance(adapters, int) else adapters
        steps = Lockstep(model, self._world, partial(_idle, model, stack))
        # Tensors of inference mode must not stay behind in the buffers of sharded weights.
        with torch.no_grad() if is_sharded(model) else torch.inference_mode():
            mine = self._answers(steps, stack, loaded)
            steps.wait()
        parts = self._world.gather(mine)
        merged = [
            {i: response for part in parts for i, response in part[adapter].items()}
            for adapter in loaded
        ]
        return [[answers[i] for i in range(len(self._requests))] for answers in merged]

    def _answers(
        self, steps: Lockstep, stack: AdapterStack | None, loaded: Sequence[int]
    ) -> dict[int, dict[int, Response]]:
        """Per adapter, the responses of this process by the number of their request."""
        responses: dict[int, dict[int, Response]] = {adapter: {} for adapter in loaded}
        paths: dict[StopPredicate | None, _Node] = {}
        stops = end_tokens(steps.model, self._tokenizer, self._ends)
        for layout in self._world.share(self._layouts):
            batch = _Batch(steps, stack, layout, loaded, self._max_new_tokens)
            rows = [
                _Row(adapter, index, paths.setdefault(request.decided, _Node()), request.decided)
                for adapter in loaded
                for index in layout.indices
                for request in (self._requests[index],)
            ]
            for row in self._finish(batch, rows, stops):
                responses[row.adapter][row.index] = self._response(row, stops)
        return responses

    def _response(self, row: "_Row", stops: set[int]) -> Response:
        """The text of a row that is done, without its end token, which need not be a special one."""
        tokens = row.tokens[:-1] if row.tokens[-1:] and row.tokens[-1] in stops else row.tokens
        text = str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        return Response(self._opened + text, len(row.tokens), row.cut, row.finite)

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

    def _finish(self, batch: "_Batch", rows: Sequence["_Row"], stops: set[int]) -> Iterator["_Row"]:
        """Generate tokens until every row is done; yields each row when it is."""
        batch.watch(rows)
        for last in [False] * (self._max_new_tokens - 1) + [True]:
            for row, token in batch.tokens():
                if token == NOT_FINITE:
                    row.done, row.finite = True, False
                    yield row
                    continue
                row.take(token)
                if token in stops or last:
                    row.done = True
                elif row.decided is not None and row.node.is_decided(row, self._stable):
                    row.done = row.cut = True
                if row.done:
                    yield row
            if all(row.done for row in rows):
                return
            batch.advance()
            self._beat()


def _idle(model: PreTrainedModel, stack: AdapterStack | None) -> None:
    """An empty forward pass, needed by the other processes of a sharded model."""
    if stack is not None:
        stack.arrange([0])
    model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)


class _Row:
    """An unfinished response."""

    __slots__ = ("adapter", "cut", "decided", "done", "finite", "index", "node", "tokens")

    def __init__(
        self, adapter: int, index: int, node: "_Node", decided: StopPredicate | None
    ) -> None:
        self.adapter, self.index, self.node, self.decided = adapter, index, node, decided
        self.tokens: list[int] = []
        self.done = self.cut = False
        self.finite = True

    def take(self, token: int) -> None:
        self.tokens.append(token)
        self.node = self.node.child(token)


class _Node:
    """A beginning shared by several responses, so that its decision is computed only once."""

    __slots__ = ("_children", "_decided")

    def __init__(self) -> None:
        self._children: dict[int, _Node] = {}
        self._decided: bool | None = None

    def child(self, token: int) -> "_Node":
        node = self._children.get(token)
        if node is None:
            node = self._children[token] = _Node()
        return node

    def is_decided(self, row: _Row, stable: "StableText") -> bool:
        if self._decided is None:
            assert row.decided is not None
            self._decided = row.decided(stable(row.tokens))
        return self._decided


class _Batch:
    """The active rows, adapter by adapter, in tiles that each belong to one adapter."""

    def __init__(
        self,
        steps: Lockstep,
        stack: AdapterStack | None,
        layout: Layout,
        loaded: Sequence[int],
        max_new_tokens: int,
    ) -> None:
        self._steps, self._stack = steps, stack
        model = steps.model
        device = model.device
        height, length = layout.ids.shape
        self._height, self._loaded = height, loaded
        config = model.config.get_text_config(decoder=True)
        self._layers = [
            PreallocatedLayer(length + max_new_tokens) for _ in range(config.num_hidden_layers)
        ]
        self._cache = Cache(layers=list(self._layers))
        mask = layout.mask.to(device).repeat(len(loaded), 1)
        self._hidden = torch.zeros(
            len(mask), length + max_new_tokens, dtype=model.dtype, device=device
        )
        self._hidden[:, :length].masked_fill_(~mask, -torch.inf)
        self._column = length
        self._position = mask.sum(dim=1)
        if stack is not None:
            stack.arrange(loaded)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._forward(
            layout.ids.to(device).repeat(len(loaded), 1), positions, _prompt_mask(mask, model.dtype)
        )

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> None:
        logits = self._steps.forward(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        last = logits[:, -1]
        best = last.argmax(dim=-1)  # A NaN is the largest value to argmax.
        finite = last.gather(1, best[:, None])[:, 0].isfinite()
        self._next = best.where(finite, torch.full_like(best, NOT_FINITE))

    def watch(self, rows: Sequence[_Row]) -> None:
        """Assign rows of the batch to responses; rows that only fill a tile belong to none."""
        per_adapter = len(rows) // len(self._loaded)
        filling: list[_Row | None] = [None] * (self._height - per_adapter)
        self._rows: list[_Row | None] = []
        for start in range(0, len(rows), per_adapter):
            self._rows += [*rows[start : start + per_adapter], *filling]
        self._owners = [i for i in self._loaded for _ in range(self._height)]

    def tokens(self) -> Iterator[tuple[_Row, int]]:
        """The next token of every row that is not done, or NOT_FINITE."""
        for row, token in zip(self._rows, self._next.tolist(), strict=True):
            if row is not None and not row.done:
                yield row, token

    def advance(self) -> None:
        """Compute the next token of the rows that are not done."""
        self._compact()
        self._column += 1
        hidden = self._hidden[:, None, None, : self._column]
        self._forward(self._next[:, None].clamp(min=0), self._position[:, None], hidden)
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
        index = torch.tensor(keep, device=self._next.device)
        self._rows = [self._rows[i] for i in keep]
        self._owners = [self._owners[i] for i in keep]
        self._next, self._position = self._next[index], self._position[index]
        self._hidden = self._hidden[index]
        for layer in self._layers:
            layer.select(index)
        if self._stack is not None:
            self._stack.arrange(self._owners[::TILE])


def _prompt_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(rows, 1, length, length): -inf where attention is masked, and 0 elsewhere.

    Padding attends to itself, because a row without any unmasked position would give NaN.
    """
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    own = torch.eye(length, dtype=torch.bool, device=mask.device)
    seen = ((causal & mask[:, None, :]) | own)[:, None]
    return torch.zeros(seen.shape, dtype=dtype, device=mask.device).masked_fill_(~seen, -torch.inf)


class StableText:
    """Decodes the part of a token sequence that no further token can change.

    Omitted are incomplete characters, a trailing run of byte tokens (sentencepiece decodes such a run as a
    unit, across skipped special tokens), and the last two words if decoding rewrites spaces.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, opened: str = "") -> None:
        self._tokenizer, self._opened = tokenizer, opened
        vocabulary = tokenizer.get_vocab()
        self._open = {i for token, i in vocabulary.items() if _is_byte_token(token)}
        self._open |= set(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = type(getattr(backend, "decoder", None)).__name__
        self._rewrites = bool(tokenizer.clean_up_tokenization_spaces) or decoder == "WordPiece"

    def __call__(self, tokens: Sequence[int]) -> str:
        """The stable text after what the prompt has opened; special tokens are left out."""
        end = len(tokens)
        while end and tokens[end - 1] in self._open:
            end -= 1
        text = str(self._tokenizer.decode(list(tokens[:end]), skip_special_tokens=True))
        text = text.rstrip("\ufffd")
        return self._opened + (" ".join(text.split(" ")[:-2]) if self._rewrites else text)


def _is_byte_token(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
