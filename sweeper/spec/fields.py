"""Numbers as a sweep file may give them."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field


def not_bool(raw: Any) -> Any:
    """Refuse `yes`, `on`, `true` where a number is due: YAML makes booleans of them."""
    if isinstance(raw, bool):
        raise ValueError("a number is expected here, not a boolean")
    return raw


def listed(raw: Any) -> Any:
    """Read one item as a list of it, and nothing as an empty one."""
    if raw is None:
        return []
    return raw if isinstance(raw, list | tuple) else [raw]


def whole_or_share(value: float) -> float:
    """Refuse what is neither a whole number nor a share of one."""
    if value > 1 and value != int(value):
        raise ValueError(f"a whole number or a share below 1 is expected, not {value}")
    return value


Number = BeforeValidator(not_bool)
Positive = Annotated[float, Number, Field(gt=0)]
NonNegative = Annotated[float, Number, Field(ge=0)]
Steps = Annotated[float, Number, Field(ge=0), AfterValidator(whole_or_share)]
Count = Annotated[int, Number, Field(ge=1)]
Share = Annotated[float, Number, Field(gt=0, lt=1)]
Dropout = Annotated[float, Number, Field(ge=0, lt=1)]
Seed = Annotated[int, Number, Field(ge=0, lt=2**32)]


MirrorUrl = Annotated[
    str,
    Field(
        pattern=(
            r"^((s3|gs)://[a-z0-9][a-z0-9._-]+"
            r"|abfss?://[a-z0-9-]+@[a-z0-9]+\.dfs\.core\.windows\.net"
            r"|file://(/[A-Za-z0-9_.=-]+))(/[A-Za-z0-9_.=-]+)*$"
        )
    ),
]
"""A bucket of S3 or Google, a container of Azure, or a folder; and a prefix in it."""
