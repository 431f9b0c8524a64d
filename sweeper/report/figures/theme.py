"""The common theme of all figures: text colour, colours, dashes, and a transparent background."""

import plotly.graph_objects as go

DASHES = {
    "raw": "solid",
    "ema": "dash",
    "interpolate": "dot",
    "bema": "longdash",
    "feedback": "dashdot",
}
# A grey that keeps a contrast of at least 3:1 on white and on near-black.
INK = "#808794"
RING = "#d9480f"
# The hues of Paul Tol's bright scheme, which common colour vision deficiencies keep apart; the light ones
# are darker here and the dark one lighter, for a contrast of at least 3:1 on white and on near-black.
LINE_COLOURS = ("#4477aa", "#e05a6c", "#228833", "#a8841a", "#1f94b5", "#b8478a")
FAINT = "rgba(128, 135, 148, 0.25)"


def dressed(figure: go.Figure, height: int) -> go.Figure:
    """A transparent background and mid-grey text, so that a figure is readable on light and dark pages."""
    axis = {"gridcolor": FAINT, "zerolinecolor": FAINT, "linecolor": INK, "automargin": True}
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        template="none",
        height=height,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": INK, "family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"l": 60, "r": 20, "t": 30, "b": 60},
        modebar={"bgcolor": "rgba(0, 0, 0, 0)", "color": INK, "activecolor": RING},
        hoverlabel={"align": "left"},
        autosize=True,
    )
    return figure
