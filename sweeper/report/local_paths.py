"""Shortens the paths of a machine in what is shown to others."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

Shown = TypeVar("Shown")

_ROOT = r"(?:(?:file://)?~?/|[A-Za-z]:[\\/]|\\\\)"
_NAME = r"[^\s/\\'\"<>]"
_WITH_SPACES = (
    re.compile(rf"^({_ROOT}{_NAME}[^\n:;,]*)$"),
    re.compile(rf"['\"]({_ROOT}{_NAME}[^'\"\n]*)['\"]"),
    re.compile(
        rf"(?<=\w/)({_ROOT}{_NAME}[^\n:;,]*)$"
    ),  # `harmful//data/prompts.csv` of provenance.
)
_PLAIN = re.compile(rf"(?<![\w.:/\\~<-]){_ROOT}{_NAME}[^\s'\"<>,;:()\[\]{{}}]*")


def without_folders(shown: Shown) -> Shown:
    """The same contents with every absolute local path cut to its last one or two names.

    `/home/me/rows/tune.json` becomes `.../rows/tune.json`. At least two names are left out, where there
    are more than two: the first ones tell whose machine it is. Hub ids and addresses stay.

    Args:
        shown: Strings in nested tuples, named tuples, lists and mappings; other values stay as they are.
    """
    texts = set(_texts(shown))
    known = {found for text in texts for kind in _WITH_SPACES for found in kind.findall(text)}
    ordered = sorted(known, key=lambda path: (-len(path), path))
    cut: dict[str, str] = {}
    for text in texts:
        short = text
        for path in ordered:
            short = short.replace(path, _cut(path))
        cut[text] = _PLAIN.sub(lambda found: _cut(found[0]), short)
    mapped: Shown = _mapped(shown, cut)
    return mapped


def _cut(path: str) -> str:
    kind = PurePosixPath if "/" in path else PureWindowsPath
    _, *names = kind(path.removeprefix("file://")).parts
    return "/".join(["...", *names[min(2, len(names) - 1) :][-2:]]) if names else path


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(name)
            yield from _texts(inner)
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _texts(inner)


def _mapped(value: Any, cut: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return cut[value]
    if isinstance(value, Mapping):
        return {_mapped(name, cut): _mapped(inner, cut) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        items = [_mapped(inner, cut) for inner in value]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    return value
