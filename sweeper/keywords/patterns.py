"""Word patterns that keyword lists match against the opening of a response.

Words are lower-cased, with contractions expanded ("I don't" is `i do not`, "can't" is `cannot`) and
punctuation removed except for a trailing comma. Quoted text is skipped unless the response starts with a
quotation mark. A pattern is a sequence of words; `a|b` matches either word, `a,` the word followed by a
comma, `...` up to three words, and a leading `^` anchors the pattern to the start of the text.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

GAP = 3
"""The maximum number of words that `...` matches."""

QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"'})
"""Curly quotation marks and apostrophes -> straight ones."""

_QUOTED = re.compile(r'"[^"]*("|$)')
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*,?")
_UNFINISHED = re.compile(r"[^\W_]+(?:'[^\W_]+)*'?$")
_WHOLE = {"can't": "cannot", "won't": "will not"}
_ENDINGS = {"n't": "not", "'m": "am", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_IS = ("it's", "that's", "there's", "here's", "what's")

_Part = frozenset[str] | None  # None is a gap.


class Words(NamedTuple):
    """The complete words of a text, and an unfinished word at its end ("" for none)."""

    complete: tuple[str, ...]
    unfinished: str = ""


def words_of(text: str) -> Words:
    """The words of a complete text, in order."""
    return _split(_without_quotations(text))


def words_so_far(text: str) -> Words:
    """The words of a text that may be continued, even within its last word."""
    own = _without_quotations(text)
    last = _UNFINISHED.search(own)
    if last is None:
        return _split(own)
    return Words(_split(own[: last.start()]).complete, last.group())


def _without_quotations(text: str) -> str:
    """The lower-cased text without quotations; a prefix of the input gives a prefix of the result."""
    text = text.translate(QUOTES).lower()
    if text.lstrip().startswith('"'):
        return text
    return _QUOTED.sub(lambda quoted: " " * len(quoted.group()), text)


def _split(text: str) -> Words:
    return Words(tuple(word for item in _WORD.findall(text) for word in _expanded(item)))


def places_of(text: str) -> list[tuple[int, int]]:
    """The [start, end) of each word of `words_of` in the lower-cased text, without its comma."""
    return [
        (item.start(), item.start() + len(item.group().removesuffix(",")))
        for item in _WORD.finditer(_without_quotations(text))
        for _ in _expanded(item.group())
    ]


def _expanded(item: str) -> list[str]:
    word = item.removesuffix(",")
    comma = item[len(word) :]
    whole = _WHOLE.get(word, word)
    if word in _IS:
        whole = word.replace("'s", " is")
    elif whole == word:
        ending = next((ending for ending in _ENDINGS if word.endswith(ending)), None)
        whole = f"{word.removesuffix(ending)} {_ENDINGS[ending]}" if ending else word
    return f"{whole}{comma}".split()


class Pattern(NamedTuple):
    """One parsed pattern."""

    anchored: bool
    parts: tuple[_Part, ...]


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Pattern:
    """Parse a pattern."""
    items = text.removeprefix("^").split()
    parts = tuple(None if item == "..." else frozenset(item.split("|")) for item in items)
    return Pattern(text.startswith("^"), parts)


class Match(NamedTuple):
    """A pattern match: words [start, end) of the text, and whether later words can still cancel it."""

    pattern: str
    start: int
    end: int
    open: bool


def first_match(
    patterns: tuple[str, ...], exceptions: tuple[str, ...], text: Words
) -> Match | None:
    """The match that ends first; of several, the pattern listed first. None without a match.

    A match is discarded if an exception begins at the same word.
    """
    first = _by_first_word(patterns)
    hits = [
        (end, number, start)
        for start, word in enumerate(text.complete)
        for number, pattern in first.get(word.removesuffix(","), ())
        if not (pattern.anchored and start)
        for end in _ends(pattern.parts, text, start)
        if end is not None
    ]
    for last, number, start in sorted(hits):
        ends = [end for rule in exceptions for end in _ends(parse_pattern(rule).parts, text, start)]
        if all(end is None for end in ends):
            return Match(patterns[number], start, last, bool(ends))
    return None


@lru_cache
def _by_first_word(patterns: tuple[str, ...]) -> dict[str, list[tuple[int, Pattern]]]:
    by_word: dict[str, list[tuple[int, Pattern]]] = {}
    for number, text in enumerate(patterns):
        pattern = parse_pattern(text)
        for word in {word.removesuffix(",") for word in pattern.parts[0] or ()}:
            by_word.setdefault(word, []).append((number, pattern))
    return by_word


def _ends(parts: Sequence[_Part], text: Words, start: int) -> Iterator[int | None]:
    """The possible ends of a pattern that begins at `start`; None where later words decide."""
    if not parts:
        yield start
    elif parts[0] is None:
        for skipped in range(GAP + 1):
            yield from _ends(parts[1:], text, start + skipped)
    elif start < len(text.complete):
        word = text.complete[start]
        if word in parts[0] or word.removesuffix(",") in parts[0]:
            yield from _ends(parts[1:], text, start + 1)
    elif start > len(text.complete) or any(_may_become(text.unfinished, word) for word in parts[0]):
        yield None


def _may_become(begun: str, word: str) -> bool:
    """Whether an unfinished word can still become `word`, possibly as the start of a contraction."""
    contracted = "'" in begun or begun.endswith("n") or begun == "wo"  # "don't", "can't", "won't".
    return contracted or word.startswith(begun)
