"""Hashes prompts to find duplicates and to split suites, ignoring case, white space and punctuation."""

import hashlib
import unicodedata

_APOSTROPHES = "'\u2018\u2019\u02bc`"


class _Plain(dict[int, str]):
    """For `str.translate`: punctuation and white space become a space; apostrophes are removed."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in _APOSTROPHES:
            plain = ""
        elif character.isspace() or unicodedata.category(character).startswith("P"):
            plain = " "
        else:
            plain = character
        self[code] = plain
        return plain


_PLAIN = _Plain()


def normalized_prompt(text: str) -> str:
    """The text in NFKC, case-folded, without punctuation, with single spaces between words.

    Symbols such as `+` and `<` are kept. A text that is all punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_PLAIN).split()) or " ".join(folded.split())


def normalized_prompt_hash(text: str) -> str:
    """SHA-256 of the normalized text, in hex; equal for duplicates."""
    return hashlib.sha256(normalized_prompt(text).encode("utf-8")).hexdigest()


def prompt_split_of(prompt: str) -> str:
    """`search` or `confirm`: the half of a suite that a prompt belongs to, by the parity of its hash."""
    return ("search", "confirm")[int(normalized_prompt_hash(prompt), 16) % 2]
