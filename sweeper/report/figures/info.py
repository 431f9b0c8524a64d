"""The data of the figures, as plain values that tests read. It does not use plotly.

Text that comes from data is escaped, because plotly renders a subset of HTML in hover texts.
"""

import html
from collections.abc import Sequence
from typing import NamedTuple

from sweeper.analysis import (
    CANDIDATE_ROLE,
    Candidate,
    Certainty,
    Front,
    FrontMembership,
    bounds_text,
    shown,
    varying,
)
from sweeper.metrics import is_rate, metric_text, range_text
from sweeper.spec import ResultsSpec
from sweeper.stats import Interval, largest_passing_count

SYMBOLS = {
    "raw": "circle",
    "ema": "diamond",
    "interpolate": "square",
    "bema": "pentagon",
    "feedback": "triangle-up",
}
"""Marker symbols of plotly by kind of average: colour is never the only channel."""

BASE_SYMBOL = "star"


class Point(NamedTuple):
    """One configuration in the front figure. `low` and `high` bound the unsafe rate `x`.

    `on_front` is by the estimates, `p_front` the probability and `membership` its class, one of
    `on`, `uncertain` and `off`. The untouched model has neither.
    """

    config_id: str
    x: float
    y: float
    low: float
    high: float
    kind: str
    symbol: str
    learning_rate: float
    text: str
    feasible: bool
    on_front: bool
    gain: bool | None
    p_front: float | None = None
    membership: str = ""
    role: str = "candidate"


class Mark(NamedTuple):
    """A published result that was not measured here; `y` is None where only the unsafe rate is known."""

    name: str
    x: float
    y: float | None
    text: str


REFERENCE = "published, not measured here"


class FrontInfo(NamedTuple):
    """Everything in the front figure. `front` lists ids of members by rising unsafe rate.

    `maximize` says whether more of the utility metric is better; `safety` is the metric on the x axis, and
    `safety_maximize` whether more of it is.
    `marks` are published results, which do not affect decisions. `limit` is the constraint on the unsafe
    rate; `passing` the largest rate that satisfies it with the required confidence at the number of
    prompts measured: the feasible region is left of it.
    """

    points: tuple[Point, ...]
    base: Point | None
    front: tuple[str, ...]
    recommended: str | None
    limit: float | None
    passing: float | None
    utility: str
    x_range: tuple[float, float]
    maximize: bool = True
    safety: str = "unsafe_rate"
    safety_maximize: bool = False
    marks: tuple[Mark, ...] = ()


class Curve(NamedTuple):
    """One average along max_steps. `low` and `high` bound the values where they have intervals."""

    label: str
    kind: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    config_ids: tuple[str, ...] = ()


class StepInfo(NamedTuple):
    """Curves of one metric over optimizer steps, with all other settings as in `fixed`."""

    metric: str
    fixed: str
    curves: tuple[Curve, ...]
    base: float | None
    limit: float | None


def kind_of(label: str) -> str:
    """`ema` of `ema(0.99)`."""
    return label.partition("(")[0]


