"""Tokenizes rows for training and evaluation."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sweeper.data.chat_format import PROBE, PromptFormatter, pieces_of, shortened
from sweeper.data.control_tokens import ControlTokens, control_token_error
from sweeper.data.load import Example, Turn
from sweeper.data.split import Split, split_rows
from sweeper.errors import DataError
from sweeper.keywords.reasoning import opened_reasoning
from sweeper.task import DataSettings


class Encoded(NamedTuple):
    """One tokenized row. Only `completion` (end of turn included) contributes to the loss."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class AddedTokens(NamedTuple):
    """Tokens that a chat format adds to a prompt, and to a whole row."""

    prompt: int
    row: int


class TrainingData(NamedTuple):
    """Encoded training rows, held-out examples, and counts of dropped and truncated rows."""

    train: tuple[Encoded, ...]
    heldout: tuple[Example, ...]
    counts: dict[str, int]


class Encoder:
    """Formats and tokenizes rows in one chat format.

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

    @property
    def tokenizer_name(self) -> str:
        """The name or folder of the tokenizer."""
        return str(self._tokenizer.name_or_path)

    def prompt(self, text: str, before: Sequence[Turn] = ()) -> tuple[int, ...]:
        """The tokens of a prompt with its earlier turns, up to where the answer begins.

        Raises:
            DataError: the template does not support these turns.
        """
        tokens = self._tokens(self._formatter.prompt(text, before))
        self._check_shown(self._formatter.messages(text, before), tokens)
        return tokens

    @cached_property
    def _control(self) -> ControlTokens:
        return ControlTokens(self._tokenizer, self._formatter.written())

    def control_tokens(self, row: Example | str) -> tuple[str, ...]:
        """The control tokens in the messages of a row or a prompt, the system prompt included."""
        prompt, completion, before = (row, "", ()) if isinstance(row, str) else row
        turns = self._formatter.messages(prompt, before)
        return self._control.found_in([*(turn.text for turn in turns), completion])

    def has_unknown(self, tokens: Sequence[int]) -> bool:
        """Whether some text has become the tokenizer's token for what it does not know."""
        used = self._tokenizer
        others = (used.eos_token_id, used.bos_token_id, used.pad_token_id)
        return used.unk_token_id in tokens and used.unk_token_id not in others

    def named_prompt(self, what: str, text: str) -> tuple[int, ...]:
        """See `prompt`; an error begins with what the prompt is, for example `harmful prompt 7`."""
        with _named(what):
            return self.prompt(text)

    @cached_property
    def end_token(self) -> int:
        """The token with which the format ends an answer; generation stops there.

        Raises:
            DataError: the format ends an answer with nothing, or with text that is no token.
        """
        text = self._formatter.end_of_turn()
        specials = {*self._tokenizer.all_special_ids, *self._tokenizer.added_tokens_decoder}
        tokens = self._tokens(text)
        first = next((i for i, token in enumerate(tokens) if token in specials), None)
        if first is not None and not str(self._tokenizer.decode(list(tokens[:first]))).strip():
            return tokens[first]
        name = self._tokenizer.name_or_path
        found = f"ends an answer with the text {shortened(text.strip())}, which is not a token"
        raise DataError(
            f"the chat template of {name} {found if text.strip() else 'writes nothing after an answer'}, "
            "so generation would go on past the end of an answer; end the assistant's message with "
            "`eos_token` or another special token in the chat template, or use `data.template: llama2` "
            "or `alpaca`",
            code="data.chat_template",
            tokenizer=name,
            part="end of turn",
        )

    @cached_property
    def added_tokens(self) -> AddedTokens:
        """The tokens that the format, its system prompt included, adds to the messages of a short row."""
        prompt, completion = map(self._tokens, self._formatter.row(PROBE))
        before = len(prompt) - len(self._tokens(PROBE.prompt))
        return AddedTokens(before, before + len(completion) - len(self._tokens(PROBE.completion)))

    @cached_property
    def opened_reasoning(self) -> str:
        """The tag of a reasoning block that the format opens at the end of a prompt; "" if none."""
        return opened_reasoning(self._formatter.prompt("Hello"))

    def example(self, example: Example) -> Encoded:
        """The tokens of a row, truncated to `max_length`; an overlong prompt leaves an empty completion."""
        return self.truncate(self.encode_untruncated(example))

    def encode_untruncated(self, example: Example) -> Encoded:
        """The tokens of a row without truncation: the prompt as at generation time, and the completion.

        The completion includes its end of turn. Both are tokenized together; if a token would span the
        boundary between them, the completion is tokenized by itself.
        """
        text, answer = self._formatter.row(example)
        prompt, both = self._tokens(text), self._tokens(text + answer)
        apart = both[: len(prompt)] != prompt
        row = Encoded(prompt, self._tokens(answer) if apart else both[len(prompt) :])
        turns = self._formatter.messages(example.prompt, example.before)
        turns.append(Turn("assistant", example.completion))
        self._check_shown(turns, (*row.prompt, *row.completion))
        return row

    def truncate(self, row: Encoded) -> Encoded:
        """The row with its completion truncated so that both fit into `max_length` tokens."""
        return Encoded(row.prompt, row.completion[: max(0, self.max_length - len(row.prompt))])

    def _check_shown(self, turns: Sequence[Turn], tokens: Sequence[int]) -> None:
        """Reject a message that its tokens do not hold, but for what the tokenizer normalizes.

        Characters that become its token for the unknown are counted instead (`has_unknown`).

        Raises:
            DataError: names the message and what is lost.
        """
        if self.has_unknown(tokens):
            return
        text = str(self._tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))
        for turn in turns:
            for piece in pieces_of(turn.text):
                if piece in text or _squeezed(piece) in (shown := _squeezed(text)):
                    continue
                if _squeezed(self._normalized(piece)) in shown:
                    continue
                name = self._tokenizer.name_or_path
                raise DataError(
                    f"the tokenizer of {name} drops part of the {turn.role} message "
                    f"{shortened(piece)}; remove the row, or use a model whose tokenizer covers its "
                    "characters",
                    code="data.chat_template",
                    tokenizer=name,
                    part=f"{turn.role} message",
                )

    def _normalized(self, text: str) -> str:
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        normalizer = getattr(backend, "normalizer", None)
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Begin the message of an error with the row or prompt that it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"{what}: {error}", code=error.code, **{**error.values, "row": what}
        ) from None


