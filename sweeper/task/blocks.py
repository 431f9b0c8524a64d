"""Settings blocks as plain values: what a sweep file states of them, and reading them back from JSON."""

import types
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from sweeper.task.fields import stated_fields

Block = TypeVar("Block")


def as_written(block: Any) -> Any:
    """A block as a sweep file states it: plain values, without planned fields and without None."""
    if is_dataclass(block) and not isinstance(block, type):
        found = {item.name: as_written(getattr(block, item.name)) for item in stated_fields(block)}
        return {name: value for name, value in found.items() if value is not None}
    if isinstance(block, list | tuple):
        return [as_written(item) for item in block]
    return dict(block) if isinstance(block, dict) else block


def from_plain(kind: type[Block], raw: Any) -> Block:
    """Rebuild a block from `dataclasses.asdict` output or JSON; numbers are not converted.

    Raises:
        TypeError, ValueError: a field is missing or unknown, has another shape, or violates a constraint.
    """
    found: Block = _read(kind, raw, kind.__name__)
    return found


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _read(kind: Any, raw: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if raw is None:
            return None
        blocks = [part for part in get_args(kind) if is_dataclass(part)]
        return _read(blocks[0], raw, place) if blocks else raw
    if origin is tuple:
        if not isinstance(raw, list):
            raise TypeError(f"{place}: a list is expected")
        return tuple(_read(get_args(kind)[0], item, place) for item in raw)
    if not is_dataclass(kind):
        return raw
    if not isinstance(raw, dict):
        raise TypeError(f"{place}: a block is expected")
    names = {item.name for item in fields(kind)}
    needed = {
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    }
    if wrong := sorted((raw.keys() - names) | (needed - raw.keys())):
        raise TypeError(f"{place}: {', '.join(wrong)}")
    hints = _hints(kind)  # type: ignore[arg-type]
    values = {name: _read(hints[name], value, f"{place}.{name}") for name, value in raw.items()}
    return kind(**values)  # type: ignore[operator]
