"""The front and the step curves from their infos.

Colour is never the only channel: the kind of average is also a marker symbol or a dash, and front
membership a line and an outline. Text from data arrives escaped or is escaped here.
"""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeper.figures.dress import DASHES, INK, LINE_COLOURS, RING
from sweeper.figures.dress import dressed as _dressed
from sweeper.figures.info import (
    BASE_SYMBOL,
    REFERENCE,
    SYMBOLS,
    FrontInfo,
    Mark,
    Point,
    StepInfo,
    escape,
)

SAFE = "rgba(64, 160, 110, 0.14)"
_TICKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
_ONE_RATE = "#4477aa"


def front_figure(info: FrontInfo) -> go.Figure:
    """Unsafe rate against utility: points with error bars, the front a line, the limit shaded."""
    figure = go.Figure()
    _shade(figure, info)
    members = {point.config_id: point for point in info.points if point.on_front}
    line = [members[name] for name in info.front]
    figure.add_trace(
        go.Scatter(
            x=[_at(point.x) for point in line],
            y=[point.y for point in line],
            mode="lines",
            name="front",
            line={"color": RING, "width": 2, "shape": "linear"},
            hoverinfo="skip",
        )
    )
    rates = sorted({point.learning_rate for point in info.points if point.learning_rate > 0})
    for kind in dict.fromkeys(point.kind for point in info.points):
        for on_front in (False, True):
            chosen = [p for p in info.points if p.kind == kind and p.on_front == on_front]
            if chosen:
                figure.add_trace(_markers(chosen, kind, on_front, rates))
    if info.base is not None:
        figure.add_trace(_base_marker(info.base))
    _reference_markers(figure, info.marks)
    _ring(figure, info)
    _learning_rate_bar(figure, rates)
    reach = info.x_range[1]
    ticks = [tick for tick in _TICKS if tick <= reach]
    figure.update_xaxes(
        title_text="unsafe rate (square-root scale)",
        tickvals=[_at(tick) for tick in ticks],
        ticktext=[f"{100 * tick:g} %" for tick in ticks],
        range=[-_at(reach) / 40, _at(reach)],
        zeroline=False,
    )
    figure.update_yaxes(title_text=escape(info.utility))
    return _dressed(figure, height=560)


def _at(rate: float) -> float:
    """Where a rate is drawn. The square root gives rates near the limit the room they need.

    It is also close to the scale on which a rate's spread does not depend on the rate.
    """
    return math.sqrt(rate)


def _shade(figure: go.Figure, info: FrontInfo) -> None:
    """The feasible region and the limit itself."""
    if info.limit is None:
        return
    if info.passing is not None:
        figure.add_vrect(
            x0=-_at(info.x_range[1]) / 40,
            x1=_at(info.passing),
            fillcolor=SAFE,
            line_width=0,
            layer="below",
        )
    figure.add_vline(
        x=_at(info.limit),
        line={"color": INK, "width": 1, "dash": "dash"},
        annotation={
            "text": f"limit {100 * info.limit:.3g} %",
            "font": {"color": INK},
            "textangle": -90,
            "yanchor": "bottom",
            "y": 0.02,
            "yref": "y domain",
        },
        annotation_position="bottom right",
    )


def _markers(
    points: Sequence[Point], kind: str, on_front: bool, rates: Sequence[float]
) -> go.Scatter:
    """One kind of average. Front members are larger, opaque, with error bars; the others recede.

    Symbols are hollow where the place is not sure (`maybe`).
    """
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [_at(point.high) - _at(point.x) for point in points],
        "arrayminus": [_at(point.x) - _at(point.low) for point in points],
        "color": INK if on_front else "rgba(128, 135, 148, 0.35)",
        "thickness": 1.4 if on_front else 0.8,
        "width": 3 if on_front else 0,
    }
    scale = {"cmin": math.log10(rates[0]), "cmax": math.log10(rates[-1])} if len(rates) > 1 else {}
    colours = [math.log10(p.learning_rate) if p.learning_rate > 0 else math.nan for p in points]
    return go.Scatter(
        x=[_at(point.x) for point in points],
        y=[point.y for point in points],
        error_x=bars,
        mode="markers",
        name=f"{escape(kind)}{', on the front' if on_front else ''}",
        customdata=[point.config_id for point in points],
        text=[point.text for point in points],
        hovertemplate="%{text}<extra></extra>",
        marker={
            "symbol": [
                SYMBOLS.get(kind, "x") + ("-open" if point.verdict == "maybe" else "")
                for point in points
            ],
            "size": 13 if on_front else 9,
            "opacity": 1.0 if on_front else 0.6,
            "color": colours if scale else _ONE_RATE,
            "line": {"color": RING if on_front else INK, "width": 2 if on_front else 0.6},
            **({"colorscale": "Viridis", **scale} if scale else {}),
        },
    )


