"""Figures in two steps: an *info* holds the data, which tests read; a *figure* draws it."""

from sweeper.report.figures.blocks import (
    PLOTLY_FILE,
    data_element,
    inert,
    plotly_element,
    plotly_source,
)
from sweeper.report.figures.draw import figure_block, figure_html, step_figure
from sweeper.report.figures.front import MANY, front_figure
from sweeper.report.figures.fronts import fronts_figure
from sweeper.report.figures.info import (
    Curve,
    FrontInfo,
    Mark,
    Point,
    StepInfo,
    front_info,
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
    "data_element",
    "figure_block",
    "figure_html",
    "front_figure",
    "front_info",
    "fronts_figure",
    "inert",
    "kind_of",
    "plotly_element",
    "plotly_source",
    "step_curves",
    "step_figure",
]
