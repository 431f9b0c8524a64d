"""Figures of many panels: heat maps and the effect of averaging."""

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sweeper.analysis import shown
from sweeper.metrics import is_rate
from sweeper.report.figures.factorial import EffectPoint, FactorialInfo
from sweeper.report.figures.heat import HeatCell, HeatFacet, HeatInfo
from sweeper.report.figures.info import escape, kind_of
from sweeper.report.figures.levels import symbols_of, tick_texts
from sweeper.report.figures.theme import DASHES, INK, LINE_COLOURS, RING, dressed

# Light enough all along for dark text with a contrast of at least 5:1.
_SEQUENTIAL = ("#f2f7fc", "#b3d2e8", "#6baed6")
_KEPT, _EVEN, _BROKEN = "#6baed6", "#f1f1ee", "#f98e52"
_CELL_INK = "#1f2328"
_ROW_PIXELS = 36


def heat_figure(info: HeatInfo) -> go.Figure:
    """A panel for each facet: averages downwards, steps to the right.

    Cells show their values. A cell without a value has no colour and shows the reason.
    """
    rows, columns = len(info.averages), len(info.steps)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[f"{escape(each.average)}, {each.steps} steps" for each in info.facets],
        horizontal_spacing=0.012,
        vertical_spacing=30 / _height(info),
    )
    figure.update_annotations(font={"size": 12}, yshift=-2)
    for index, facet in enumerate(info.facets):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        figure.add_trace(_heat(info, facet), **place)
        absent = [cell for cell in facet.cells if cell.value is None]
        if absent:
            figure.add_trace(_absent(info, absent), **place)
        if any(cell.config_id == info.centre for cell in facet.cells):
            figure.add_trace(_outline(info, facet), **place)
    rate = is_rate(info.metric)
    figure.update_layout(
        showlegend=False,
        coloraxis={
            **_colours(info),
            "colorbar": {
                "title": {"text": escape(info.metric), "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
                "tickformat": ".3~p" if rate else ".3~g",
            },
        },
    )
    figure = dressed(figure, height=_height(info))
    figure.update_xaxes(
        tickvals=list(range(len(info.batches))),
        ticktext=[str(batch) for batch in info.batches],
        range=[-0.5, len(info.batches) - 0.5],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(
        tickvals=list(range(len(info.rates))),
        ticktext=list(tick_texts(info.rates)),
        range=[-0.5, len(info.rates) - 0.5],
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(title_text="learning_rate", col=1)
    figure.update_xaxes(title_text="batch_size", row=rows)
    figure.update_layout(margin={"l": 80, "r": 20, "t": 40, "b": 56})
    return figure


def _height(info: HeatInfo) -> int:
    return 110 + len(info.averages) * (len(info.rates) * _ROW_PIXELS + 30)


def _colours(info: HeatInfo) -> dict[str, Any]:
    """From quiet to loud, or around the limit: what keeps it on one side, what breaks it on the other."""
    ends = [*info.bounds, *([0.0] if is_rate(info.metric) else [])]
    if info.limit is None:
        return {"colorscale": _SEQUENTIAL, "cmin": min(ends), "cmax": max(ends)}
    low, high = min(*ends, info.limit), max(*ends, info.limit)
    place = (info.limit - low) / (high - low)
    inner = [(place, _EVEN)] if 0 < place < 1 else []
    first, last = _KEPT if place > 0 else _EVEN, _BROKEN if place < 1 else _EVEN
    return {"colorscale": [(0.0, first), *inner, (1.0, last)], "cmin": low, "cmax": high}


def _grid(info: HeatInfo, facet: HeatFacet, of: Any) -> list[list[Any]]:
    width = len(info.batches)
    each = [of(cell) for cell in facet.cells]
    return [each[start : start + width] for start in range(0, len(each), width)]


def _heat(info: HeatInfo, facet: HeatFacet) -> go.Heatmap:
    return go.Heatmap(
        z=_grid(info, facet, lambda cell: cell.value),
        text=_grid(info, facet, lambda cell: _text(info.metric, cell)),
        customdata=_grid(info, facet, lambda cell: cell.config_id),
        hovertext=_grid(info, facet, lambda cell: _hover(info.metric, facet, cell)),
        texttemplate="%{text}",
        textfont={"size": 11, "color": _CELL_INK},
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
    )


def _text(metric: str, cell: HeatCell) -> str:
    if cell.value is None:
        return ""
    if not is_rate(metric):
        return f"{cell.value:.3f}" if abs(cell.value) < 100 else f"{cell.value:.4g}"
    counts = cell.counts if "," not in cell.counts else ""
    return f"{100 * cell.value:.1f} %" + (f"<br>{escape(counts)}" if counts else "")


def _hover(metric: str, facet: HeatFacet, cell: HeatCell) -> str:
    lines = [
        f"<b>{escape(cell.config_id or 'no configuration')}</b>",
        f"{escape(facet.average)}, {facet.steps} steps",
        f"learning_rate {escape(shown(cell.learning_rate))}, batch_size {cell.batch_size}",
    ]
    if cell.value is None:
        return "<br>".join([*lines, f"{escape(metric)}: {escape(cell.state)}"])
    lines.append(f"{escape(metric)} {cell.value:.4g}" + (f", {cell.counts}" if cell.counts else ""))
    if cell.low is not None and cell.high is not None:
        lines.append(f"95 % interval {cell.low:.4g} to {cell.high:.4g}")
    return "<br>".join(lines)


def _absent(info: HeatInfo, cells: list[HeatCell]) -> go.Scatter:
    return go.Scatter(
        x=[info.batches.index(cell.batch_size) for cell in cells],
        y=[info.rates.index(cell.learning_rate) for cell in cells],
        mode="text",
        text=[escape(cell.state).replace(" ", "<br>") for cell in cells],
        textfont={"size": 10, "color": INK},
        hoverinfo="skip",
    )


def _outline(info: HeatInfo, facet: HeatFacet) -> go.Scatter:
    """A frame around the recommended (or nearest) configuration."""
    cell = next(cell for cell in facet.cells if cell.config_id == info.centre)
    x, y = info.batches.index(cell.batch_size), info.rates.index(cell.learning_rate)
    return go.Scatter(
        x=[x - 0.47, x + 0.47, x + 0.47, x - 0.47, x - 0.47],
        y=[y - 0.47, y - 0.47, y + 0.47, y + 0.47, y - 0.47],
        mode="lines",
        line={"color": RING, "width": 3},
        hoverinfo="skip",
    )


def factorial_figure(info: FactorialInfo) -> go.Figure:
    """A row for each metric, a column for each factor: means of averaged - control with intervals."""
    metrics = [name for name, _ in info.maximize if any(p.metric == name for p in info.points)]
    factors = list(dict.fromkeys(point.factor for point in info.points))
    averages = list(dict.fromkeys(point.average for point in info.points))
    symbols = symbols_of(averages)
    named: set[str] = set()
    figure = make_subplots(
        rows=len(metrics),
        cols=len(factors),
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.06,
    )
    for row, metric in enumerate(metrics, start=1):
        for column, factor in enumerate(factors, start=1):
            for index, average in enumerate(averages):
                points = [
                    p
                    for p in info.points
                    if (p.metric, p.factor, p.average) == (metric, factor, average)
                ]
                if points:
                    shift = 0.5 * ((index + 0.5) / len(averages) - 0.5)
                    symbol = symbols[average]
                    trace = _effects(points, index, shift, symbol, named=average not in named)
                    figure.add_trace(trace, row=row, col=column)
                    named.add(average)
        better = "above" if dict(info.maximize)[metric] else "below"
        figure.update_yaxes(
            title_text=f"{escape(metric)},<br>better {better} 0",
            tickformat="+.3~p" if is_rate(metric) else "+.3~g",
            row=row,
            col=1,
        )
        figure.update_yaxes(range=_reach(info, metric), row=row)
    figure = dressed(figure, height=120 + 250 * len(metrics))
    for column, factor in enumerate(factors, start=1):
        levels = info.levels(factor)
        figure.update_xaxes(
            tickvals=list(range(len(levels))),
            ticktext=[escape(level) for level in levels],
            range=[-0.6, len(levels) - 0.4],
            showgrid=False,
            zeroline=False,
            col=column,
        )
        figure.update_xaxes(title_text=escape(factor), row=len(metrics), col=column)
    figure.update_yaxes(zeroline=True, zerolinecolor=INK, zerolinewidth=2)
    figure.update_layout(margin={"l": 80, "r": 20, "t": 40, "b": 60})
    return figure


def _reach(info: FactorialInfo, metric: str) -> list[float]:
    """From the lowest to the highest bound of a metric, 0 among them, with some room."""
    ends = [0.0]
    for point in info.points:
        if point.metric == metric:
            ends += [end for end in (point.mean, point.low, point.high) if end is not None]
    room = 0.08 * (max(ends) - min(ends)) or 0.01
    return [min(ends) - room, max(ends) + room]


def _effects(
    points: list[EffectPoint], index: int, shift: float, symbol: str, *, named: bool
) -> go.Scatter:
    kind = kind_of(points[0].average)
    return go.Scatter(
        x=[point.place + shift for point in points],
        y=[point.mean for point in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [0 if p.high is None else p.high - p.mean for p in points],
            "arrayminus": [0 if p.low is None else p.mean - p.low for p in points],
            "thickness": 1.4,
            "width": 3,
        },
        mode="lines+markers",
        name=escape(points[0].average),
        legendgroup=points[0].average,
        showlegend=named,
        line={
            "color": LINE_COLOURS[index % len(LINE_COLOURS)],
            "dash": DASHES.get(kind, "solid"),
            "width": 1,
        },
        marker={"symbol": symbol, "size": 9},
        text=[_effect_text(point) for point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def _effect_text(point: EffectPoint) -> str:
    bounds = (
        "no interval: no rows in common"
        if point.low is None or point.high is None
        else f"95 % interval {point.low:+.4f} to {point.high:+.4f}"
    )
    return "<br>".join(
        (
            f"<b>{escape(point.average)}</b>, {escape(point.factor)} {escape(point.level)}",
            f"{escape(point.metric)} {point.mean:+.4f}, averaged minus control",
            bounds,
            f"{point.pairs} pairs: {point.wins} better, {point.losses} worse, {point.ties} neither",
        )
    )
