"""When two prompts count as the same: whatever their case, their white space and their punctuation."""

import hashlib
import unicodedata

_APOSTROPHES = "'\u2018\u2019\u02bc`"


class _Plain(dict[int, str]):
    """For `str.translate`: punctuation and white space become a space, apostrophes nothing."""

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


def normalized(text: str) -> str:
    """The text in NFKC, case folded, without punctuation, its words set apart by one space.

    Symbols such as `+` and `<` stay, and so does a text of punctuation alone, white space aside.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_PLAIN).split()) or " ".join(folded.split())


def normalized_prompt_hash(text: str) -> str:
    """SHA-256 of the normalized text, in hex: equal for texts that count as the same."""
    return hashlib.sha256(normalized(text).encode("utf-8")).hexdigest()
