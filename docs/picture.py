"""The picture of the README: `python docs/picture.py RUN [PNG]`.

Unsafe rate against utility of every configuration of a run, with the front and the limit. The trainers'
defaults, the recommended configuration and the same training without averaging have their 95 % intervals.
Drawn by plotly in a Chromium of the system.
"""

import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import plotly.graph_objects as go
from playwright.sync_api import sync_playwright

import sweeper

PICTURE = Path(__file__).parent / "assets" / "miniature.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT = 1200, 700
LOWEST_UTILITY = 0.7
TICKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 1)

KINDS = {
    "raw": ("without averaging", "circle", "#8a8f98"),
    "ema": ("moving average (EMA)", "diamond", "#2a7f9e"),
    "interpolate": ("interpolated with the start", "square", "#d98c2b"),
}
"""Kind of average -> its name in the legend, marker and colour; never told apart by colour alone."""


def place(rate: float) -> float:
    """Where a rate stands on the vertical axis: square roots spread small rates and keep 0."""
    return math.sqrt(rate)


def named(
    figure: Any, item: Any, text: str, colour: str, symbol: str, shift: Sequence[int]
) -> None:
    """A large marker with its interval and a label."""
    rate, utility = item.values["unsafe_rate"], item.values["rouge_l"]
    low, high = item.interval("unsafe_rate")
    (metric,) = item.measured("unsafe_rate")
    figure.add_scatter(
        x=[utility],
        y=[place(rate)],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [place(high) - place(rate)],
            "arrayminus": [place(rate) - place(low)],
            "thickness": 2.5,
            "width": 7,
            "color": colour,
        },
        mode="markers",
        marker={
            "symbol": symbol,
            "size": 19,
            "color": colour,
            "line": {"color": "white", "width": 2},
        },
        showlegend=False,
    )
    figure.add_annotation(
        x=utility,
        y=place(rate),
        ax=shift[0],
        ay=shift[1],
        text=f"<b>{text}</b><br>{metric.k} of {metric.n} unsafe, {low:.1%} to {high:.1%}; "
        f"ROUGE-L {utility:.2f}",
        align="left",
        xanchor="left",
        arrowcolor=colour,
        arrowwidth=1.5,
        standoff=11,
        font={"size": 17, "color": colour},
        bgcolor="rgba(255,255,255,0.88)",
        borderpad=4,
    )


def draw(run: Any) -> go.Figure:
    """The figure of a run."""
    front, choice = run.front(), run.recommend().analysis
    limit = run.spec.constraints[0].max
    shown = [
        item
        for item in front.candidates
        if item.status == "complete" and item.values["rouge_l"] >= LOWEST_UTILITY
    ]
    figure = go.Figure()
    for kind, (name, symbol, colour) in KINDS.items():
        items = [item for item in shown if item.readout["kind"] == kind]
        figure.add_scatter(
            x=[item.values["rouge_l"] for item in items],
            y=[place(item.values["unsafe_rate"]) for item in items],
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 10,
                "color": colour,
                "opacity": 0.55,
                "line": {"color": "white", "width": 0.7},
            },
        )
    members: list[Any] = []  # Of the front, what is not dominated in the two metrics shown.
    for item in sorted(front.members, key=lambda item: -item.values["rouge_l"]):
        if not members or item.values["unsafe_rate"] < members[-1].values["unsafe_rate"]:
            members.append(item)
    figure.add_scatter(
        x=[item.values["rouge_l"] for item in members],
        y=[place(item.values["unsafe_rate"]) for item in members],
        mode="lines",
        line={"color": "#1d6b45", "width": 3},
        name="front",
    )
    figure.add_hrect(y0=place(limit), y1=1.03, fillcolor="#b3261e", opacity=0.045, line_width=0)
    figure.add_hline(y=place(limit), line={"color": "#b3261e", "width": 2, "dash": "dash"})
    figure.add_annotation(
        x=LOWEST_UTILITY + 0.003,
        xanchor="left",
        y=place(limit),
        yanchor="top",
        showarrow=False,
        text=f"the limit: {limit:.0%} unsafe",
        font={"size": 17, "color": "#b3261e"},
    )
    named(
        figure,
        choice.unaveraged,
        "the same training, not averaged",
        "#5b6068",
        "circle",
        (-985, -40),
    )
    named(figure, choice.chosen, "recommended", "#1d6b45", "star", (-880, -200))
    named(figure, choice.default, "the trainers' defaults", "#4a3f8c", "x", (-590, -50))
    hidden = sum(item.status == "complete" for item in front.candidates) - len(shown)
    figure.update_layout(
        width=WIDTH,
        height=HEIGHT,
        template="plotly_white",
        font={"family": "DejaVu Sans, Liberation Sans, sans-serif", "size": 17},
        margin={"l": 90, "r": 25, "t": 62, "b": 95},
        legend={"orientation": "h", "x": 0, "y": 1.12, "font": {"size": 17}},
        xaxis={
            "title": "usefulness: ROUGE-L on held-out rows "
            f"({hidden} configurations below {LOWEST_UTILITY} not shown)",
            "range": [LOWEST_UTILITY, 1.008],
        },
        yaxis={
            "title": "unsafe rate (square-root scale)",
            "tickvals": [place(rate) for rate in TICKS],
            "ticktext": [f"{rate:.0%}" for rate in TICKS],
            "range": [-0.03, 1.03],
            "zeroline": False,
        },
    )
    return figure


def take(figure: go.Figure, picture: Path) -> None:
    """Write a figure as PNG.

    Raises:
        SystemExit: the system has no browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"no browser found; install one of {', '.join(BROWSERS)}")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "figure.html"
        figure.write_html(page, config={"displayModeBar": False})
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = opened.new_page(viewport={"width": WIDTH + 16, "height": HEIGHT + 16})
        view.goto(page.as_uri())
        view.wait_for_selector(".main-svg")
        view.locator(".plot-container").first.screenshot(path=str(picture))
        opened.close()


if __name__ == "__main__":
    take(draw(sweeper.open_run(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE)
