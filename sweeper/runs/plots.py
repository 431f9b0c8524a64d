"""Every chart of the report as a plotly figure."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from sweeper.analysis import Certainty, Front, recommend
from sweeper.analysis.decision import decided_of
from sweeper.errors import SweeperError
from sweeper.report.averaging import averaging_pairs
from sweeper.report.data import curve_metrics
from sweeper.report.figures import front_figure, front_info, step_curves, step_figure
from sweeper.report.figures.draw_bars import importance_figure
from sweeper.report.figures.draw_panels import factorial_figure, heat_figure
from sweeper.report.figures.draw_parallel import parallel_figure
from sweeper.report.figures.draw_training import training_figure
from sweeper.report.listing import make_listing
from sweeper.report.sections import chart_infos
from sweeper.spec import ResultsSpec
from sweeper.store.folder import RunFolder
from sweeper.sweep.decision import read_decision

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


class Plots:
    """The charts available for a run; see `Run.plots`."""

    def __init__(
        self, folder: RunFolder, front: Front, spec: ResultsSpec, certainty: Certainty
    ) -> None:
        decided = decided_of(read_decision(folder, spec, front))
        found = recommend(front, spec, decided=decided)
        centre = found.chosen or found.nearest
        info = front_info(front, spec, found.chosen, certainty)
        self._draw: dict[str, Callable[[], Figure]] = {"front": partial(front_figure, info)}
        for name in curve_metrics(spec):
            if (curves := step_curves(front, spec, centre, name)) is not None:
                self._draw[f"steps/{name}"] = partial(step_figure, curves)
        pairings = averaging_pairs(front, spec)
        listing = make_listing(front, found, spec, certainty)
        infos = chart_infos(folder, listing, spec, found, pairings)
        if (parallel := infos.parallel) is not None:
            self._draw["parallel"] = partial(parallel_figure, parallel)
        for heat in infos.heat:
            self._draw[f"heat/{heat.metric}"] = partial(heat_figure, heat)
        if (importance := infos.importance) is not None and not importance.refusal:
            self._draw["importance"] = partial(importance_figure, importance)
        for effect in infos.factorial:
            self._draw[f"averaging/{effect.against}"] = partial(factorial_figure, effect)
        if (training := infos.training) is not None:
            self._draw["training"] = partial(training_figure, training)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the charts, in the order of the report."""
        return tuple(self._draw)

    def draw(self, kind: str) -> "Figure":
        """One chart, by its name, or the first of several (`heat` is `heat/unsafe_rate`).

        Raises: SweeperError: this run has no such chart.
        """
        for name in (kind, *(name for name in self._draw if name.startswith(f"{kind}/"))):
            if name in self._draw:
                return self._draw[name]()
        raise SweeperError(f"no plot `{kind}` in this run; it has {', '.join(self._draw)}")
