"""Word patterns that keyword lists match against the opening of a response.

Words are lower-cased, with contractions expanded ("I don't" and "I dont" are `i do not`, "can't" is
`cannot`); each character of a script without spaces is a word. Of punctuation, only a mark directly after a
word is kept: `,`, `:`, or `.` for any end of a sentence or line. A code fence is the word "```". Quoted
text is skipped unless the response starts with a quotation; a quotation that is not closed on its line is
none.

A pattern is a sequence of words; `a|b` matches either word, `a,` (`a:`, `a.`) the word followed by this
mark, `...` up to three words, and a leading `^` anchors the pattern to the start of the text.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

GAP = 3
"""The maximum number of words that `...` matches."""

PATTERNS_VERSION = 3
"""Changes with the way in which texts are cut into words or patterns are matched; part of a digest."""

QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u02bc\u00b4`\u2032\u201b\uff07", "'")
    | dict.fromkeys("\u201c\u201d", '"')
)
"""Typographic quotation marks and apostrophes, and what is typed for them -> straight ones."""

# Thai, Lao, Burmese, Khmer, kana, Chinese characters, and Hangul, whose endings vary too much for words.
_SOLO = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
)
_LETTER = rf"[^\W_{_SOLO}]"
_APOSTROPHE = "['\u2018\u2019\u02bc\u00b4`\u2032\u201b\uff07]"
_MARKS = {",": ",\uff0c\u3001", ":": ":\uff1a", ".": ".!?;\n\u2026\u3002\uff01\uff1f\uff1b"}
_WORD = re.compile(
    rf"(?P<fence>```)|(?P<word>{_LETTER}+(?:{_APOSTROPHE}{_LETTER}+|(?<=\d)[.,]\d+)*|[{_SOLO}])"
    rf"(?P<tail>{_APOSTROPHE}?)[*_]*(?P<mark>[{''.join(_MARKS.values())}]?)"
)
_MARK_OF = {char: mark for mark, chars in _MARKS.items() for char in chars} | {"": ""}
_OPENING = '"\u201c\u201e\u00ab\u300c\u300e'
_CLOSING = '"\u201c\u201d\u00bb\u300d\u300f'
_QUOTED = re.compile(
    rf"(?:(?<!\w)\"|[{_OPENING[1:]}])[^{_CLOSING}\n]*(?:[{_CLOSING}]|(?P<open>\Z))"
)
_WHOLE = {"can't": "cannot", "won't": "will not"}
_WHOLE |= {"cant": "cannot", "wont": "will not", "dont": "do not", "im": "i am"}
_ENDINGS = {"n't": "not", "'m": "am", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would"}
_IS = ("it's", "that's", "there's", "here's", "what's")

_Part = frozenset[str] | None  # None is a gap.


class Words(NamedTuple):
    """The complete words of a text.

    If the text may be continued, `unfinished` is the beginning of its next word, "" if nothing is known of
    it; None if nothing follows.
    """

    complete: tuple[str, ...]
    unfinished: str | None = None

    def first(self, count: int) -> "Words":
        """At most `count` words; once there are as many, nothing follows."""
        return Words(self.complete[:count]) if len(self.complete) >= count else self


def words_of(text: str, most: int | None = None) -> Words:
    """The first words of a complete text, in order; all by default."""
    words = [word for word, _, _ in _located(text, most)]
    return Words(tuple(words[:most]))


def words_so_far(text: str, most: int | None = None) -> Words:
    """The first words of a text that may be continued, even within its last word."""
    found = list(_located(text, most, open_end=True))
    unfinished = found.pop()[0] if found and found[-1][2] < 0 else ""
    return Words(tuple(word for word, _, _ in found), unfinished).first(most or len(found) + 1)


def places_of(text: str, most: int | None = None) -> list[tuple[int, int]]:
    """The [start, end) of each word of `words_of` in the text, without its mark."""
    return [(start, end) for _, start, end in _located(text, most)][:most]


def _located(text: str, most: int | None, open_end: bool = False) -> Iterator[tuple[str, int, int]]:
    """Words and their [start, end), until there are `most`; an unfinished one ends at -1."""
    count = 0
    text = _without_quotations(text, open_end)
    for item in _WORD.finditer(text):
        if most is not None and count >= most:
            return
        plain = item["fence"] or item["word"].translate(QUOTES).lower()
        is_last = item.end() == len(text) and not item["fence"]
        if open_end and is_last and (not item["mark"] or plain[-1].isdecimal()):  # "1." or "1.5".
            yield plain + item["tail"].translate(QUOTES), item.start(), -1
            return
        for word in _expanded(plain, _MARK_OF[item["mark"] or ""]):
            count += 1
            yield word, item.start(), item.end("fence" if item["fence"] else "word")


def _without_quotations(text: str, open_end: bool) -> str:
    """Blanks in place of quotations; of a text that may be continued, up to one that is not closed yet."""
    if text.lstrip()[:1] in tuple(_OPENING):
        return text
    for quoted in _QUOTED.finditer(text) if open_end else ():
        if quoted["open"] is not None:
            text = f"{text[: quoted.start()]} "
    return _QUOTED.sub(_blank, text)


def _blank(found: re.Match[str]) -> str:
    return found.group() if found["open"] is not None else " " * len(found.group())


def _expanded(word: str, mark: str) -> list[str]:
    whole = _WHOLE.get(word, word)
    if word in _IS:
        whole = word.replace("'s", " is")
    elif whole == word:
        ending = next((ending for ending in _ENDINGS if word.endswith(ending)), None)
        whole = f"{word.removesuffix(ending)} {_ENDINGS[ending]}" if ending else word
    return f"{whole}{mark}".split()


class Pattern(NamedTuple):
    """One parsed pattern."""

    anchored: bool
    parts: tuple[_Part, ...]


@lru_cache(maxsize=4096)
def parse_pattern(text: str) -> Pattern:
    """Parse a pattern; an item without `|` may be several words: a contraction, or characters."""
    parts: list[_Part] = []
    for item in text.removeprefix("^").split():
        if item == "...":
            parts.append(None)
            continue
        choices = [words_of(choice).complete or (choice,) for choice in item.split("|")]
        if len(choices) == 1:
            parts += [frozenset([word]) for word in choices[0]]
        else:
            parts.append(frozenset(words[0] for words in choices if len(words) == 1))
    return Pattern(text.startswith("^"), tuple(parts))


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

    A match is discarded if its first word belongs to an exception.
    """
    for end, number, start in sorted(_hits(patterns, text, range(len(text.complete)))):
        near = range(max(0, start - _longest(exceptions) + 1), start + 1)
        covering = [stop for stop in _stops(exceptions, text, near) if stop is None or stop > start]
        if None in covering or not covering:
            return Match(patterns[number], start, end, bool(covering))
    return None


