"""Published figures that a report shows beside its own results."""

import difflib
import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from sweeper.metrics import METRICS, is_harness
from sweeper.spec.axes import SpecModel
from sweeper.task.fields import After, Doc, Length, Range, Text

Number = Annotated[float, Range()]


def _known_metrics(values: dict[str, float]) -> dict[str, float]:
    """Reject metrics that a report does not know, and rates outside [0, 1]."""
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

    params: Annotated[
        dict[str, Number | str], Doc("Dimensions of the space, and their values.")
    ] = Field(default_factory=dict)
    metrics: Annotated[
        dict[str, Number],
        Length(1),
        After(_known_metrics),
        Doc("What was measured; rates in [0, 1]."),
    ]

    def matches(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration has all of `params`."""
        return all(_same(config.get(name), value) for name, value in self.params.items())


class ReferenceSpec(SpecModel):
    """Results of others. `source` says where they were published, `note` how they were measured."""

    name: Annotated[Text, Doc("Shown beside the points.")]
    source: Annotated[Text, Doc("Where the figures were published.")]
    note: Annotated[str, Doc("How they were measured.")] = ""
    points: Annotated[tuple[ReferencePoint, ...], Length(1), Doc("The published results.")]


def _same(found: Any, asked: float | str) -> bool:
    if isinstance(asked, str) or isinstance(found, str):
        return bool(found == asked)
    return found is not None and math.isclose(found, asked, rel_tol=1e-9)
