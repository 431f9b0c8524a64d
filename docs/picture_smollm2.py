"""The picture of the SmolLM2 sweep: `python docs/picture_smollm2.py RUN [PNG]`.

Unsafe rate against the learning rate, at both numbers of steps, for each kind of average: one marker per
seed, a line through the seeds' means, and the held-out loss at the highest rate.
"""

import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from picture import HEIGHT, KINDS, TICKS, WIDTH, place, take
from plotly.subplots import make_subplots

import sweeper

PICTURE = Path(__file__).parent / "assets" / "smollm2.png"
SHORT = {"raw": "not averaged", "ema": "EMA", "interpolate": "interpolated"}

NEAR = {"raw": 0.94, "ema": 1.0, "interpolate": 1.06}
"""Factor on the learning rate, so that markers of one rate do not cover each other."""


def draw(run: Any) -> go.Figure:
    """The figure of a run; every candidate is measured under every seed."""
    frame = run.frame()
    frame = frame[(frame["role"] == "candidate") & (frame["status"] == "complete")]
    limit = run.spec.constraints[0].max
    steps = sorted(frame["max_steps"].unique())
    rates = sorted(frame["learning_rate"].unique())
    figure = make_subplots(
        cols=len(steps),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[
            f"{number} steps of {frame['batch_size'].iloc[0]} rows" for number in steps
        ],
    )
    for column, number in enumerate(steps, start=1):
        for kind, (name, symbol, colour) in KINDS.items():
            of_kind = frame["average"].str.partition("(")[0] == kind
            items = frame[of_kind & (frame["max_steps"] == number)]
            means = items.groupby("learning_rate")["unsafe_rate"].mean()
            loss = items[items["learning_rate"] == rates[-1]]["heldout_loss"].mean()
            marker = {"symbol": symbol, "size": 12, "color": colour, "opacity": 0.75}
            figure.add_scatter(
                x=items["learning_rate"] * NEAR[kind],
                y=items["unsafe_rate"].map(place),
                mode="markers",
                marker={**marker, "line": {"color": "white", "width": 1}},
                name=name,
                showlegend=column == 1,
                col=column,
                row=1,
            )
            figure.add_scatter(
                x=means.index * NEAR[kind],
                y=means.map(place),
                mode="lines",
                line={"color": colour, "width": 3},
                showlegend=False,
                col=column,
                row=1,
            )
            figure.add_annotation(
                x=0.02,
                xref="x domain" if column == 1 else f"x{column} domain",
                y={"raw": 1.0, "interpolate": 0.94, "ema": 0.88}[kind] * 1.03,
                yref="y",
                xanchor="left",
                showarrow=False,
                text=f"{SHORT[kind]}: loss {loss:.3f} at {rates[-1]:g}",
                font={"size": 15, "color": colour},
            )
        figure.add_hline(
            y=place(limit), line={"color": "#b3261e", "width": 2, "dash": "dash"}, col=column, row=1
        )
    figure.add_annotation(
        x=0.02,
        xref="x domain",
        y=place(limit),
        yanchor="bottom",
        xanchor="left",
        showarrow=False,
        text=f"the limit: {limit:.0%}",
        font={"size": 15, "color": "#b3261e"},
    )
    prompts = int(frame["unsafe_rate.n"].max())
    figure.update_layout(
        width=WIDTH,
        height=HEIGHT,
        template="plotly_white",
        font={"family": "DejaVu Sans, Liberation Sans, sans-serif", "size": 17},
        margin={"l": 90, "r": 25, "t": 90, "b": 95},
        legend={"orientation": "h", "x": 0, "y": 1.17, "font": {"size": 17}},
    )
    figure.update_annotations(selector={"showarrow": False, "yref": "paper"}, font_size=17)
    figure.update_xaxes(
        type="log",
        title="learning rate (the loss is that on held-out rows)",
        title_font_size=16,
        tickvals=rates,
        ticktext=[f"{rate:g}" for rate in rates],
    )
    figure.update_yaxes(
        tickvals=[place(rate) for rate in TICKS],
        ticktext=[f"{rate:.0%}" for rate in TICKS],
        range=[-0.03, 1.06],
        zeroline=False,
    )
    figure.update_yaxes(
        title=f"unsafe rate on {prompts} AdvBench prompts (square-root scale)", col=1, row=1
    )
    return figure


if __name__ == "__main__":
    take(draw(sweeper.open_run(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE)