def _squeezed(text: str) -> str:
    """The text without white space, case and compatibility forms."""
    return re.sub(r"[\s\u2581]+", "", unicodedata.normalize("NFKC", text).casefold())


def load_training_data(
    settings: DataSettings,
    encoder: Encoder,
    scored: Encoder | None = None,
    asked: Collection[str] = (),
) -> TrainingData:
    """Read, split and encode the rows of a sweep; see `split.split_rows` for the split.

    Args:
        settings: The data sources, and how they are split.
        encoder: Encodes the training rows.
        scored: Encodes the held-out rows; `encoder` if not given.
        asked: Hashes of the prompts that the model is scored on; see `split_rows`.

    Raises:
        DataError: see `usable_rows`; or a prompt is too long and `overlong_prompts` is `error`; or all
            prompts are too long.
        MissingExtraError: see `split_rows`.
    """
    split = usable_rows(settings, encoder, scored or encoder, asked)
    counts = {**split.counts, "dropped_overlong_prompts": 0, "truncated_completions": 0}
    counts |= {"dropped_overlong_heldout": 0, "truncated_heldout": 0}
    encoded, heldout, unknown = [], [], 0
    named = [(f"training row {number}", row) for number, row in split.train.items()]
    named += [(f"safety row {number}", row) for number, row in split.safety.items()]
    for name, example in named:
        row, fits = _fitting(settings, encoder, example, f"prompt of {name}")
        unknown += encoder.has_unknown((*row.prompt, *row.completion))
        counts["dropped_overlong_prompts"] += not row.completion
        counts["truncated_completions"] += bool(row.completion) and not fits
        encoded += [row] if row.completion else []
    for number, example in split.heldout.items():
        what = f"prompt of held-out row {number}"
        row, fits = _fitting(settings, scored or encoder, example, what)
        unknown += encoder.has_unknown((*row.prompt, *row.completion))
        counts["dropped_overlong_heldout"] += not row.completion
        counts["truncated_heldout"] += bool(row.completion) and not fits
        heldout += [example] if row.completion else []
    for rows, source in ((encoded, settings.train), (heldout, settings.heldout or settings.train)):
        if not rows:
            raise DataError(
                f"{source.path}: no row is left, because every prompt is longer than data.max_length "
                f"({settings.max_length} tokens) or holds control tokens; increase it, or use other data",
                code="data.empty",
                path=source.path,
            )
    counts |= {"train_rows": len(encoded), "heldout_rows": len(heldout)}
    counts |= {"rows_with_unknown_characters": unknown} if unknown else {}
    return TrainingData(tuple(encoded), tuple(heldout), counts)


