"""Parallel coordinates from their info."""

import numpy as np
import plotly.graph_objects as go

from sweeper.report.figures.info import escape
from sweeper.report.figures.parallel import P_FRONT, ParallelAxis, ParallelInfo
from sweeper.report.figures.theme import INK, RING, dressed

# From a quiet to a loud colour of at least 3:1 on white and on near-black.
SCALE = ((0.0, INK), (0.5, "#b7723f"), (1.0, RING))


def parallel_figure(info: ParallelInfo) -> go.Figure:
    """A line for each configuration; its `customdata` are their ids, in the order of the values."""
    rate = info.colour != P_FRONT
    figure = go.Figure(
        go.Parcoords(
            dimensions=[_dimension(axis) for axis in info.axes],
            customdata=list(info.config_ids),
            line={
                "color": np.array(info.shades, dtype=np.float32),
                "colorscale": SCALE,
                "showscale": True,
                "colorbar": {
                    "title": {"text": escape(info.colour), "side": "right"},
                    "thickness": 12,
                    "outlinewidth": 0,
                    "tickformat": ".3~p" if rate else ".2~g",
                },
            },
            unselected={"line": {"color": INK, "opacity": 0.08}},
            labelfont={"size": 11.5, "color": INK},
            tickfont={"size": 11, "color": INK},
            rangefont={"size": 11, "color": INK},
        )
    )
    figure = dressed(figure, height=480)
    figure.update_layout(
        margin={"l": 30 + 7 * max(6, info.axes[0].width), "r": 10, "t": 64, "b": 28}
    )
    return figure


def _dimension(axis: ParallelAxis) -> dict[str, object]:
    """Ticks are codes of few values, which keeps the page small."""
    kind = np.int16 if axis.ticks else np.float32
    dimension: dict[str, object] = {
        "label": axis.label,
        "name": axis.name,
        "values": np.array(axis.values, dtype=kind),
    }
    if axis.ticks:
        dimension["tickvals"] = [place for place, _ in axis.ticks]
        dimension["ticktext"] = [text for _, text in axis.ticks]
        last = axis.ticks[-1][0]
        dimension["range"] = [0, last] if last else [-0.5, 0.5]
    if axis.format:
        dimension["tickformat"] = axis.format
    if axis.range is not None:
        dimension["range"] = list(axis.range)
    return dimension
