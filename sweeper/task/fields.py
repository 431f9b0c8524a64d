"""Constraints on the fields of a settings block: ranges, lengths and patterns, as `Annotated` metadata.

Standard library only, so that workers can import every block. Where `sweeper.spec` validates a sweep file,
pydantic calls `__get_pydantic_core_schema__` of each marker, whose result is a plain dict.
"""

from collections.abc import Callable
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Annotated, Any, get_type_hints

Schema = dict[str, Any]
Handler = Callable[[Any], Schema]


def _called(when: str, function: Callable[[Any], Any], schema: Schema) -> Schema:
    """The schema that calls a function `before` or `after` the validation of another."""
    call = {"type": "no-info", "function": function}
    return {"type": f"function-{when}", "function": call, "schema": schema}


@dataclass(frozen=True, slots=True)
class Doc:
    """The description of a field: one sentence that the reference of the sweep file shows."""

    text: str


@dataclass(frozen=True, slots=True)
class Before:
    """Calls `read` on a raw value before it is validated; a ValueError is an error of the file."""

    read: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        return _called("before", self.read, handler(source))


@dataclass(frozen=True, slots=True)
class After:
    """Calls `check` on a validated value, and keeps what it returns; a ValueError rejects the value."""

    check: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        return _called("after", self.check, handler(source))


@dataclass(frozen=True, slots=True)
class Range:
    """The bounds of a number: `ge` and `le` are included, `gt` and `lt` are not."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        found = {"ge": self.ge, "gt": self.gt, "le": self.le, "lt": self.lt}
        return {name: bound for name, bound in found.items() if bound is not None}

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        return _called("before", not_bool, {**handler(source), **self.bounds})


@dataclass(frozen=True, slots=True)
class Length:
    """How many items a tuple, or how many characters a text has at least and at most."""

    least: int = 0
    most: int | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        most = {} if self.most is None else {"max_length": self.most}
        return {**handler(source), "min_length": self.least, **most}


@dataclass(frozen=True, slots=True)
class Pattern:
    """The regular expression that a text has to match."""

    regex: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        return {**handler(source), "pattern": self.regex}


class OneOf:
    """The allowed values of a text.

    Use `Literal` where every block with this field allows the same ones.
    """

    def __init__(self, *words: str) -> None:
        self.words = words

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        return {"type": "literal", "expected": list(self.words)}


@dataclass(frozen=True, slots=True)
class Planned:
    """A field that the planner sets; in a sweep file it is an unknown key."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Handler) -> Schema:
        return _called("before", _unknown, handler(source))


@dataclass(frozen=True, slots=True)
class Placement:
    """A field that does not affect results: it may change when a run continues."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A field that is a dimension of the space as well, where `space` names it."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A dimension of the space that a sweep file states as `type`, and that the planner resolves."""

    type: Any
    default: Any


UNKNOWN_KEY = "unknown key"


def _unknown(raw: Any) -> Any:
    raise ValueError(UNKNOWN_KEY)


def not_bool(raw: Any) -> Any:
    """Reject `yes`, `on`, `true` where a number is expected: YAML reads them as booleans."""
    if isinstance(raw, bool):
        raise ValueError("a number is expected here, not a boolean")
    return raw


def listed(raw: Any) -> Any:
    """Wrap a single item in a list; None becomes an empty one."""
    if raw is None:
        return []
    return raw if isinstance(raw, list | tuple) else [raw]


def whole_or_share(value: float) -> float:
    """Reject a value that is neither a whole number nor a fraction below 1."""
    if value > 1 and value != int(value):
        raise ValueError(f"a whole number or a fraction below 1 is expected, but got {value}")
    return value


Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Steps = Annotated[float, Range(ge=0), After(whole_or_share)]
Count = Annotated[int, Range(ge=1)]
Whole = Annotated[int, Range(ge=0)]
UnitFloat = Annotated[float, Range(gt=0, lt=1)]
Dropout = Annotated[float, Range(ge=0, lt=1)]
Seed = Annotated[int, Range(ge=0, lt=2**32)]
Text = Annotated[str, Length(1)]


def annotations_of(block: type) -> dict[str, Any]:
    """The annotations of a block's fields by name, with their metadata."""
    hints = get_type_hints(block, include_extras=True)
    return {item.name: hints[item.name] for item in fields(block)}


def metadata(annotation: Any, kind: type) -> Any:
    """The marker of a kind that an annotation has, or None."""
    found = getattr(annotation, "__metadata__", ())
    return next((item for item in found if isinstance(item, kind)), None)


def stated_fields(block: Any) -> tuple[Field[Any], ...]:
    """The fields of a block that a sweep file may state: all but the planned ones."""
    return _stated_fields(block if isinstance(block, type) else type(block))


@cache
def _stated_fields(block: type) -> tuple[Field[Any], ...]:
    hints = annotations_of(block)
    return tuple(item for item in fields(block) if metadata(hints[item.name], Planned) is None)
