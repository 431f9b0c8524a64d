"""Published figures that a report shows beside its own, and never among them."""

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from sweeper.metrics import METRICS, is_harness
from sweeper.spec.axes import SpecModel
from sweeper.spec.fields import Number

Text = Annotated[str, Field(min_length=1)]


def _known_metrics(values: dict[str, float]) -> dict[str, float]:
    """Refuse metrics a report does not know, and rates that are none."""
    for name, value in values.items():
        if name not in METRICS and not is_harness(name):
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            raise ValueError(f"found {name!r}{hint}; known: {', '.join(METRICS)}")
        if name.endswith("_rate") and not 0 <= value <= 1:
            raise ValueError(
                f"{name}: found {value}; a rate between 0 and 1 is expected, not per cent"
            )
    return values


class ReferencePoint(SpecModel):
    """One published result: `params` are dimensions of the space, `metrics` what was measured at them."""

    params: dict[str, Annotated[float, Number] | str] = Field(default_factory=dict)
    metrics: Annotated[
        dict[str, Annotated[float, Number]], Field(min_length=1), AfterValidator(_known_metrics)
    ]

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration has all of `params`."""
        return all(_same(config.get(name), value) for name, value in self.params.items())


class ReferenceSpec(SpecModel):
    """Results of others. `source` says where they stand, `note` how they were measured."""

    name: Text
    source: Text
    note: str = ""
    points: Annotated[tuple[ReferencePoint, ...], Field(min_length=1)]


def _same(found: Any, asked: float | str) -> bool:
    if isinstance(asked, str) or isinstance(found, str):
        return bool(found == asked)
    return found is not None and math.isclose(found, asked, rel_tol=1e-9)
