"""The charts of the report: what they show (plain values), and the sections they make."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from sweeper.certainty import Certainty
from sweeper.figures import figure_html
from sweeper.figures.draw_bars import importance_figure
from sweeper.figures.draw_panels import heat_figure, heat_width
from sweeper.figures.draw_parallel import parallel_figure
from sweeper.figures.heat import HeatInfo, heat_infos
from sweeper.figures.importance import ImportanceInfo, explained, importance_info
from sweeper.figures.parallel import P_FRONT, ParallelInfo, parallel_info
from sweeper.front import Front
from sweeper.report.charts import Chart, Entry, Section
from sweeper.select import Recommendation
from sweeper.spec import SweepSpec


class ChartInfos(NamedTuple):
    """What the charts show; None or empty where the records cannot carry one."""

    parallel: ParallelInfo | None = None
    heat: tuple[HeatInfo, ...] = ()
    importance: ImportanceInfo | None = None


def chart_infos(
    front: Front, spec: SweepSpec, found: Recommendation, sure: Certainty
) -> ChartInfos:
    """Gather what the charts show, from the same values as the rest of the report."""
    centre = found.chosen or found.nearest
    return ChartInfos(
        parallel_info(front, spec, sure),
        heat_infos(front, spec, centre, found.chosen is not None),
        importance_info(front, spec) if front.competing else None,
    )


def sections(infos: ChartInfos) -> tuple[Section, ...]:
    """The sections of the page, in order; those without anything to show are left out."""
    found = (
        None if infos.parallel is None else _parallel(infos.parallel),
        _heat(infos.heat) if infos.heat else None,
        None if infos.importance is None else _importance(infos.importance),
    )
    return tuple(section for section in found if section is not None)


def _drawn(figure: object, identity: str, width: int = 0) -> Markup:
    """A figure, in a box that scrolls where the page is narrower than `width` pixels."""
    text = figure_html(figure, first=False, identity=identity)
    if width:
        text = f'<div class="scroll"><div style="min-width:{width}px">{text}</div></div>'
    return Markup(text)  # noqa: S704 - our own markup; figures escape what comes from data


def _parallel(info: ParallelInfo) -> Section:
    controls = f"Controls ({info.controls}) have no line." if info.controls else ""
    incomplete = (
        f"Not complete, and so without a line: {info.incomplete}." if info.incomplete else ""
    )
    shade = "the probability of being on the front" if info.colour == P_FRONT else "the unsafe rate"
    unshown = f"No axis for {', '.join(info.unshown)}." if info.unshown else ""
    chart = Chart(
        "parallel",
        f"{len(info.config_ids)} configurations, hyperparameters left and metrics right",
        " ".join(filter(None, (controls, incomplete, unshown))),
        _drawn(parallel_figure(info), "parallel", 90 * len(info.axes) + 160),
    )
    return Section(
        "parallel-coordinates",
        "All hyperparameters at once",
        f"A line is a configuration and crosses each axis at its value; its colour is {shade}. "
        "`Unsafe, at most` is the upper end of the 95 % interval. "
        "Drag along an axis to keep the lines that pass there, click the axis to let them go, and "
        "drag an axis by its name to move it.",
        (chart,),
    )


_HEAT_COLUMNS = (
    "configuration",
    "average",
    "max_steps",
    "learning_rate",
    "batch_size",
    "state",
    "value",
    "counts",
    "low (95 %)",
    "high (95 %)",
)


def _heat(infos: Sequence[HeatInfo]) -> Section:
    first = infos[0]
    which = "recommended" if first.chosen else "nearest"
    fixed = f": {first.fixed}" if first.fixed else ""
    unshown = f" Left out to keep it legible: {'; '.join(first.unshown)}." if first.unshown else ""
    return Section(
        "heat-maps",
        "Learning rate and batch size",
        f"A cell is one configuration; every other hyperparameter is that of the {which} one{fixed}. "
        f"The {which} one is outlined. A cell without colour has no value, and says why: not measured, "
        f"failed, pruned, or unscored.{unshown}",
        tuple(_heat_chart(info) for info in infos),
    )


def _heat_chart(info: HeatInfo) -> Chart:
    identity = f"heat-{info.metric.replace('/', '-')}"
    rows: list[tuple[Entry, ...]] = [
        (
            cell.config_id,
            facet.average,
            facet.steps,
            cell.learning_rate,
            cell.batch_size,
            cell.state,
            cell.value,
            cell.counts,
            cell.low,
            cell.high,
        )
        for facet in info.facets
        for cell in facet.cells
    ]
    return Chart(
        identity,
        info.metric,
        "",
        _drawn(heat_figure(info), identity, heat_width(info)),
        _HEAT_COLUMNS,
        tuple(rows),
    )


def _importance(info: ImportanceInfo) -> Section:
    title = "What matters"
    identity = "importance"
    if info.refusal:
        return Section(identity, title, f"No importance is shown: {info.refusal}.", ())
    chart = Chart(
        "importance-bars",
        "Importance by PED-ANOVA, for each objective",
        explained(info),
        _drawn(importance_figure(info), "importance-bars"),
        (
            "metric",
            "hyperparameter",
            "share",
            "typical of the best",
            "its share among the best",
            "its share among all",
        ),
        tuple(tuple(bar) for bar in info.bars),
    )
    return Section(
        identity,
        title,
        "The more a hyperparameter's values among the best tenth differ from its values among all, the "
        "longer its bar. It says what matters, not which way; the table names the value that the best "
        "have more often than all. It knows of no interactions, and correlated settings share the credit.",
        (chart,),
    )
