"""Bars of importance from their info."""

import plotly.graph_objects as go

from sweeper.report.figures.importance import ImportanceInfo
from sweeper.report.figures.info import escape
from sweeper.report.figures.theme import INK, LINE_COLOURS, dressed

_PATTERNS = ("", "/", "x", ".")


def importance_figure(info: ImportanceInfo) -> go.Figure:
    """A group of bars for each hyperparameter, one per metric, distinguished by colour and pattern."""
    metrics = list(dict.fromkeys(bar.metric for bar in info.bars))
    names = list(dict.fromkeys(bar.hyperparameter for bar in info.bars))
    figure = go.Figure()
    for index, metric in enumerate(metrics):
        bars = [bar for bar in info.bars if bar.metric == metric]
        figure.add_trace(
            go.Bar(
                x=[bar.share for bar in bars],
                y=[escape(bar.hyperparameter) for bar in bars],
                orientation="h",
                name=escape(metric),
                text=[f"{bar.share:.0%}" for bar in bars],
                textposition="outside",
                textfont={"color": INK},
                cliponaxis=False,
                hovertext=[
                    f"{escape(bar.hyperparameter)} for {escape(metric)}: {bar.share:.1%}<br>"
                    f"{escape(bar.typical)}: {bar.among_best:.0%} of the best, "
                    f"{bar.among_all:.0%} of all"
                    for bar in bars
                ],
                hovertemplate="%{hovertext}<extra></extra>",
                marker={
                    "color": LINE_COLOURS[index % len(LINE_COLOURS)],
                    "pattern": {"shape": _PATTERNS[index % len(_PATTERNS)]},
                },
            )
        )
    figure.update_layout(barmode="group", bargap=0.3)
    figure.update_xaxes(title_text="share of the importance", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return dressed(figure, height=140 + len(names) * (22 + 20 * len(metrics)))
