"""Parallel coordinates: every complete configuration a line across hyperparameters and metrics."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import CANDIDATE_ROLE, Candidate, Certainty, Front, varying
from sweeper.report.figures.info import escape
from sweeper.report.figures.levels import MOST_LEVELS, is_log, is_number, levels, tick_texts
from sweeper.spec import ResultsSpec

MOST_AXES = 8
"""The most axes of hyperparameters that stay legible."""

MOST_LINES = 2_000
"""The most lines: a browser draws ten thousand in half a minute, and they hide each other."""

P_FRONT = "P(front)"
UPPER = "unsafe_rate, at most"
"""The upper end of the 95 % interval of the unsafe rate."""

_LONG = 8
_WIDE = 13


class ParallelAxis(NamedTuple):
    """One axis: where each line crosses it. `ticks` are places and (escaped) texts; empty is a plain scale.

    `format` is a d3 format of the plain scale's numbers.
    """

    name: str
    label: str
    values: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    format: str = ""
    range: tuple[float, float] | None = None

    @property
    def width(self) -> int:
        """Characters of the longest tick."""
        return max((len(text) for _, text in self.ticks), default=0)


class ParallelInfo(NamedTuple):
    """Lines in the order of `config_ids`; the last are drawn on top.

    `colour` names the metric that colours a line by its value in `shades`. `controls` and
    `incomplete` count configurations that have no line, `unshown` names hyperparameters and metrics
    without an axis. `hidden` counts complete ones beyond the MOST_LINES with the best values of `colour`.
    """

    config_ids: tuple[str, ...]
    axes: tuple[ParallelAxis, ...]
    colour: str
    shades: tuple[float, ...]
    controls: int
    incomplete: int
    unshown: tuple[str, ...]
    hidden: int = 0


def parallel_info(front: Front, spec: ResultsSpec, certainty: Certainty) -> ParallelInfo | None:
    """None where fewer than two configurations of the space are complete, or none varies."""
    utility = spec.utility.metric
    own = [item for item in front.candidates if item.role == CANDIDATE_ROLE]
    items = [
        item
        for item in own
        if item.excluded is None and {utility, "unsafe_rate"} <= item.values.keys()
    ]
    names = varying(items)
    if len(items) < 2 or not names:
        return None
    places = {item.config_id: s.p_front for item in items if (s := _membership(item, certainty))}
    by_front = len(places) == len(items) and len(set(places.values())) > 1
    shade = places if by_front else {item.config_id: item.values["unsafe_rate"] for item in items}
    items.sort(key=lambda item: (shade[item.config_id], item.config_id))
    complete = len(items)
    items = items[-MOST_LINES:] if by_front else items[:MOST_LINES]
    metrics = _metric_axes(items, utility, places if len(places) == complete else {})
    wanted = (utility, "unsafe_rate", UPPER, P_FRONT, "over_refusal_rate")
    without = [name for name in wanted if name not in {axis.name for axis in metrics}]
    return ParallelInfo(
        config_ids=tuple(item.config_id for item in items),
        axes=(*_hyperparameter_axes(names[:MOST_AXES], items, spec), *metrics),
        colour=P_FRONT if by_front else "unsafe_rate",
        shades=tuple(shade[item.config_id] for item in items),
        controls=sum(item.role != CANDIDATE_ROLE for item in front.competing),
        incomplete=len(own) - complete,
        unshown=(*names[MOST_AXES:], *without),
        hidden=complete - len(items),
    )


def _membership(candidate: Candidate, certainty: Certainty) -> Any:
    return certainty.memberships.get(candidate.config_id)


def _hyperparameter_axes(
    names: Sequence[str], items: Sequence[Candidate], spec: ResultsSpec
) -> list[ParallelAxis]:
    """In the order of the config, but long texts first: there is room for them left of the first axis."""
    axes = [_axis(name, items, spec) for name in names]
    return sorted(axes, key=lambda axis: -width if (width := axis.width) > _LONG else 0)


def _axis(name: str, items: Sequence[Candidate], spec: ResultsSpec) -> ParallelAxis:
    """Few different values are evenly spaced, each with a tick; many numbers get a scale."""
    values = [item.config.get(name) for item in items]
    known = levels(values)
    label = escape(name)
    if len(known) > MOST_LEVELS and all(map(is_number, known)):
        if is_log(name, known, spec):
            return ParallelAxis(
                name, f"log10 {label}", tuple(math.log10(v) for v in values if v is not None)
            )
        return ParallelAxis(name, label, tuple(float(v) for v in values if v is not None))
    at = {repr(value): float(place) for place, value in enumerate(known)}
    ticks = tuple((float(place), escape(text)) for place, text in enumerate(tick_texts(known)))
    return ParallelAxis(name, _broken(name), tuple(at[repr(value)] for value in values), ticks)


def _broken(name: str) -> str:
    """A long name in two lines, escaped, so that labels do not overlap."""
    words = name.split("_")
    if len(name) <= _WIDE or len(words) == 1:
        return escape(name)
    half = (len(words) + 1) // 2
    return f"{escape('_'.join(words[:half]))}_<br>{escape('_'.join(words[half:]))}"


def _metric_axes(
    items: Sequence[Candidate], utility: str, places: Mapping[str, float]
) -> tuple[ParallelAxis, ...]:
    """Metrics that every line has: a missing value cannot be drawn."""
    intervals = [item.interval("unsafe_rate") for item in items]
    bounds = tuple(interval.high for interval in intervals if interval is not None)
    unsafe, refused = _values(items, "unsafe_rate"), _values(items, "over_refusal_rate")
    reach = (0.0, max((*unsafe, *bounds, 0.01)))
    chances = tuple(places[item.config_id] for item in items) if places else ()
    axes = [
        ParallelAxis(utility, escape(utility), _values(items, utility), (), ".3~g"),
        ParallelAxis("unsafe_rate", "unsafe rate", unsafe, (), ".3~p", reach),
        ParallelAxis(UPPER, "unsafe, at most", bounds, (), ".3~p", reach),
        ParallelAxis(
            "over_refusal_rate",
            "over-refusal",
            refused,
            (),
            ".3~p",
            (0.0, max((*refused, 0.01))),
        ),
        ParallelAxis(P_FRONT, P_FRONT, chances, (), ".2~g", (0.0, 1.0)),
    ]
    return tuple(axis for axis in axes if len(axis.values) == len(items))


def _values(items: Sequence[Candidate], metric: str) -> tuple[float, ...]:
    return tuple(item.values[metric] for item in items if metric in item.values)
