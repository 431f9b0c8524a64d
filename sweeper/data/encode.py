"""From rows to the tokens a model is trained on."""

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sweeper.data.chat_format import PromptFormatter
from sweeper.data.load import Example, Turn
from sweeper.data.split import split_rows
from sweeper.errors import DataError
from sweeper.task import DataSettings


class Encoded(NamedTuple):
    """One row as tokens. Only `completion` (its end-of-turn included) is trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class TrainingData(NamedTuple):
    """Encoded training rows, held-out examples, and how many rows were dropped or truncated."""

    train: tuple[Encoded, ...]
    heldout: tuple[Example, ...]
    counts: dict[str, int]


class Encoder:
    """Turns text into tokens in one chat format, which training and evaluation may share.

    `template` and `system` are those of `task.ChatFormat`.
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
        self._formatter = PromptFormatter(tokenizer, template, system)

    def prompt(self, text: str, before: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The tokens of a prompt and the turns before it, up to where the answer begins.

        Raises:
            DataError: the template has no place for these turns.
        """
        return self._tokens(self._formatter.prompt(text, before))

    def example(self, example: Example) -> Encoded:
        """The tokens of a row, truncated to `max_length`; a long prompt leaves an empty completion."""
        return self.truncate(self.encode_untruncated(example))

    def encode_untruncated(self, example: Example) -> Encoded:
        """The tokens of a row that is not truncated: the prompt as at generation time, and the completion.

        The completion keeps its end of turn. Both are tokenized together; where a token would span the
        border between them, the completion is tokenized by itself.
        """
        text, answer = self._formatter.row(example)
        prompt, both = self._tokens(text), self._tokens(text + answer)
        if both[: len(prompt)] == prompt:
            return Encoded(prompt, both[len(prompt) :])
        return Encoded(prompt, self._tokens(answer))

    def truncate(self, row: Encoded) -> Encoded:
        """The row within `max_length` tokens: the completion is truncated."""
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
            raise DataError(
                f"{source.path}: every prompt is longer than max_length",
                code="data.empty",
                path=source.path,
            )
    counts |= {"train_rows": len(encoded), "heldout_rows": len(heldout)}
    return TrainingData(tuple(encoded), tuple(heldout), counts)


def _fitting(
    settings: DataSettings, encoder: Encoder, example: Example, what: str
) -> tuple[Encoded, bool]:
    """The row truncated to `max_length`, and whether nothing was cut; no completion where it is dropped.

    Raises:
        DataError: its prompt leaves no room, and `overlong_prompts` is `error`; or the template has no
            place for its turns.
    """
    try:
        whole = encoder.encode_untruncated(example)
    except DataError as error:
        raise DataError(
            f"{what}: {error}", code=error.code, **{**error.values, "row": what}
        ) from None
    row = encoder.truncate(whole)
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
            "data.max_length, shorten the prompt, or set `overlong_prompts: drop` for rows of data",
            code="data.too_long",
            row=what,
            tokens=len(tokens),
            limit=encoder.max_length,
        )
