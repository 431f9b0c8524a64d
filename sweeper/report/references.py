"""Published figures beside what was measured under the same hyperparameters."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sweeper.analysis import ABSENT, Candidate, Front, shown
from sweeper.metrics import metric_text
from sweeper.report.measures import measure
from sweeper.spec import ReferencePoint, ReferenceSpec, ResultsSpec


class ReferenceTable(NamedTuple):
    """The points of one source: hyperparameters, published and measured figures."""

    name: str
    source: str
    note: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def reference_tables(front: Front, spec: ResultsSpec) -> tuple[ReferenceTable, ...]:
    """A table for each source of `references`; they do not affect the front.

    The trainers' defaults do not match a published point, as their schedule differs.
    """
    measured = [item for item in front.competing if item.role != "default"]
    return tuple(_table(reference, measured) for reference in spec.references)


def _table(reference: ReferenceSpec, measured: Sequence[Candidate]) -> ReferenceTable:
    params = _in_order(name for point in reference.points for name in point.params)
    metrics = _in_order(name for point in reference.points for name in point.metrics)
    columns = [*params, *(text for m in metrics for text in (f"{m}, published", f"{m}, here"))]
    lines = []
    for point in reference.points:
        matching = [item for item in measured if point.matches(item.config)]
        line = [shown(point.params[name]) if name in point.params else "" for name in params]
        for name in metrics:
            line += [_published(point, name), _here(matching, name)]
        lines.append(tuple(line))
    return ReferenceTable(
        reference.name, reference.source, reference.note, tuple(columns), tuple(lines)
    )


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _published(point: ReferencePoint, metric: str) -> str:
    value = point.metrics.get(metric)
    return "not given" if value is None else metric_text(metric, value)


def _here(matching: Sequence[Candidate], metric: str) -> str:
    """For one configuration the value with its interval; for several the smallest and the largest value."""
    found = [item for item in matching if metric in item.values]
    if not found:
        return ABSENT
    if len(found) == 1:
        one = measure(found[0], metric)
        return f"{one.text} ({one.detail})" if one.detail else one.text
    ordered = sorted(found, key=lambda item: item.values[metric])
    least, largest = measure(ordered[0], metric).text, measure(ordered[-1], metric).text
    return f"{least} to {largest} ({len(found)} configurations)"
