"""The fronts of two runs in one figure."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from sweeper.report.figures.info import FrontInfo, escape
from sweeper.report.figures.theme import INK

_STYLES = (("#4477aa", "circle", "solid"), ("#ee6677", "diamond-open", "dash"))
_TICKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def fronts_figure(a: FrontInfo, b: FrontInfo, names: Sequence[str]) -> go.Figure:
    """The members of two fronts with 95 % intervals of their unsafe rates; a ring marks the recommended.

    Args:
        a: One run.
        b: Another one with the same utility metric.
        names: The names of the two.
    """
    figure = go.Figure()
    for info, name, (colour, symbol, dash) in zip((a, b), names, _STYLES, strict=True):
        members = {point.config_id: point for point in info.points}
        line = [members[config_id] for config_id in info.front]
        at = [math.sqrt(point.x) for point in line]
        figure.add_trace(
            go.Scatter(
                x=at,
                y=[point.y for point in line],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [math.sqrt(p.high) - x for p, x in zip(line, at, strict=True)],
                    "arrayminus": [x - math.sqrt(p.low) for p, x in zip(line, at, strict=True)],
                    "color": colour,
                    "thickness": 1,
                    "width": 3,
                },
                mode="lines+markers",
                name=escape(name),
                line={"color": colour, "dash": dash},
                marker={
                    "symbol": symbol,
                    "size": [16 if p.config_id == info.recommended else 9 for p in line],
                    "line": {"color": colour, "width": 2},
                },
                text=[f"<b>{escape(name)}</b><br>{point.text}" for point in line],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    reach = max([point.high for info in (a, b) for point in info.points if point.on_front] + [0.05])
    ticks = [tick for tick in _TICKS if tick <= reach]
    grid = {"gridcolor": "rgba(128, 135, 148, 0.25)", "zeroline": False, "automargin": True}
    figure.update_xaxes(
        title_text="unsafe rate (square-root scale)",
        tickvals=[math.sqrt(tick) for tick in ticks],
        ticktext=[f"{100 * tick:g} %" for tick in ticks],
        **grid,
    )
    figure.update_yaxes(title_text=escape(a.utility), title_standoff=18, **grid)
    figure.update_layout(
        template="none",
        height=460,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": INK, "family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        hoverlabel={"align": "left"},
        autosize=True,
    )
    return figure
