"""The blocks of a sweep file as classes: their keys, and the blocks inside them."""

from dataclasses import MISSING, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from sweeper.spec.axes import Axis
from sweeper.task.fields import stated_fields


def fields_of(block: Any) -> dict[str, tuple[Any, Any]]:
    """The keys of a block, in order, with annotation and default (MISSING where required)."""
    if not is_block(block):
        return {}
    hints = get_type_hints(block, include_extras=True)
    if is_dataclass(block):
        stated = stated_fields(block)
        made = [item.default_factory for item in stated]
        defaults = [
            item.default if factory is MISSING else factory()
            for item, factory in zip(stated, made, strict=True)
        ]
        names = [item.name for item in stated]
    else:
        names = list(block.model_fields)
        found = [
            item.get_default(call_default_factory=True) for item in block.model_fields.values()
        ]
        defaults = [MISSING if item is PydanticUndefined else item for item in found]
    return {name: (hints[name], default) for name, default in zip(names, defaults, strict=True)}


def blocks_in(kind: Any) -> list[Any]:
    """The blocks that a field of this annotation holds, also as items of a tuple or branches of a union."""
    if is_block(kind):
        return [kind]
    return [block for part in parts_of(kind) for block in blocks_in(part)]


def is_block(kind: Any) -> bool:
    """Whether this is a class of keys and values: a settings block, or a model of `sweeper.spec`."""
    return isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel))


def is_axis(kind: Any) -> bool:
    """Whether this annotation is a dimension of the space."""
    return isinstance(kind, type) and issubclass(kind, Axis)


def parts_of(kind: Any) -> tuple[Any, ...]:
    """The types inside an annotation; of an axis, those of its values."""
    if is_axis(kind):
        found: tuple[Any, ...] = kind.__pydantic_generic_metadata__["args"]
        return found
    return get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
