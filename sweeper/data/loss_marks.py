"""Marks in rows that say what is trained on, and contents that training on text would silently drop."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sweeper.errors import DataError

TRAINED = ("weight", "train", "trainable", "loss", "loss_weight")
"""Keys of a turn or row that are 1 or true where it is trained on (OpenAI `weight`, Axolotl `train`)."""

_MARK = re.compile(r"(?<![a-z])(weight|train|learn|loss|mask|unmask|ignore|skip|exclude)")
_CONTENT = re.compile(
    r"(?<![a-z])(tool|function|image|audio|video|attachment|document|think|reason|refusal)"
)
_OF_ROWS = re.compile(
    r"(\w+_)?mask(s|ed)?|sample_weight|(is|no|do)_train\w*|(tool|function|image|audio|video)s?"
)
_EARLIER = ("system", "system_prompt", "history")
"""Columns of a row that hold earlier turns; a format that does not read them would train without."""

_MEANINGS = {"1": True, "true": True, "0": False, "false": False}
_EMPTY = ("", "[]", "{}", "null", "none", "nan")

Error = Callable[[str, str], DataError]
"""Makes an error of what is wrong and the key it is about."""


def turn_is_trained(turn: Mapping[str, Any], read: Collection[str], error: Error) -> bool | None:
    """Whether a turn is marked to be trained on; None if it has no mark.

    Args:
        turn: Its keys and values; a null or empty value counts as absent.
        read: The keys that are read as role and content.
        error: Makes the errors below.

    Raises:
        DataError: a mark that is not 0 or 1, or a key whose value would be dropped though it changes what
            is trained on, such as `mask`, `tool_calls` or `images`.
    """
    for key, value in turn.items():
        suspect = _MARK.search(key.lower()) or _CONTENT.search(key.lower())
        if suspect and key not in (*read, *TRAINED) and _is_given(value):
            raise error(_problem(key), key)
    return _trained(turn, read, error)


def row_is_trained(cells: Mapping[str, Any], read: Collection[str], error: Error) -> bool:
    """Whether a row is not marked to be left out; see `turn_is_trained`.

    Raises:
        DataError: see `turn_is_trained`; of a row, only well-known keys are refused.
    """
    for key, value in cells.items():
        suspect = _OF_ROWS.fullmatch(key.lower()) or key.lower() in _EARLIER
        if suspect and key not in read and _is_given(value):
            raise error(_problem(key), key)
    return _trained(cells, read, error) is not False


def _problem(key: str) -> str:
    if key.lower() in _EARLIER:
        return (
            f"`{key}` holds a part of the conversation that this format does not read; write it into the "
            "turns of `format: messages`, or remove it"
        )
    if _CONTENT.search(key.lower()):
        return (
            f"`{key}` is not supported, because only text is trained on; remove the row or the key"
        )
    return (
        f"`{key}` is not supported; mark what is trained on by `weight` 1 and 0 or `train` true and false, "
        "or remove the key"
    )


def _trained(values: Mapping[str, Any], read: Collection[str], error: Error) -> bool | None:
    given = {
        key: _plain(values[key])
        for key in TRAINED
        if key not in read and key in values and _is_given(values[key])
    }
    for key, value in given.items():
        if value not in _MEANINGS:
            raise error(
                f"`{key}` must be 0 or 1, or true or false, found {value[:20]}; rename it if it does not "
                "say what is trained on",
                key,
            )
    return all(_MEANINGS[value] for value in given.values()) if given else None


def _is_given(value: Any) -> bool:
    return value is not None and _plain(value) not in _EMPTY


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip().lower()
    return text.removesuffix(".0") if text in ("0.0", "1.0") else text
