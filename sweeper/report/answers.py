"""Stored responses for the page: every text once, with the position of a list's phrase in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import RunFolderError
from sweeper.keywords.lists import KeywordList, Verdict, is_degenerate
from sweeper.planning import short_hash
from sweeper.store.folder import open_regular_file

TEXT_LIMIT = 4_000
"""How many characters of a prompt or response are shown; the page gives the number of the rest."""

LINE_LIMIT = 16 * 1024**2
"""A stored response of more bytes than this is not read."""

_SHORT = 2_048

_HEAD, _TELLING = 16, 8
"""An id and a prompt that share this many leading letters reveal the prompt."""

HARMLESS_SUITES = ("harmless", "utility")
"""Suites whose texts are shown at once. Any other one is treated as harmful."""

CUT, DEGENERATE = 1, 2
"""Flags of an answer: generation was ended early; blank or repetitive, and without a phrase."""

NOT_SHOWN, DIFFERS, BEYOND = -1, -2, -3
"""Special values of a phrase's start.

The position is unknown, the list of this version disagrees with the record, or the phrase is in the part
that was cut off.
"""


class Stored(NamedTuple):
    """One line of a generations file. `verdicts` has one entry per list, None where it has no verdict."""

    suite: str
    id: str
    prompt: str
    response: str
    cut: bool
    reference: str | None
    verdicts: tuple[Verdict | None, ...]


def read_stored(path: Path, lists: Sequence[str]) -> Iterator[Stored]:
    """The responses in a generations file, one at a time.

    Raises:
        FileNotFoundError: there is no such file.
        RunFolderError: with the line number: a line that is not a stored response, or unreadable.
    """
    number = 0
    try:
        with open_regular_file(path) as file:
            while line := file.readline(LINE_LIMIT):
                number += 1
                short = len(line) <= _SHORT
                yield _known(line, tuple(lists)) if short else _stored(json.loads(line), lists)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunFolderError(f"{path.name}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RunFolderError(f"{path.name}:{number}: not a stored response") from None


@lru_cache(maxsize=16_384)
def _known(line: bytes, lists: tuple[str, ...]) -> Stored:
    """A line as a value. Cached, because configurations share many lines, mainly refusals."""
    return _stored(json.loads(line), lists)


def _stored(line: Mapping[str, Any], lists: Sequence[str]) -> Stored:
    suite, prompt, response, reference = (
        line["suite"],
        line["prompt"],
        line["response"],
        line.get("reference"),
    )
    given = line.get("verdicts", {})
    for text in (suite, prompt, response, reference or ""):
        if not isinstance(text, str):
            raise TypeError("not a text")
    return Stored(
        suite=suite,
        id=str(line["id"]),
        prompt=prompt,
        response=response,
        cut=bool(line.get("cut", False)),
        reference=reference,
        verdicts=tuple(_verdict(given.get(name)) for name in lists),
    )


def _verdict(found: Mapping[str, Any] | None) -> Verdict | None:
    if found is None:
        return None
    refusal, phrase = found["refusal"], found.get("phrase")
    if not isinstance(refusal, bool) or not isinstance(phrase, str | None):
        raise TypeError("not a verdict")
    return Verdict(refusal, phrase)


def is_harmful(suite: str) -> bool:
    """Whether the texts of a suite are collapsed, and left out of a redacted page."""
    return suite not in HARMLESS_SUITES


def shortened(text: str) -> tuple[str, int]:
    """The beginning of a text, and how many characters are left out."""
    return text[:TEXT_LIMIT], max(0, len(text) - TEXT_LIMIT)


def tells(name: str, prompt: str) -> bool:
    """Whether a prompt's id reveals its text: it equals, contains or begins with it, or is a part of it.

    Case and all but letters and digits do not count, so that slugs are found too. An id of fewer than
    eight of them reveals nothing, unless it contains the whole prompt.
    """
    found, text = _letters(name), _letters(prompt)
    if not found or not text:
        return False
    return text[:_HEAD] in found or (len(found) >= _TELLING and found in text)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def units(text: str, place: int) -> int:
    """A position in a text in UTF-16 units, as in a browser."""
    return place + sum(char > "\uffff" for char in text[:place])


def cost(value: Any) -> int:
    """The size of a value in a block of the page in bytes, with the comma after it."""
    text = json.dumps(value, separators=(",", ":"))
    return len(text) + 1 + 5 * sum(map(text.count, "<>&"))


class Texts:
    """Deduplicated phrases, prompts, answers and orders of prompts, each referenced by its number.

    Staged texts take `staged` bytes; `commit` keeps them, `drop` discards them.
    """

    def __init__(
        self, lists: Mapping[str, KeywordList | None], redact: bool, size: int = 0
    ) -> None:
        self.suites: list[str] = []
        self.phrases: list[str] = []
        self.prompts: list[list[Any]] = []
        self.answers: list[list[Any]] = []
        self.orders: list[list[int]] = []
        self.bytes = size
        self.staged = 0
        self._lists = tuple(lists.values())
        self._redact = redact
        self._numbers: dict[Any, int] = {}
        self._new: list[tuple[Any, list[Any]]] = []

    def prompt(self, row: Stored) -> int:
        """The number of a prompt: `[suite, id, text, left out, reference]`."""
        suite = self._number(("suite", row.suite), self.suites, lambda: row.suite)
        return self._number(
            ("prompt", suite, row.id, row.prompt, row.reference),
            self.prompts,
            lambda: [suite, self._id(row), *self._text(row, row.prompt), *self._reference(row)],
        )

    def answer(self, row: Stored) -> int:
        """The number of an answer: `[text, left out, flags, one entry per list]`.

        An entry is `[refusal, phrase, start, end]` with phrase -1 for none, or 0 without a verdict.
        """
        key = ("answer", is_harmful(row.suite), row.response, row.cut, row.verdicts)
        return self._number(key, self.answers, lambda: self._answer(row))

    def order(self, prompts: list[int]) -> int:
        """The number of a sequence of prompts."""
        return self._number(("order", *prompts), self.orders, lambda: prompts)

    def commit(self, extra: int) -> None:
        """Keep the staged texts, and count `extra` bytes."""
        self.bytes += self.staged + extra
        self._new, self.staged = [], 0

    def drop(self) -> None:
        """Discard the staged texts."""
        for key, values in reversed(self._new):
            values.pop()
            del self._numbers[key]
        self._new, self.staged = [], 0

    def _number(self, key: Any, values: list[Any], make: Any) -> int:
        if key not in self._numbers:
            value = make()
            self._numbers[key] = len(values)
            values.append(value)
            self._new.append((key, values))
            self.staged += cost(value)
        return self._numbers[key]

    def _id(self, row: Stored) -> str:
        """The id of a prompt; in a redacted page, a hash instead of an id that reveals the prompt."""
        secret = self._redact and is_harmful(row.suite) and tells(row.id, row.prompt)
        return short_hash(row.id) if secret else row.id[:200]

    def _text(self, row: Stored, text: str) -> tuple[str | None, int]:
        return (None, 0) if self._redact and is_harmful(row.suite) else shortened(text)

    def _reference(self, row: Stored) -> list[str | None]:
        hidden = row.reference is None or (self._redact and is_harmful(row.suite))
        return [] if hidden else [shortened(row.reference or "")[0]]

    def _answer(self, row: Stored) -> list[Any]:
        first = next(iter(row.verdicts), None)
        empty = first is not None and first.phrase is None and is_degenerate(row.response)
        text, left = self._text(row, row.response)
        judged = zip(self._lists, row.verdicts, strict=True)
        entries = [self._entry(judge, verdict, row, text) for judge, verdict in judged]
        return [text, left, CUT * row.cut + DEGENERATE * empty, *entries]

    def _entry(
        self, judge: KeywordList | None, verdict: Verdict | None, row: Stored, text: str | None
    ) -> Any:
        if verdict is None:
            return 0
        number = -1
        if (phrase := verdict.phrase) is not None:
            number = self._number(("phrase", phrase), self.phrases, lambda: phrase)
        if judge is None:
            return [int(verdict.refusal), number, NOT_SHOWN, 0]
        if judge.verdict(row.response) != verdict:
            return [int(verdict.refusal), number, DIFFERS, 0]
        span = judge.span(row.response)
        if span is None or text is None:
            return [int(verdict.refusal), number, NOT_SHOWN, 0]
        if span[1] > len(text):
            return [int(verdict.refusal), number, BEYOND, 0]
        return [int(verdict.refusal), number, units(text, span[0]), units(text, span[1])]