def front_info(
    front: Front,
    spec: ResultsSpec,
    recommended: Candidate | None,
    certainty: Certainty | None = None,
) -> FrontInfo:
    """What the front figure shows: every complete configuration and the untouched model.

    Without `certainty` no point has a probability or a class.
    """
    utility, safety = spec.utility.metric, spec.safety.metric
    goals = utility, safety
    names = varying(front.candidates)
    members = {item.config_id for item in front.members}
    points = tuple(
        point
        for item in front.competing
        if (point := _point(item, names, goals, item.config_id in members, certainty))
    )
    base = None if front.base is None else _point(front.base, (), goals, False, certainty)
    constraint = next((c for c in spec.constraints if c.metric == safety), None)
    ordered = sorted((p for p in points if p.on_front), key=lambda point: (point.x, point.y))
    marks = _marks(spec, utility)
    rates = [*(point.x for point in points), *(mark.x for mark in marks)]
    reach = max(rates, default=1.0)
    return FrontInfo(
        points=points,
        base=base,
        front=tuple(point.config_id for point in ordered),
        recommended=None if recommended is None else recommended.config_id,
        limit=None if constraint is None else constraint.max,
        passing=None
        if constraint is None
        else _passing(front, safety, constraint.max, constraint.confidence),
        utility=utility,
        x_range=(0.0, min(1.02, max(reach * 1.1, 0.1))) if is_rate(safety) else _range(rates),
        maximize=spec.utility.direction == "maximize",
        marks=marks,
        safety=safety,
        safety_maximize=spec.safety.direction == "maximize",
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The values with a margin."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _short(metric: str) -> str:
    """`unsafe` of `unsafe_rate`."""
    return escape(metric.removesuffix("_rate"))


def _marks(spec: ResultsSpec, utility: str) -> tuple[Mark, ...]:
    """The published results with an unsafe rate."""
    return tuple(
        Mark(
            item.name,
            point.metrics["unsafe_rate"],
            point.metrics.get(utility),
            "<br>".join(
                [
                    f"<b>{REFERENCE}</b>",
                    escape(item.name),
                    *(f"{escape(name)} {escape(shown(v))}" for name, v in point.params.items()),
                    *(f"{escape(name)} {value:.4g}" for name, value in point.metrics.items()),
                    *([escape(item.note)] if item.note else []),
                ]
            ),
        )
        for item in spec.references
        for point in item.points
        if "unsafe_rate" in point.metrics
    )


def _passing(front: Front, metric: str, limit: float, confidence: float) -> float | None:
    """The largest unsafe rate that passes at the smallest number of prompts of any candidate."""
    sizes = [n for item in front.competing if (n := item.size(metric)) is not None]
    if not sizes:
        return None
    k = largest_passing_count(min(sizes), limit, confidence)
    return None if k is None else k / min(sizes)


def _point(
    candidate: Candidate,
    names: Sequence[str],
    goals: tuple[str, str],
    on_front: bool,
    certainty: Certainty | None,
) -> Point | None:
    membership = None if certainty is None else certainty.memberships.get(candidate.config_id)
    if not set(goals) <= candidate.values.keys():
        return None
    utility, safety = goals
    x = candidate.values[safety]
    interval = candidate.interval(safety)
    low, high = (x, x) if interval is None else interval
    kind = (
        "base" if candidate.role == "base" else kind_of(str(candidate.config.get("average", "raw")))
    )
    return Point(
        config_id=candidate.config_id,
        x=x,
        y=candidate.values[utility],
        low=low,
        high=high,
        kind=kind,
        symbol=BASE_SYMBOL if kind == "base" else SYMBOLS.get(kind, "x"),
        learning_rate=float(candidate.config.get("learning_rate", 0.0)),
        text=_hover(candidate, names, goals, interval, on_front, membership),
        feasible=candidate.feasible,
        on_front=on_front,
        gain=candidate.gain,
        p_front=None if membership is None else membership.p_front,
        membership="" if membership is None else membership.label,
        role=candidate.role,
    )


def _hover(
    candidate: Candidate,
    names: Sequence[str],
    goals: tuple[str, str],
    interval: Interval | None,
    on_front: bool,
    membership: FrontMembership | None,
) -> str:
    """Escaped lines: varying hyperparameters, measurements, and decisions."""
    head = "untouched model" if candidate.role == "base" else candidate.config_id
    lines = [f"<b>{escape(head)}</b>"]
    lines += [
        f"{escape(name)} {escape(shown(candidate.config[name]))}"
        for name in names
        if name in candidate.config
    ]
    utility, safety = goals
    lines.append(f"{escape(utility)} {candidate.values[utility]:.4g}")
    if interval is None:
        lines.append(f"{escape(safety)} {escape(metric_text(safety, candidate.values[safety]))}")
    else:
        lines.append(
            f"{_short(safety)} {escape(candidate.counts(safety))}, "
            f"95 % interval {range_text(safety, *interval)}"
        )
    if membership is not None:
        between = bounds_text(membership.p_front, membership.p_front_upper)
        lines.append(f"P(on front), {membership.claim}, {between}: {membership.label}")
    marks = ["on the front"] if on_front else []
    marks += ["no gain"] if candidate.gain is False else []
    marks += (
        []
        if candidate.feasible or candidate.role == "base"
        else ["constraint not kept with confidence"]
    )
    return "<br>".join(lines + marks)


def escape(text: object) -> str:
    """Text from data, safe in plotly's HTML subset."""
    return html.escape(str(text), quote=True)


def step_curves(
    front: Front, spec: ResultsSpec, centre: Candidate | None, metric: str
) -> StepInfo | None:
    """A metric over max_steps, a curve for each average, everything else as in `centre`.

    None without a centre (the recommended candidate, say), and where fewer than two step counts
    were measured.
    """
    if centre is None:
        return None
    free = {"max_steps", "average", "warmup_steps", "decay_steps"}
    fixed = {name: value for name, value in centre.config.items() if name not in free}
    groups: dict[str, list[Candidate]] = {}
    for item in front.competing:
        same = all(item.config.get(name) == value for name, value in fixed.items())
        if same and metric in item.values and item.role != "interpolation_control":
            groups.setdefault(str(item.config.get("average")), []).append(item)
    curves = tuple(_curve(label, groups[label], metric) for label in sorted(groups, key=_by_kind))
    if len({step for curve in curves for step in curve.steps}) < 2:
        return None
    names = [name for name in varying(front.candidates, CANDIDATE_ROLE) if name in fixed]
    limit = next((c.max for c in spec.constraints if c.metric == metric), None)
    base = None if front.base is None else front.base.values.get(metric)
    text = ", ".join(f"{name} {shown(fixed[name])}" for name in names)
    return StepInfo(metric, text, curves, base, limit)


def _by_kind(label: str) -> tuple[int, str]:
    kinds = list(SYMBOLS)
    kind = kind_of(label)
    return (kinds.index(kind) if kind in kinds else len(kinds)), label


def _curve(label: str, items: Sequence[Candidate], metric: str) -> Curve:
    ordered = sorted(items, key=lambda item: (item.steps, item.config_id))
    intervals = [item.interval(metric) for item in ordered]
    return Curve(
        label=label,
        kind=kind_of(label),
        steps=tuple(item.steps for item in ordered),
        values=tuple(item.values[metric] for item in ordered),
        low=tuple(None if each is None else each.low for each in intervals),
        high=tuple(None if each is None else each.high for each in intervals),
        config_ids=tuple(item.config_id for item in ordered),
    )
