"""Values of a hyperparameter as positions on an axis, and which of many are shown."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sweeper.analysis import shown
from sweeper.report.figures.info import SYMBOLS, kind_of
from sweeper.spec import ResultsSpec, SweepSpec

T = TypeVar("T")

_FILLINGS = ("", "-open", "-open-dot")

MOST_LEVELS = 14
"""A number with more different values is a range; fewer are values that were chosen."""


def is_number(value: Any) -> bool:
    """Whether a value is a number and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_log(name: str, values: Iterable[Any], spec: ResultsSpec) -> bool:
    """Whether to use a log scale: all positive, and a learning rate or an axis with `log: true`."""
    axis = getattr(spec.space, name, None) if isinstance(spec, SweepSpec) else None
    asked = name == "learning_rate" or bool(axis is not None and axis.log)
    return asked and all(value > 0 for value in values)


def levels(values: Iterable[Any]) -> tuple[Any, ...]:
    """The different values: numbers rising, then averages by kind and other texts, None last."""
    known = {repr(value): value for value in values}
    return tuple(sorted(known.values(), key=_order))


def symbols_of(labels: Sequence[str]) -> dict[str, str]:
    """A marker symbol for each average: its shape shows the kind, its fill which one of that kind."""
    found: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        shape = SYMBOLS.get(kind_of(label), "x")
        before = sum(kind_of(other) == kind_of(label) for other in found)
        found[label] = shape + _FILLINGS[before % len(_FILLINGS)]
    return found


def tick_texts(values: Sequence[Any]) -> tuple[str, ...]:
    """Different values as short texts: three digits where these distinguish all of them."""
    short = tuple(f"{v:.3g}" if isinstance(v, float) else _plain(v) for v in values)
    return short if len(set(short)) == len(short) else tuple(map(_plain, values))


def _plain(value: Any) -> str:
    return "not set" if value is None else shown(value)


def _order(value: Any) -> tuple[int, float, int, str]:
    if value is None:
        return 2, 0.0, 0, ""
    if is_number(value):
        return 0, float(value), 0, ""
    kinds = list(SYMBOLS)
    kind = kind_of(str(value))
    return 1, 0.0, kinds.index(kind) if kind in kinds else len(kinds), str(value)


def spread(values: Sequence[T], most: int, keep: T | None = None) -> tuple[T, ...]:
    """At most `most` of different values, in their order: `keep`, both ends, and evenly between."""
    if len(values) <= most:
        return tuple(values)
    last = len(values) - 1
    places = [round(i * last / max(1, most - 1)) for i in range(most)]
    if keep in values and (place := values.index(keep)) not in places:
        inner = places[1:-1] or places
        places[places.index(min(inner, key=lambda i: abs(i - place)))] = place
    return tuple(values[place] for place in sorted(places))
