"""The curves along the steps from their info, and any figure as HTML.

Colour is never the only channel: the kind of average is also a marker symbol or a dash, and front
membership a line and an outline. Text from data arrives escaped or is escaped here.
"""

import plotly.graph_objects as go

from sweeper.report.figures.blocks import data_element, plotly_source
from sweeper.report.figures.info import StepInfo, escape
from sweeper.report.figures.levels import symbols_of
from sweeper.report.figures.theme import DASHES, INK, LINE_COLOURS, dressed


def step_figure(info: StepInfo) -> go.Figure:
    """The curves of `step_curves`: dash, symbol and colour show the kind of average."""
    figure = go.Figure()
    symbols = symbols_of([curve.label for curve in info.curves])
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
                marker={"symbol": symbols[curve.label], "size": 9},
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
    return dressed(figure, height=380)


def figure_html(figure: go.Figure, identity: str) -> str:
    """A `<div>` with the figure and plotly.js in it (1.5 MB), which draws itself; nothing is fetched.

    Args:
        figure: Of the traces that the report draws.
        identity: The id of the div; stable, so that equal data gives an equal page.
    """
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=identity,
        config={"displaylogo": False, "responsive": True},
    )
    return f"<script>{plotly_source()}</script>{text}"


def figure_block(figure: go.Figure, identity: str) -> str:
    """An empty `<div>` as high as the figure, and the figure as JSON for the script that draws it there.

    Args:
        figure: A figure whose layout has a height in pixels.
        identity: The id of the div, made of letters, digits and `-_`; its data are `IDENTITY-data`.
    """
    return (
        f'<div id="{identity}" class="plotly-graph-div" aria-busy="true" '
        f'style="height:{figure.layout.height:g}px"></div>'
        f"{data_element(identity, figure.to_json(), packed=True)}"
    )