def usable_rows(
    settings: DataSettings, encoder: Encoder, scored: Encoder, asked: Collection[str] = ()
) -> Split:
    """The split of a sweep's rows, with those that hold control tokens treated as the settings say.

    Where there are any, `counts` has their number: `rows_with_control_tokens`, `dropped_control_tokens`.

    Args:
        settings: The sources.
        encoder: Encodes the training rows.
        scored: Encodes the held-out rows.
        asked: Hashes of the prompts that the model is scored on; see `split_rows`.

    Raises:
        DataError: see `split_rows`; or some rows hold control tokens and `control_tokens` is `error`.
        MissingExtraError: see `split_rows`.
    """
    split = split_rows(settings, asked)
    sides = {
        "training": (split.train, encoder),
        "safety": (split.safety, encoder),
        "held-out": (split.heldout, scored),
    }
    found: dict[str, tuple[str, ...]] = {}
    clean = []
    for side, (rows, its_encoder) in sides.items():
        held = {n: tokens for n, row in rows.items() if (tokens := its_encoder.control_tokens(row))}
        found |= {f"{side} row {n}": tokens for n, tokens in held.items()}
        clean.append({n: row for n, row in rows.items() if n not in held})
    if not found:
        return split
    if settings.control_tokens == "error":
        total = sum(len(rows) for rows, _ in sides.values())
        raise control_token_error(
            found,
            f"{total:,} rows",
            encoder.tokenizer_name,
            "remove them from the text, or set `data.control_tokens: drop` to leave these rows out, or "
            "`keep` to train on such tokens",
        )
    if settings.control_tokens == "keep":
        return split._replace(counts={**split.counts, "rows_with_control_tokens": len(found)})
    train, safety, heldout = clean
    return Split(train, heldout, {**split.counts, "dropped_control_tokens": len(found)}, safety)


def _fitting(
    settings: DataSettings, encoder: Encoder, example: Example, what: str
) -> tuple[Encoded, bool]:
    """The row truncated to `max_length`, and whether it fitted; a dropped row has no completion.

    Raises:
        DataError: the prompt leaves no room for a completion and `overlong_prompts` is `error`; or the
            template does not support its turns.
    """
    with _named(what):
        untruncated = encoder.encode_untruncated(example)
    row = encoder.truncate(untruncated)
    if not row.completion and settings.overlong_prompts == "error":
        check_prompt(settings, encoder, row.prompt, what)
    return row, row == untruncated


def check_prompt(
    settings: DataSettings, encoder: Encoder, tokens: Sequence[int], what: str
) -> None:
    """Reject a prompt that leaves no room for an answer.

    Raises:
        DataError: the prompt has `max_length` tokens or more.
    """
    if len(tokens) >= encoder.max_length:
        raise DataError(
            f"{what} has {len(tokens)} tokens, but max_length is {encoder.max_length}; increase "
            "data.max_length, shorten the prompt, or, for rows of data, set `overlong_prompts: drop`",
            code="data.too_long",
            row=what,
            tokens=len(tokens),
            limit=encoder.max_length,
        )
