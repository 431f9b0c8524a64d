"""Training curves from their info."""

import numpy as np
import plotly.graph_objects as go

from sweeper.report.figures.info import escape
from sweeper.report.figures.theme import INK, LINE_COLOURS, RING, dressed
from sweeper.report.figures.training import GROUPS, TrainingCurve, TrainingInfo

_LINES = dict(
    zip(
        GROUPS,
        (
            {"color": RING, "width": 3, "dash": "solid"},
            {"color": LINE_COLOURS[2], "width": 2, "dash": "dash"},
            {"color": LINE_COLOURS[0], "width": 1.6, "dash": "solid"},
            {"color": INK, "width": 1, "dash": "dot"},
        ),
        strict=True,
    )
)
_LOWEST, _HIGHEST = 0.002, 0.998


def training_figure(info: TrainingInfo) -> go.Figure:
    """A line for each trajectory, its group by colour, width and dash; readouts are diamonds."""
    figure = go.Figure()
    named: set[str] = set()
    for curve in info.curves:
        figure.add_trace(_line(curve, curve.group not in named))
        named.add(curve.group)
        if curve.group in GROUPS[:2] and curve.readouts:
            figure.add_trace(_readouts(curve))
    every = np.concatenate([curve.losses for curve in info.curves])
    low, high = np.quantile(every, [_LOWEST, _HIGHEST])
    room = 0.05 * (high - low) or 0.05
    figure.update_xaxes(title_text="optimizer step", rangemode="tozero")
    figure.update_yaxes(
        title_text="training loss (nats per token)", range=[low - room, high + room], zeroline=False
    )
    figure.update_layout(legend={"traceorder": "reversed"})
    return dressed(figure, height=440)


def _line(curve: TrainingCurve, first: bool) -> go.Scatter:
    return go.Scatter(
        x=np.array(curve.steps, dtype=np.int32),
        y=np.array(curve.losses, dtype=np.float32),
        mode="lines",
        name=curve.group,
        legendgroup=curve.group,
        showlegend=first,
        line=_LINES[curve.group],
        opacity=0.5 if curve.group == GROUPS[-1] else 1.0,
        hovertemplate=f"step %{{x}}, loss %{{y:.4f}}<br>{_about(curve)}<extra></extra>",
    )


def _readouts(curve: TrainingCurve) -> go.Scatter:
    return go.Scatter(
        x=[readout.step for readout in curve.readouts],
        y=[readout.loss for readout in curve.readouts],
        mode="markers",
        name=curve.group,
        legendgroup=curve.group,
        showlegend=False,
        customdata=[readout.config_id for readout in curve.readouts],
        marker={"symbol": "diamond", "size": 10, "color": _LINES[curve.group]["color"]},
        hovertemplate=f"read out at step %{{x}}, loss %{{y:.4f}}<br>{_about(curve)}<extra></extra>",
    )


def _about(curve: TrainingCurve) -> str:
    """Escaped, and without plotly template variables."""
    text = f"{curve.group}: {curve.values or 'the only trajectory'}, seed {curve.seed}"
    return escape(text).replace("%{", "% {")