def _hits(patterns: tuple[str, ...], text: Words, starts: range) -> Iterator[tuple[int, int, int]]:
    for start in starts:
        for number, pattern in _at(patterns, text, start):
            for end in _ends(pattern.parts, text, start):
                if end is not None:
                    yield end, number, start


def _stops(patterns: tuple[str, ...], text: Words, starts: range) -> Iterator[int | None]:
    for start in starts:
        for _, pattern in _at(patterns, text, start):
            yield from _ends(pattern.parts, text, start)


def _at(patterns: tuple[str, ...], text: Words, start: int) -> Iterator[tuple[int, Pattern]]:
    """The patterns whose first word stands at `start`."""
    for item in _by_first_word(patterns).get(_bare(text.complete[start]), ()):
        if not (item[1].anchored and start):
            yield item


@lru_cache
def _by_first_word(patterns: tuple[str, ...]) -> dict[str, list[tuple[int, Pattern]]]:
    by_word: dict[str, list[tuple[int, Pattern]]] = {}
    for number, text in enumerate(patterns):
        pattern = parse_pattern(text)
        for word in {_bare(word) for word in pattern.parts[0] or ()}:
            by_word.setdefault(word, []).append((number, pattern))
    return by_word


@lru_cache
def _longest(patterns: tuple[str, ...]) -> int:
    """The largest number of words that a pattern matches."""
    parsed = (parse_pattern(text).parts for text in patterns)
    return max((sum(GAP if part is None else 1 for part in parts) for parts in parsed), default=1)


def _bare(word: str) -> str:
    """The word without its mark."""
    return word[:-1] if len(word) > 1 and word[-1] in _MARKS else word


def _ends(parts: Sequence[_Part], text: Words, start: int) -> Iterator[int | None]:
    """The possible ends of a pattern that begins at `start`; None where later words decide."""
    if not parts:
        yield start
    elif parts[0] is None:
        for skipped in range(GAP + 1):
            yield from _ends(parts[1:], text, start + skipped)
    elif start < len(text.complete):
        word = text.complete[start]
        if word in parts[0] or _bare(word) in parts[0]:
            yield from _ends(parts[1:], text, start + 1)
    elif text.unfinished is not None and (
        start > len(text.complete) or any(_may_become(text.unfinished, word) for word in parts[0])
    ):
        yield None


def _may_become(begun: str, word: str) -> bool:
    """Whether an unfinished word can still become `word`, possibly as the start of a contraction."""
    if "'" in begun or begun.endswith("n") or begun == "wo":  # "don't", "can't", "won't".
        return True
    written_out = (x.split()[0] for key, x in _WHOLE.items() if key.startswith(begun))
    return word.startswith(begun) or _bare(word) in written_out
