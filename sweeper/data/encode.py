"""From rows to the tokens a model is trained on, and the order it sees them in."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from sweeper.data.chat_format import Writer
from sweeper.data.load import Example, Turn
from sweeper.data.split import split_rows
from sweeper.errors import DataError
from sweeper.task import DataSettings


class Encoded(NamedTuple):
    """One row as tokens. Only `completion` (its end-of-turn included) is trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class Batch(NamedTuple):
    """A padded micro-batch of one or more slots, and where its target tokens are predicted.

    Rows are padded on the right, where causal attention of real tokens cannot see it: no mask is needed.
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


class TrainingData(NamedTuple):
    """Encoded training rows, held-out examples, and what was left out on the way."""

    train: tuple[Encoded, ...]
    heldout: tuple[Example, ...]
    counts: dict[str, int]


class Encoder:
    """Turns text into tokens in one dialogue; the same in training and evaluation where both use it.

    `template` and `system` are those of `task.Dialogue`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        max_length: int,
        system: str | None = None,
    ) -> None:
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._writer = Writer(tokenizer, template, system)

    def prompt(self, text: str, before: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The tokens of a prompt and the turns before it, ready to be answered.

        Raises:
            DataError: the template has no place for these turns.
        """
        return self._tokens(self._writer.prompt(text, before))

    def example(self, example: Example) -> Encoded:
        """The tokens of a row, cut at `max_length`: the completion is empty where there is no room."""
        return self.cut(self.whole(example))

    def whole(self, example: Example) -> Encoded:
        """The tokens of an uncut row: the prompt as at generation time, and what continues it.

        The completion keeps its end-of-turn. Its tokens are those it has behind the prompt; where the two
        would melt into one token at their border, it is tokenised by itself.
        """
        asked, answer = self._writer.row(example)
        prompt, both = self._tokens(asked), self._tokens(asked + answer)
        if both[: len(prompt)] == prompt:
            return Encoded(prompt, both[len(prompt) :])
        return Encoded(prompt, self._tokens(answer))

    def cut(self, row: Encoded) -> Encoded:
        """The row within `max_length` tokens; the completion gives way."""
        return Encoded(row.prompt, row.completion[: max(0, self.max_length - len(row.prompt))])

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def load_training_data(
    settings: DataSettings, encoder: Encoder, scored: Encoder | None = None
) -> TrainingData:
    """Read, split and encode the rows of a sweep; `split.split_rows` says which rows go where.

    Args:
        settings: Where they are and how they are split.
        encoder: Of the training rows.
        scored: Of the held-out rows, where it is another one.

    Raises:
        DataError: see `split_rows`; or an overlong prompt; or none but overlong ones.
        MissingExtraError: see `split_rows`.
    """
    split = split_rows(settings)
    counts = {**split.counts, "dropped_overlong_prompts": 0, "truncated_completions": 0}
    counts |= {"dropped_overlong_heldout": 0, "truncated_heldout": 0}
    encoded, heldout = [], []
    for number, example in split.train.items():
        row, fits = _fitting(settings, encoder, example, f"prompt of training row {number}")
        counts["dropped_overlong_prompts"] += not row.completion
        counts["truncated_completions"] += bool(row.completion) and not fits
        encoded += [row] if row.completion else []
    for number, example in split.heldout.items():
        what = f"prompt of held-out row {number}"
        row, fits = _fitting(settings, scored or encoder, example, what)
        counts["dropped_overlong_heldout"] += not row.completion
        counts["truncated_heldout"] += bool(row.completion) and not fits
        heldout += [example] if row.completion else []
    for rows, source in ((encoded, settings.train), (heldout, settings.heldout or settings.train)):
        if not rows:
            raise DataError(f"{source.path}: every prompt is longer than max_length")
    counts |= {"train_rows": len(encoded), "heldout_rows": len(heldout)}
    return TrainingData(tuple(encoded), tuple(heldout), counts)


def _fitting(
    settings: DataSettings, encoder: Encoder, example: Example, what: str
) -> tuple[Encoded, bool]:
    """The row cut at `max_length`, and whether it is whole; no completion where it is to be dropped.

    Raises:
        DataError: its prompt leaves no room, and `overlong_prompts` is `error`; or the template has no
            place for its turns.
    """
    try:
        whole = encoder.whole(example)
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    row = encoder.cut(whole)
    if not row.completion and settings.overlong_prompts == "error":
        check_prompt(settings, encoder, row.prompt, what)
    return row, row == whole


def check_prompt(
    settings: DataSettings, encoder: Encoder, tokens: Sequence[int], what: str
) -> None:
    """Refuse a prompt that leaves no room for an answer.

    Raises:
        DataError: the prompt has `max_length` tokens or more.
    """
    if len(tokens) >= encoder.max_length:
        raise DataError(
            f"{what} has {len(tokens)} tokens, max_length is {encoder.max_length}; raise "
            "data.max_length, shorten the prompt, or set `overlong_prompts: drop` for rows of data"
        )


class RowOrder:
    """Which rows the effective batch of each optimizer step holds: a pure function of seed and step.

    Rows come as an endless chain of seeded permutations, one per epoch, cut into batches; a batch may
    span two epochs. Being a function of the step, the position needs no checkpoint.
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
    """Pad the rows of all slots on the right to the longest of them; prompts are no targets.

    Args:
        slots: The rows of each slot, equally many.
        pad_token_id: What fills up short rows.
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
    """Cut an effective batch into micro-batches of `size` rows of similar length.

    Which rows a micro-batch holds changes nothing but rounding: the loss is divided by the target tokens
    of the whole effective batch.
    """
    if size >= len(rows):
        return [rows]
    ordered = sorted(rows, key=lambda row: len(row.prompt) + len(row.completion))
    return [ordered[start : start + size] for start in range(0, len(rows), size)]