def _base_marker(point: Point) -> go.Scatter:
    return go.Scatter(
        x=[_at(point.x)],
        y=[point.y],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [_at(point.high) - _at(point.x)],
            "arrayminus": [_at(point.x) - _at(point.low)],
            "color": INK,
            "thickness": 1.4,
        },
        mode="markers",
        name="untouched model",
        text=[point.text],
        hovertemplate="%{text}<extra></extra>",
        marker={"symbol": BASE_SYMBOL, "size": 16, "color": INK},
    )


def _reference_markers(figure: go.Figure, marks: Sequence[Mark]) -> None:
    """Thin crosses. A result without a utility stands on the lower edge, on an axis of its own."""
    for name in dict.fromkeys(mark.name for mark in marks):
        for whole in (True, False):
            chosen = [m for m in marks if m.name == name and (m.y is not None) == whole]
            if not chosen:
                continue
            place = {} if whole else {"yaxis": "y2", "cliponaxis": False}
            figure.add_trace(
                go.Scatter(
                    x=[_at(mark.x) for mark in chosen],
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
    """A ring around the recommended configuration and its id beside it."""
    chosen = next((p for p in info.points if p.config_id == info.recommended), None)
    if chosen is None:
        return
    figure.add_trace(
        go.Scatter(
            x=[_at(chosen.x)],
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
    figure.add_annotation(
        x=_at(chosen.x),
        y=chosen.y,
        text=f"recommended<br>{escape(chosen.config_id)}",
        font={"color": RING, "size": 13},
        arrowcolor=RING,
        ax=90,
        ay=60,
        standoff=14,
    )


def _learning_rate_bar(figure: go.Figure, rates: Sequence[float]) -> None:
    """A colour bar on a log axis, carried by an invisible point of its own."""
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
                "colorscale": "Viridis",
                "showscale": True,
                "colorbar": {
                    "title": {"text": "learning_rate", "side": "right"},
                    "tickvals": [math.log10(rate) for rate in ticks],
                    "ticktext": [f"{rate:.3g}" for rate in ticks],
                    "thickness": 12,
                    "outlinewidth": 0,
                },
            },
        )
    )


def step_figure(info: StepInfo) -> go.Figure:
    """The curves of `step_curves`: dash and symbol say the kind of average, as colour does."""
    figure = go.Figure()
    for index, curve in enumerate(info.curves):
        pairs = list(zip(curve.values, curve.low, curve.high, strict=True))
        figure.add_trace(
            go.Scatter(
                x=list(curve.steps),
                y=list(curve.values),
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [0 if high is None else high - value for value, _, high in pairs],
                    "arrayminus": [0 if low is None else value - low for value, low, _ in pairs],
                    "thickness": 1,
                    "width": 3,
                },
                mode="lines+markers",
                name=escape(curve.label),
                customdata=list(curve.config_ids),
                line={
                    "color": LINE_COLOURS[index % len(LINE_COLOURS)],
                    "dash": DASHES.get(curve.kind, "solid"),
                },
                marker={"symbol": SYMBOLS.get(curve.kind, "x"), "size": 9},
            )
        )
    lines = ((info.base, "untouched model", "bottom right"), (info.limit, "limit", "top left"))
    for value, text, place in lines:
        if value is not None:
            figure.add_hline(
                y=value,
                line={"color": INK, "width": 1, "dash": "dash"},
                annotation={"text": text, "font": {"color": INK}},
                annotation_position=place,
            )
    figure.update_xaxes(title_text="optimizer steps", rangemode="tozero")
    tick = ".0%" if info.metric.partition("/")[0].endswith("_rate") else None
    figure.update_yaxes(title_text=escape(info.metric), tickformat=tick)
    return _dressed(figure, height=380)


def figure_html(figure: go.Figure, *, first: bool, identity: str) -> str:
    """A `<div>` with the figure. The first of a page carries plotly.js; nothing is fetched.

    Args:
        figure: Any figure.
        first: Whether to inline plotly.js (4.8 MB).
        identity: The id of the div; stable, so that equal data gives an equal page.
    """
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=first,
        div_id=identity,
        config={"displaylogo": False, "responsive": True},
    )
    return text
