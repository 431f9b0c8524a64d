"""Figures in two steps: an *info* holds the data, which tests read; a *figure* draws it."""

from sweeper.report.figures.draw import (
    PLOTLY_FILE,
    figure_block,
    figure_html,
    plotly_source,
    step_figure,
)
from sweeper.report.figures.front import MANY, front_figure
from sweeper.report.figures.fronts import fronts_figure
from sweeper.report.figures.info import (
    Curve,
    FrontInfo,
    Mark,
    Point,
    StepInfo,
    front_info,
    inert,
    kind_of,
    step_curves,
)

__all__ = [
    "MANY",
    "PLOTLY_FILE",
    "Curve",
    "FrontInfo",
    "Mark",
    "Point",
    "StepInfo",
    "figure_block",
    "figure_html",
    "front_figure",
    "front_info",
    "fronts_figure",
    "inert",
    "kind_of",
    "plotly_source",
    "step_curves",
    "step_figure",
]
