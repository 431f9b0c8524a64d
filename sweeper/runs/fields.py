"""What all outputs are made of: fields, and the models they derive from. See `sweeper.runs.outputs`."""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

JSON_VERSION: Literal[2] = 2
"""Version of the `--json` output: it increases when a field is removed or changes its meaning."""


def encodable(value: Any) -> Any:
    """A text without lone surrogates, which a damaged record can contain; other values unchanged."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def finite(value: Any) -> Any:
    """None for a number that is not finite; other values unchanged."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


Text = Annotated[str, BeforeValidator(encodable)]
Number = Annotated[float | None, BeforeValidator(finite)]
Ends = tuple[float, float]
Values = dict[Text, Any]


class Model(BaseModel):
    """A part of an output, built from the attributes of a value or field by field."""

    model_config = ConfigDict(
        frozen=True,
        from_attributes=True,
        extra="forbid",
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # A command needs one output of all.
    )


Part = TypeVar("Part", bound=Model)


class Output(Model):
    """The output of one command."""

    version: Literal[2] = JSON_VERSION
