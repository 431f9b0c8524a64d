"""The front figure: utility against unsafe rate."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeper.analysis import CANDIDATE_ROLE
from sweeper.metrics import is_rate
from sweeper.report.figures.info import (
    BASE_SYMBOL,
    REFERENCE,
    SYMBOLS,
    FrontInfo,
    Mark,
    Point,
    escape,
)
from sweeper.report.figures.theme import INK, RING, dressed

MANY = 2000
"""Above this number of points only members of the front have error bars."""

# Viridis without its darkest and lightest ends, which vanish on dark and on light pages.
RATES = ((0.0, "#5a62b8"), (0.33, "#2d8aa3"), (0.67, "#35b779"), (1.0, "#b3c73a"))
SAFE = "rgba(64, 160, 110, 0.14)"
_TICKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_ONE_RATE = "#4477aa"
CONTROLS = ("interpolation_control", "learning_rate_control")
"""Roles of what was not searched, but is compared with it."""

MANY_ENOUGH = 10
"""With fewer points the axes show all."""


def front_figure(info: FrontInfo) -> go.Figure:
    """Unsafe rate against utility: points with error bars, the front a line, the limit shaded.

    Controls are not shown until their entry in the legend is clicked, except those on the front and the
    trainers' defaults; colours span the learning rates that were swept. The axes cover what the sweep
    searched; a double click shows all.
    """
    limit, (low, high), info = info.limit, info.x_range, _placed(info)
    figure = go.Figure()
    _shade(figure, info, limit)
    line = _staircase(info)
    figure.add_trace(
        go.Scatter(
            x=[point.x for point in line],
            y=[point.y for point in line],
            mode="lines",
            name="front",
            line={"color": RING, "width": 2, "shape": "hv"},
            hoverinfo="skip",
        )
    )
    searched = [point for point in info.points if point.role not in CONTROLS]
    swept = [point for point in searched if point.role == CANDIDATE_ROLE]
    rates = sorted({point.learning_rate for point in swept if point.learning_rate > 0})
    for kind in dict.fromkeys(point.kind for point in info.points):
        figure.add_trace(_legend_entry(kind))
        for on_front in (False, True):
            chosen = [p for p in searched if p.kind == kind and p.on_front == on_front]
            if chosen:
                many = len(info.points) > MANY
                figure.add_trace(_markers(chosen, kind, on_front, rates, many))
    _controls(figure, info, rates)
    if info.base is not None:
        figure.add_trace(_base_marker(info.base))
    _reference_markers(figure, info.marks)
    _ring(figure, info)
    _learning_rate_bar(figure, rates)
    title = escape(info.safety.replace("_", " "))
    figure.update_xaxes(title_text=title, range=list(info.x_range), zeroline=False)
    if is_rate(info.safety):
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        figure.update_xaxes(
            title_text=f"{title} (square-root scale)",
            tickvals=[math.sqrt(tick) for tick in ticks],
            ticktext=[f"{100 * tick:g} %" for tick in ticks],
        )
    figure.update_yaxes(title_text=escape(info.utility), range=_utility_range(searched))
    figure = dressed(figure, height=640).update_layout(dragmode="select", legend_y=1.06)
    return figure.update_layout(margin_b=150) if len(rates) > 1 else figure


def _staircase(info: FrontInfo) -> list[Point]:
    """The members of the front that no other one dominates in the two metrics of the axes."""
    members = {point.config_id: point for point in info.points if point.on_front}
    sign = 1 if info.maximize else -1
    rising = -1 if info.safety_maximize else 1
    line: list[Point] = []
    ordered = sorted(
        (members[name] for name in info.front), key=lambda p: (rising * p.x, -sign * p.y)
    )
    for point in ordered:
        if not line or sign * point.y > sign * line[-1].y:
            line.append(point)
    return line


def _utility_range(points: Sequence[Point]) -> list[float] | None:
    """The middle eight tenths of the values, with room around; None for the range of all points."""
    values = sorted(point.y for point in points)
    if len(values) < MANY_ENOUGH:
        return None
    tenth = len(values) // 10
    low, high = values[tenth], values[-1 - tenth]
    room = 0.5 * (high - low)
    low, high = max(values[0], low - room), min(values[-1], high + room)
    edge = 0.08 * (high - low)
    return [low - edge, high + edge] if high > low else None


def _placed(info: FrontInfo) -> FrontInfo:
    """The same with positions on the axis in the place of rates; other metrics stay as they are.

    The square root spreads rates near the limit, and is close to the variance-stabilising scale.
    """
    if not is_rate(info.safety):
        return info

    def moved(point: Point) -> Point:
        x, low, high = map(math.sqrt, (point.x, point.low, point.high))
        return point._replace(x=x, low=low, high=high)

    end = math.sqrt(info.x_range[1])
    return info._replace(
        points=tuple(map(moved, info.points)),
        base=None if info.base is None else moved(info.base),
        limit=None if info.limit is None else math.sqrt(info.limit),
        passing=None if info.passing is None else math.sqrt(info.passing),
        x_range=(-end / 40, end),
        marks=tuple(mark._replace(x=math.sqrt(mark.x)) for mark in info.marks),
    )


def _shade(figure: go.Figure, info: FrontInfo, limit: float | None) -> None:
    """The feasible region and the limit itself."""
    if limit is None:
        return
    if info.passing is not None:
        figure.add_vrect(
            x0=info.x_range[0],
            x1=info.passing,
            fillcolor=SAFE,
            line_width=0,
            layer="below",
        )
    figure.add_vline(
        x=info.limit,
        line={"color": INK, "width": 1, "dash": "dash"},
        annotation={
            "text": f"limit {100 * limit:.3g} %",
            "font": {"color": INK},
            "xanchor": "center",
            "yanchor": "bottom",  # Above the plot, where no point is.
        },
        annotation_position="top",
    )


def _markers(
    points: Sequence[Point], kind: str, on_front: bool, rates: Sequence[float], many: bool
) -> go.Scatter:
    """One kind of average.

    Front members are larger, opaque, with error bars; the others are lighter. Symbols are hollow where
    front membership is `uncertain`.
    """
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [point.high - point.x for point in points],
        "arrayminus": [point.x - point.low for point in points],
        "color": INK if on_front else "rgba(128, 135, 148, 0.35)",
        "thickness": 1.4 if on_front else 0.8,
        "width": 3 if on_front else 0,
    }
    scale = {"cmin": math.log10(rates[0]), "cmax": math.log10(rates[-1])} if len(rates) > 1 else {}
    colours = [math.log10(p.learning_rate) if p.learning_rate > 0 else math.nan for p in points]
    return go.Scatter(
        x=[point.x for point in points],
        y=[point.y for point in points],
        error_x=bars if on_front or not many else None,
        mode="markers",
        name=f"{escape(kind)}{', on the front' if on_front else ''}",
        legendgroup=kind,
        showlegend=False,
        customdata=[point.config_id for point in points],
        text=[point.text for point in points],
        hovertemplate="%{text}<extra></extra>",
        marker={
            "symbol": [
                SYMBOLS.get(kind, "x") + ("-open" if point.membership == "uncertain" else "")
                for point in points
            ],
            "size": 13 if on_front else 9,
            "opacity": [
                1.0 if on_front or point.membership == "uncertain" else 0.6 for point in points
            ],
            "color": colours if scale else _ONE_RATE,
            "line": {"color": RING if on_front else INK, "width": 2 if on_front else 0.6},
            **({"colorscale": RATES, **scale} if scale else {}),
        },
    )


def _legend_entry(kind: str) -> go.Scatter:
    """A kind of average in the legend, in a colour that is not on the learning rate scale."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=escape(kind),
        legendgroup=kind,
        hoverinfo="skip",
        marker={"symbol": SYMBOLS.get(kind, "x"), "size": 10, "color": INK},
    )


