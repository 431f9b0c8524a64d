"""From rows to the tokens a model is trained on, and the order it sees them in."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from sweeper.errors import DataError
from sweeper.task import DataSettings
from sweeper.trial.data import Example, load_examples

CHAT_DATE = "01 Jan 2025"
"""Llama 3.2's template writes a date into every prompt; a fixed one keeps runs comparable."""

_ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
)


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
    """Turns text into tokens through one template, the same in training and evaluation."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, max_length: int) -> None:
        if template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise DataError(
                f"the tokenizer {tokenizer.name_or_path} has no chat template; "
                "use `data.template: alpaca` or an instruction-tuned model"
            )
        if tokenizer.eos_token_id is None:
            raise DataError(f"the tokenizer {tokenizer.name_or_path} has no end-of-text token")
        self.max_length = max_length
        self._tokenizer = tokenizer
        self._template = template

    def prompt(self, text: str) -> tuple[int, ...]:
        """The tokens of a prompt, ready to be answered."""
        return self._tokens(self._prompt_text(text))

    def example(self, example: Example) -> Encoded:
        """The tokens of a row, cut at `max_length`: the completion is empty where there is no room."""
        return self.cut(self.whole(example))

    def whole(self, example: Example) -> Encoded:
        """The tokens of an uncut row: prompt and completion are tokenised apart, as at generation time.

        The completion keeps its end-of-turn.
        """
        return Encoded(self.prompt(example.prompt), self._tokens(self._completion_text(example)))

    def cut(self, row: Encoded) -> Encoded:
        """The row within `max_length` tokens; the completion gives way."""
        return Encoded(row.prompt, row.completion[: max(0, self.max_length - len(row.prompt))])

    def _prompt_text(self, text: str) -> str:
        if self._template == "alpaca":
            return (self._tokenizer.bos_token or "") + _ALPACA.format(prompt=text)
        return self._chat([{"role": "user", "content": text}], add_generation_prompt=True)

    def _completion_text(self, example: Example) -> str:
        if self._template == "alpaca":
            return f"{example.completion}{self._tokenizer.eos_token}"
        start = self._prompt_text(example.prompt)
        turns = [
            {"role": "user", "content": example.prompt},
            {"role": "assistant", "content": example.completion},
        ]
        whole = self._chat(turns, add_generation_prompt=False)
        if not whole.startswith(start):
            raise DataError(
                "the chat template writes a prompt differently once it is answered, so the completion "
                "cannot be told from the prompt; use `data.template: alpaca`"
            )
        return whole[len(start) :]

    def _chat(self, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        text = self._tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            date_string=CHAT_DATE,
        )
        return str(text)

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def load_training_data(settings: DataSettings, encoder: Encoder) -> TrainingData:
    """Read, split and encode the rows of a sweep.

    Without a held-out file, the `heldout_rows` rows with the smallest hash of their prompt are held
    out, so that the split depends on neither order nor seed. Training rows whose prompt is held out
    are dropped in either case.

    Raises:
        DataError: see `load_examples`; nothing left to train on; or an overlong prompt.
    """
    train = load_examples(settings.train)
    if settings.heldout is None:
        assert settings.heldout_rows is not None
        ordered = sorted(train, key=lambda row: (_prompt_hash(row), row.completion))
        heldout = ordered[: settings.heldout_rows]
    else:
        heldout = load_examples(settings.heldout)
    taken = {example.prompt for example in heldout}
    kept = [example for example in train if example.prompt not in taken]
    if not kept:
        raise DataError(
            f"{settings.train.path}: {len(train)} rows, none left to train on after holding out "
            f"{len(heldout)}; give more rows or fewer `heldout_rows`"
        )
    for example in heldout:
        check_prompt(settings, encoder, encoder.prompt(example.prompt), "held-out prompt")
    encoded, overlong, truncated = [], 0, 0
    for number, example in enumerate(kept, start=1):
        whole = encoder.whole(example)
        row = encoder.cut(whole)
        if not row.completion:
            if settings.overlong_prompts == "error":
                check_prompt(settings, encoder, row.prompt, f"prompt of training row {number}")
            overlong += 1
            continue
        truncated += len(row.completion) < len(whole.completion)
        encoded.append(row)
    if not encoded:
        raise DataError(f"{settings.train.path}: every prompt is longer than max_length")
    counts = {
        "train_rows": len(encoded),
        "heldout_rows": len(heldout),
        "dropped_heldout_prompts": len(train) - len(kept),
        "dropped_overlong_prompts": overlong,
        "truncated_completions": truncated,
    }
    return TrainingData(tuple(encoded), tuple(heldout), counts)


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
            "data.max_length, shorten the prompt, or set `overlong_prompts: drop` for training rows"
        )


def _prompt_hash(example: Example) -> str:
    return hashlib.sha256(example.prompt.encode("utf-8")).hexdigest()


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
