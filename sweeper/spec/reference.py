"""Every key of a sweep file, read from the blocks themselves: the source of docs/reference/sweep-file.md.

`spec_reference()` returns one `Key` for each key in the order of the file; `markdown()` makes Markdown
tables of them, one for each block.
"""

import types
from collections.abc import Iterator
from dataclasses import MISSING
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from sweeper.spec.axes import Axis
from sweeper.spec.blocks import blocks_in, fields_of, is_axis, is_block, parts_of
from sweeper.spec.models import SweepSpec
from sweeper.spec.space import RawAverage
from sweeper.task.fields import Doc, Length, OneOf, Range, metadata


class Key(NamedTuple):
    """One key of a sweep file.

    `path` is dotted; `[]` after a name stands for each item of a list, `evaluation.harmful[].path`. `type`
    and `range` are short texts for people (`range` may be empty). `default` is YAML; None where the key is
    required, "" where it is absent or a block of the defaults below it. `description` is one sentence or
    more.
    """

    path: str
    type: str
    default: str | None
    range: str
    description: str


def spec_reference() -> list[Key]:
    """Every key of a sweep file: path, type, default, range, description, in the order of the file."""
    return list(_keys(SweepSpec, ""))


def _keys(block: Any, above: str) -> Iterator[Key]:
    for name, (kind, default) in fields_of(block).items():
        doc = metadata(kind, Doc)
        path = f"{above}{name}"
        yield Key(path, _type(kind), _default(default), _range(kind), doc.text if doc else "")
        axes = [part for part in blocks_in(kind) if is_axis(part)]
        inner = [part for axis in axes for part in parts_of(axis)] or [kind]
        blocks = [part for item in inner for part in blocks_in(item)]
        for part in blocks:
            variant = f"[{_variant(part)}]" if len(blocks) > 1 else ""
            items = "[]" if _holds_tuple(kind) else ""
            yield from _keys(part, f"{path}{items}{variant}.")


def _variant(block: Any) -> str:
    """The `kind` that tells one block of several apart."""
    return str(get_args(block.model_fields["kind"].annotation)[0])


def _holds_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple or any(_holds_tuple(part) for part in parts_of(kind))


_NAMES = {int: "integer", float: "number", bool: "boolean", str: "text", dict: "mapping"}


def _type(kind: Any) -> str:
    """The type of a value in words."""
    words = metadata(kind, OneOf)
    if words is not None:
        return ", ".join(f"`{word}`" for word in words.words)
    if is_axis(kind):
        return f"{_type(parts_of(kind)[0])}; or a list, or a range"
    if is_block(kind):
        return "block"
    origin, parts = get_origin(kind), [part for part in parts_of(kind) if part is not type(None)]
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in parts)
    if origin in (Union, types.UnionType, Annotated):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    return f"list of {_type(parts[0])}" if origin is tuple else _NAMES[origin or kind]


_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _range(kind: Any) -> str:
    """The bounds of a number or of a length; of a union those of its numbers."""
    if (found := metadata(kind, Range)) is not None:
        return ", ".join(f"{_SIGNS[name]} {bound}" for name, bound in found.bounds.items())
    if (length := metadata(kind, Length)) is not None and _holds_tuple(kind):
        most = "" if length.most is None else f", ≤ {length.most} items"
        return f"≥ {length.least} item{'' if length.least == 1 else 's'}{most}"
    if is_block(kind) and not is_axis(kind):
        return ""
    return next((text for part in parts_of(kind) if (text := _range(part))), "")


def _default(value: Any) -> str | None:
    """A default as a sweep file would state it; None of a required key, "" of one that is absent."""
    if value is MISSING:
        return None
    if isinstance(value, Axis):
        value = value.values[0] if value.values else None
        value = value.kind if isinstance(value, RawAverage) else value
    if value in (None, "") or is_block(type(value)):
        return ""
    value = (
        [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
        if isinstance(value, tuple)
        else value
    )
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def _section(key: Key) -> str:
    """The block at the top of the file that a key belongs to; "" of a plain key there."""
    top = key.path.partition(".")[0].removesuffix("[]")
    return top if blocks_in(fields_of(SweepSpec)[top][0]) else ""


def markdown() -> str:
    """The reference as Markdown: a table for each block of the file, plain keys at its top first."""
    lines = []
    keys = sorted(spec_reference(), key=lambda key: _section(key) != "")
    for block, rows in groupby(keys, key=_section):
        title = f"`{block}`" if block else "Top level"
        lines += [f"## {title}", "", "| key | type | default | range | meaning |"]
        lines.append("|---|---|---|---|---|")
        for key in rows:
            default = (
                f"`{key.default}`" if key.default else "required" if key.default is None else ""
            )
            lines.append(
                f"| `{key.path}` | {key.type} | {default} | {key.range} | {key.description} |"
            )
        lines.append("")
    return "\n".join(lines)
