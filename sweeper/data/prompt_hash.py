"""Hashes prompts to find duplicates and to split suites: case, white space and prose marks do not count."""

import hashlib
import re
import unicodedata
from functools import cache

_CLOSING = {"(": ")", "[": "]", "{": "}"}
_BRACKETS = "()[]{}"
_JOINERS = "-/"
_SYMBOLS = "_#%&*@\\\u00a7\u2020\u2021\u2030\u2031\u2032"
"""What Unicode calls punctuation, but prose does not: `C#`, `50%`, `a*b`, `a_b`."""

_APOSTROPHE = re.compile("(?<![0-9])['\u2018\u2019\u02bc`]|['\u2018\u2019\u02bc`](?![0-9])")
_MARKS = re.compile(r"[^\w\s]+")


def normalized_prompt(text: str) -> str:
    """The text in NFKC, case-folded, without the punctuation of prose, with single spaces between words.

    Left out are quotation marks, marks at the end of a word, brackets around words, and marks between the
    letters of words. What else touches a digit, a symbol or a single letter stays: `12-3`, `-5`, `3.14`,
    `5!`, `x/y`, `f(x)`, `C#`, `x != y`. Superscripts and subscripts are marked: `10\u00b2` is not 102. A
    text that is all punctuation keeps it.
    """
    marked = text if text.isascii() else text.translate(_MARKED)
    folded = unicodedata.normalize("NFKC", marked).casefold()
    plain = _APOSTROPHE.sub("", folded).translate(_UNQUOTED)
    if any(bracket in plain for bracket in _BRACKETS):
        plain = _without_brackets_of_prose(plain)
    padded = f"  {' '.join(plain.split())}  "  # So that every mark has two characters on each side.
    return " ".join(_MARKS.sub(_kept, padded).split()) or " ".join(folded.split())


def normalized_prompt_hash(text: str) -> str:
    """SHA-256 of the normalized text, in hex; equal for duplicates."""
    return hashlib.sha256(normalized_prompt(text).encode("utf-8")).hexdigest()


def prompt_split_of(prompt: str) -> str:
    """`search` or `confirm`: the half of a suite that a prompt belongs to, by the parity of its hash."""
    return ("search", "confirm")[int(normalized_prompt_hash(prompt), 16) % 2]


class _Marked(dict[int, str]):
    """For `str.translate`: a sign before what NFKC would put on the line, a space before fractions."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        style = unicodedata.decomposition(character).partition(">")[0]
        marked = character
        if category in ("No", "Lm", "Sm") and style.startswith("<"):
            marked = {"<super": "^", "<sub": "_"}.get(style, " ") + character
        self[code] = marked
        return marked


class _Unquoted(dict[int, str]):
    """For `str.translate`: a space for quotation marks, East Asian ones too; a hyphen for dashes, minus."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        plain = "-" if category == "Pd" or character == "\u2212" else character
        if character == '"' or (
            category in ("Pi", "Pf", "Ps", "Pe") and character not in _BRACKETS
        ):
            plain = " "
        self[code] = plain
        return plain


_MARKED, _UNQUOTED = _Marked(), _Unquoted()


def _without_brackets_of_prose(text: str) -> str:
    """A space for each bracket that is alone, or that with its other only sets words apart."""
    characters, opened = list(text), list[int]()
    for found in re.finditer(r"[()\[\]{}]", text):
        index, character = found.start(), found[0]
        if character in _CLOSING:
            opened.append(index)
        elif not opened or _CLOSING[text[opened[-1]]] != character:
            characters[index] = " "
        elif _is_aside(text, start := opened.pop(), index):
            characters[start] = characters[index] = " "
    for index in opened:
        characters[index] = " "
    return "".join(characters)


def _is_aside(text: str, start: int, end: int) -> bool:
    """Whether brackets at these positions touch no word outside, and hold words without symbols."""
    inside = text[start + 1 : end]
    outside = text[start - 1 : start] + text[end + 1 : end + 2]
    symbols = any(not (_is_letter(c) or _is_prose(c) or c.isspace()) for c in inside)
    formula = symbols or all(len(word) == 1 for word in re.findall(r"\w+", inside))
    return not formula and not any(map(str.isalnum, outside))


@cache
def _is_letter(character: str) -> bool:
    """Whether it is a letter, or a sign that combines with one."""
    return character.isalpha() or unicodedata.category(character)[0] == "M"


@cache
def _is_prose(character: str) -> bool:
    """Whether it is punctuation of sentences, or joins words."""
    punctuation = unicodedata.category(character).startswith("P")
    return punctuation and character not in _SYMBOLS and character not in _BRACKETS


def _kept(found: re.Match[str]) -> str:
    """What is left of marks, seen between their neighbours."""
    text, start, end = found.string, found.start(), found.end()
    while start < end and _is_letter(text[start]):
        start += 1  # A sign that combines with the letter before.
    letters, marks = text[found.start() : start], text[start:end]
    if not marks:
        return letters
    before, after = text[start - 1], text[end]
    if after == " " and not (marks == "!" and re.search(r"\b[0-9]+$", text[:start])):
        while marks and _is_prose(marks[-1]) and marks[-1] not in _JOINERS:
            marks = marks[:-1]
    if before == " ":
        marks = marks.lstrip("\u00a1\u00bf")
    if marks and set(marks) <= set(_JOINERS):
        prose = _joins_words(text, start, end)
    else:
        prose = all(map(_is_prose, marks)) and _is_letter(before) and _is_letter(after)
    return letters + (" " if prose else marks)


def _joins_words(text: str, start: int, end: int) -> bool:
    """Whether a hyphen, a dash or a slash is of prose: at or between words of more than one letter."""
    near = [text[start - 1] != " ", text[end] != " "]
    spaced = not any(near)
    left, right = (start - 2, end + 1) if spaced else (start - 1, end)
    single = [not text[left - 1].isalnum(), not text[right + 1 : right + 2].isalnum()]
    if near == [False, True] or (near == [True, False] and single[0]):
        return False
    sides = text[left] + text[right]
    words = all(side == " " or _is_letter(side) or _is_prose(side) for side in sides)
    return words and not (all(single) and " " not in sides)