def _controls(figure: go.Figure, info: FrontInfo, rates: Sequence[float]) -> None:
    """A thin cross over each control, so that its symbol still shows the kind of average."""
    others = [point for point in info.points if point.role in CONTROLS]
    for kind in dict.fromkeys(point.kind for point in others):
        for on_front in (False, True):
            chosen = [p for p in others if p.kind == kind and p.on_front == on_front]
            if chosen:
                trace = _markers(chosen, kind, on_front, rates, len(info.points) > MANY)
                trace.legendgroup = "controls"
                trace.visible = True if on_front else "legendonly"  # The line goes through it.
                figure.add_trace(trace)
    defaults = [point for point in info.points if point.role == "default"]
    for name, symbol, chosen in (
        ("trainers' defaults", "cross-thin", defaults),
        (f"controls ({len(others)})", "x-thin", others),
    ):
        if chosen:
            figure.add_trace(
                go.Scatter(
                    x=[point.x for point in chosen],
                    y=[point.y for point in chosen],
                    mode="markers",
                    name=name,
                    legendgroup="controls" if chosen is others else None,
                    visible="legendonly" if chosen is others else True,
                    hoverinfo="skip",
                    meta={"ids": [point.config_id for point in chosen]},  # Dimmed with its point.
                    marker={"symbol": symbol, "size": 13, "line": {"color": INK, "width": 1.2}},
                )
            )


def _base_marker(point: Point) -> go.Scatter:
    return go.Scatter(
        x=[point.x],
        y=[point.y],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [point.high - point.x],
            "arrayminus": [point.x - point.low],
            "color": INK,
            "thickness": 1.4,
        },
        mode="markers",
        name="untouched model",
        customdata=[point.config_id],
        text=[point.text],
        hovertemplate="%{text}<extra></extra>",
        marker={"symbol": BASE_SYMBOL, "size": 16, "color": INK},
    )


