"""One dimension of a space: a constant, a list of values, or a range."""

import math
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")


class SpecModel(BaseModel):
    """Base of every block: frozen, no unknown keys, no NaN or infinity.

    Built at its first use: only the outermost block is ever used by itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Axis(SpecModel, Generic[T]):
    """A dimension. In YAML: `2e-5`, `[1e-5, 2e-5]` (or `{values: [...]}`), or `{low, high, log, num}`.

    A range includes both bounds. `num` points are taken from it by a grid (equidistant, on a log scale
    with `log: true`); a random search draws from the whole range.
    """

    values: tuple[T, ...] | None = Field(default=None, min_length=1, max_length=1000)
    low: T | None = None
    high: T | None = None
    log: bool = False
    num: int | None = Field(default=None, ge=2, le=1000)

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, raw: Any) -> Any:
        """Read a bare list as values, and a bare value as a list of one."""
        if isinstance(raw, list):
            return {"values": raw}
        is_axis = isinstance(raw, dict) and not {"values", "low", "high"}.isdisjoint(raw)
        return raw if is_axis or isinstance(raw, Axis) else {"values": [raw]}

    @model_validator(mode="after")
    def _law(self) -> Self:
        if self.values is not None:
            given = [name for name in ("low", "high", "num") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"`values` allows no other key, but got {', '.join(given)}")
            repeated = [value for i, value in enumerate(self.values) if value in self.values[:i]]
            if repeated:
                raise ValueError(f"values must differ, but {repeated[0]!r} is given twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a range needs both `low` and `high`")
        if isinstance(self.low, bool) or not isinstance(self.low, int | float):
            raise ValueError(f"a range needs numbers, but got low={self.low!r}; use `values`")
        assert isinstance(self.high, int | float)
        if not self.low <= self.high:
            raise ValueError(f"`low <= high` must hold, but got (low={self.low}, high={self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"`low > 0` must hold on a log scale, but got low={self.low}")
        return self

    def grid(self) -> tuple[T, ...]:
        """The points a grid takes, in order, each once.

        Raises:
            ValueError: a range without `num` has no grid.
        """
        if self.values is not None:
            return self.values
        if self.num is None:
            raise ValueError("a grid needs `num` points of a range; add `num` or list `values`")
        last = self.num - 1
        points = [self.at(index / last) for index in range(self.num)]
        return tuple(dict.fromkeys(points))

    def at(self, fraction: float) -> T:
        """The value at `fraction` in [0, 1] of the axis: how a uniform draw becomes a value."""
        if self.values is not None:
            return self.values[min(int(fraction * len(self.values)), len(self.values) - 1)]
        low, high = self.low, self.high
        assert isinstance(low, int | float) and isinstance(high, int | float)
        if self.log:
            value = math.exp(math.log(low) + fraction * (math.log(high) - math.log(low)))
        else:
            value = low + fraction * (high - low)
        value = min(max(value, low), high)
        whole = isinstance(low, int) and isinstance(high, int)
        return round(value) if whole else float(f"{value:.12g}")  # type: ignore[return-value]
