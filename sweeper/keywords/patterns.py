"""Patterns over words: what a keyword list looks for in the opening of a response.

Words are lower-cased, written out ("I don't" is `i do not`, "can't" is `cannot`) and free of punctuation
but for a comma at their end. What stands in quotation marks is left out, unless the text opens with
them. A pattern is a sequence of words; `a|b` stands for either word, `a,` for the word with a comma
after it, `...` for at most three words, and a leading `^` for the start of the text.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

GAP = 3
"""How many words `...` stands for at most."""

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
    """The words of a text, and the one at its end that may go on ("" for none)."""

    complete: tuple[str, ...]
    unfinished: str = ""


def words_of(text: str) -> Words:
    """The words of a whole text, in order."""
    return _split(_without_quotations(text))


def words_so_far(text: str) -> Words:
    """The words of a text that may go on anywhere, even within its last word."""
    own = _without_quotations(text)
    last = _UNFINISHED.search(own)
    if last is None:
        return _split(own)
    return Words(_split(own[: last.start()]).complete, last.group())


def _without_quotations(text: str) -> str:
    """The text without quotations, lower-cased; a prefix of the text gives a prefix of it."""
    text = text.translate(QUOTES).lower()
    if text.lstrip().startswith('"'):
        return text
    return _QUOTED.sub(lambda quoted: " " * len(quoted.group()), text)


def _split(text: str) -> Words:
    return Words(tuple(word for item in _WORD.findall(text) for word in _expanded(item)))


def places_of(text: str) -> list[tuple[int, int]]:
    """Where each word of `words_of` stands in the lower-cased text, as [start, end), without its comma."""
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
    """One pattern, taken apart."""

    anchored: bool
    parts: tuple[_Part, ...]


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Pattern:
    """Take a pattern apart."""
    items = text.removeprefix("^").split()
    parts = tuple(None if item == "..." else frozenset(item.split("|")) for item in items)
    return Pattern(text.startswith("^"), parts)


class Match(NamedTuple):
    """A pattern in a text: words [start, end) of it, and whether words to come may still cancel it."""

    pattern: str
    start: int
    end: int
    open: bool


def first_match(
    patterns: tuple[str, ...], exceptions: tuple[str, ...], text: Words
) -> Match | None:
    """Of the patterns in a text, the one that is complete first; of several, the one listed first.

    A pattern does not count where an exception begins at the same word. None: no pattern is there.
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
    found: dict[str, list[tuple[int, Pattern]]] = {}
    for number, text in enumerate(patterns):
        pattern = parse_pattern(text)
        for word in {word.removesuffix(",") for word in pattern.parts[0] or ()}:
            found.setdefault(word, []).append((number, pattern))
    return found


def _ends(parts: Sequence[_Part], text: Words, start: int) -> Iterator[int | None]:
    """After how many words a pattern that begins at `start` is complete; None: words to come decide."""
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
    """Whether a word that begins so may be read as `word`, perhaps as the first of a contraction."""
    contracted = "'" in begun or begun.endswith("n") or begun == "wo"  # "don't", "can't", "won't".
    return contracted or word.startswith(begun)