def _reference_markers(figure: go.Figure, marks: Sequence[Mark]) -> None:
    """Thin crosses. A result without a utility is on the lower edge, on a separate axis."""
    for name in dict.fromkeys(mark.name for mark in marks):
        for whole in (True, False):
            chosen = [m for m in marks if m.name == name and (m.y is not None) == whole]
            if not chosen:
                continue
            place = {} if whole else {"yaxis": "y2", "cliponaxis": False}
            figure.add_trace(
                go.Scatter(
                    x=[mark.x for mark in chosen],
                    y=[mark.y if whole else 0 for mark in chosen],
                    mode="markers",
                    name=f"{REFERENCE}: {escape(name)}" + ("" if whole else " (unsafe rate alone)"),
                    text=[mark.text for mark in chosen],
                    hovertemplate="%{text}<extra></extra>",
                    marker={
                        "symbol": "x-thin" if whole else "line-ns",
                        "size": 14,
                        "color": INK,
                        "line": {"color": INK, "width": 2},
                    },
                    **place,
                )
            )
    if any(mark.y is None for mark in marks):
        figure.update_layout(
            yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
        )


def _ring(figure: go.Figure, info: FrontInfo) -> None:
    """A ring around the recommended configuration, and a word beside it, where that covers no point."""
    chosen = next((p for p in info.points if p.config_id == info.recommended), None)
    if chosen is None:
        return
    figure.add_trace(
        go.Scatter(
            x=[chosen.x],
            y=[chosen.y],
            mode="markers",
            name="recommended",
            hoverinfo="skip",
            marker={
                "symbol": "circle-open",
                "size": 26,
                "color": RING,
                "line": {"color": RING, "width": 3},
            },
        )
    )
    place = _free_place(info, chosen)
    if place is not None:
        figure.add_annotation(
            x=chosen.x,
            y=chosen.y,
            text="recommended",
            font={"color": RING, "size": 13},
            showarrow=False,
            xanchor="center" if place[0] == 0 else "left" if place[0] > 0 else "right",
            xshift=place[0],
            yshift=place[1],
        )


_PLOT = (1000, 430)
_WORD = (96, 20)
_PLACES = ((0, 24), (0, -24), (18, 0), (-18, 0), (18, 24), (-18, 24), (18, -24), (-18, -24))
"""Pixels of the plot and of the word, and where the word can be, from the ring."""


def _free_place(info: FrontInfo, chosen: Point) -> tuple[int, int] | None:
    """The first place where the word covers no point on the axes as they are first drawn; else None."""
    own = [point for point in info.points if point.role not in CONTROLS]
    low, high = _utility_range(own) or (min(p.y for p in own), max(p.y for p in own))
    start, end = info.x_range
    wide = _PLOT[0] / ((end - start) or 1.0)
    tall = _PLOT[1] / ((high - low) or 1.0)
    base = [] if info.base is None else [info.base]
    others = [p for p in (*own, *base) if p is not chosen]
    spots = [(wide * (p.x - chosen.x), tall * (p.y - chosen.y)) for p in others]
    left, down = wide * (start - chosen.x), tall * (low - chosen.y)
    for dx, dy in _PLACES:
        start = dx - _WORD[0] / 2 if dx == 0 else dx if dx > 0 else dx - _WORD[0]
        inside = left <= start and start + _WORD[0] <= left + _PLOT[0]
        inside &= down <= dy - _WORD[1] / 2 and dy + _WORD[1] / 2 <= down + _PLOT[1]
        covered = any(
            start - 8 < x < start + _WORD[0] + 8 and abs(y - dy) < _WORD[1] / 2 + 8
            for x, y in spots
        )
        if inside and not covered:
            return dx, dy
    return None


def _learning_rate_bar(figure: go.Figure, rates: Sequence[float]) -> None:
    """A colour bar on a log axis, attached to an invisible point."""
    if len(rates) < 2:
        return
    logs = [math.log10(rate) for rate in rates]
    ticks = rates if len(rates) <= 8 else [rates[0], rates[len(rates) // 2], rates[-1]]
    figure.add_trace(
        go.Scatter(
            x=[None],
            y=[None],
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            marker={
                "color": [logs[0]],
                "cmin": logs[0],
                "cmax": logs[-1],
                "colorscale": RATES,
                "showscale": True,
                "colorbar": {
                    "title": {"text": "learning_rate (log scale)", "side": "top"},
                    "orientation": "h",
                    "y": -0.17,
                    "yanchor": "top",
                    "len": 0.7,
                    "tickvals": [math.log10(rate) for rate in ticks],
                    "ticktext": [f"{rate:.3g}" for rate in ticks],
                    "thickness": 12,
                    "outlinewidth": 0,
                },
            },
        )
    )
