"""The charts of the report: their data, and the sections of the page."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from sweeper.analysis import Recommendation
from sweeper.report.averaging import FEWEST_RUNS, Pairings
from sweeper.report.charts import Chart, Section
from sweeper.report.factorial import factorial_infos
from sweeper.report.figures import StepInfo, figure_block, step_figure
from sweeper.report.figures.draw_bars import importance_figure
from sweeper.report.figures.draw_panels import factorial_figure
from sweeper.report.figures.draw_parallel import parallel_figure
from sweeper.report.figures.draw_training import training_figure
from sweeper.report.figures.factorial import FactorialInfo
from sweeper.report.figures.heat import HeatInfo, heat_infos
from sweeper.report.figures.importance import ImportanceInfo, explained, importance_info
from sweeper.report.figures.parallel import P_FRONT, ParallelInfo, parallel_info
from sweeper.report.figures.training import TrainingInfo, training_info
from sweeper.report.listing import Listing
from sweeper.spec import ResultsSpec
from sweeper.store.folder import RunFolder


class ChartInfos(NamedTuple):
    """The data of the charts; None or empty where one is not possible. The page makes its own heat maps."""

    parallel: ParallelInfo | None = None
    heat: tuple[HeatInfo, ...] = ()
    importance: ImportanceInfo | None = None
    factorial: tuple[FactorialInfo, ...] = ()
    training: TrainingInfo | None = None


def chart_infos(
    run: RunFolder,
    listing: Listing,
    spec: ResultsSpec,
    found: Recommendation,
    pairings: Pairings,
) -> ChartInfos:
    """Gather the data of the charts, from the same values as the rest of the report."""
    centre, front = found.chosen or found.nearest, listing.whole
    return ChartInfos(
        parallel_info(listing.listed, spec, listing.certainty),
        heat_infos(front, spec, centre, found.chosen is not None),
        importance_info(front, spec) if front.competing else None,
        factorial_infos(pairings, spec),
        training_info(run, front, found),
    )


def sections(
    infos: ChartInfos, curves: Sequence[StepInfo] = (), *, chosen: bool = True
) -> tuple[Section, ...]:
    """The sections of the page, in order; those without anything to show are left out.

    Args:
        infos: See `chart_infos`.
        curves: The metrics along the steps.
        chosen: Whether they go through the recommended configuration, or the nearest one.
    """
    found = (
        _steps(curves, chosen) if curves else None,
        None if infos.parallel is None else _parallel(infos.parallel),
        None if infos.importance is None else _importance(infos.importance),
        _factorial(infos.factorial) if infos.factorial else None,
        None if infos.training is None else _training(infos.training),
    )
    return tuple(section for section in found if section is not None)


def _drawn(figure: object, identity: str, width: int = 0) -> Markup:
    """A figure, in a box that scrolls where the page is narrower than `width` pixels."""
    text = figure_block(figure, identity)
    if width:
        text = f'<div class="scroll"><div style="min-width:{width}px">{text}</div></div>'
    return Markup(text)  # noqa: S704 - our own markup; figures escape what comes from data


def _parallel(info: ParallelInfo) -> Section:
    controls = f"Controls ({info.controls}) have no line." if info.controls else ""
    incomplete = (
        f"Not complete, and so without a line: {info.incomplete}." if info.incomplete else ""
    )
    shade = "P(front), its lower bound" if info.colour == P_FRONT else "the unsafe rate"
    hidden = f"{info.hidden:,} more with less promising values of the colour have no line."
    unshown = f"No axis for {', '.join(info.unshown)}." if info.unshown else ""
    chart = Chart(
        "parallel",
        f"{len(info.config_ids)} configurations, hyperparameters left and metrics right",
        " ".join(filter(None, (hidden if info.hidden else "", controls, incomplete, unshown))),
        _drawn(parallel_figure(info), "parallel", 90 * len(info.axes) + 160),
    )
    return Section(
        "parallel-coordinates",
        "All hyperparameters at once",
        f"A line is a configuration and crosses each axis at its value; its colour is {shade}. "
        'The axis "unsafe, at most" is the upper end of the 95 % interval. '
        "Drag along an axis to keep the lines that pass there, click the axis to clear this, and drag an "
        "axis by its name to move it.",
        (chart,),
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
        "longer its bar. It shows the size of an effect, not its direction; the table names the value "
        "that is most typical of the best. Interactions are not included, "
        "and correlated settings share their importance.",
        (chart,),
    )


def _steps(infos: Sequence[StepInfo], chosen: bool) -> Section:
    fixed = f": {infos[0].fixed}" if infos[0].fixed else ""
    return Section(
        "steps",
        "Metrics by training step",
        f"A line for each average; everything else as in the {'recommended' if chosen else 'nearest'} "
        f"configuration{fixed}. Bars are 95 % intervals over prompts or rows.",
        tuple(
            Chart(
                f"steps-{index}",
                info.metric,
                "",
                _drawn(step_figure(info), f"steps-{index}"),
                ("configuration", "average", "steps", "value", "low (95 %)", "high (95 %)"),
                tuple(
                    (config_id, curve.label, *row)
                    for curve in info.curves
                    for config_id, *row in zip(
                        curve.config_ids,
                        curve.steps,
                        curve.values,
                        curve.low,
                        curve.high,
                        strict=True,
                    )
                ),
            )
            for index, info in enumerate(infos)
        ),
    )


def _factorial(infos: Sequence[FactorialInfo]) -> Section:
    return Section(
        "averaging-effect",
        "The effect of averaging",
        "Averaged minus control, pooled over all pairs that share the level below. Bars are 95 % intervals "
        "of the mean over training runs and the prompts or rows that both answered; where one excludes 0, "
        "averaging made a difference.",
        tuple(_factorial_chart(info) for info in infos),
    )


def _against(control: str) -> str:
    """The head of a chart: `without averaging` is no noun, the names of the other controls are."""
    return f"Compared with {'training ' if control.startswith('without') else 'the '}{control}"


def _factorial_chart(info: FactorialInfo) -> Chart:
    identity = f"effect-{info.against.replace(' ', '-')}"
    return Chart(
        identity,
        _against(info.against),
        f"A point without a bar has fewer than {FEWEST_RUNS} training runs, or pairs with no common rows."
        if any(point.low is None for point in info.points)
        else "",
        _drawn(factorial_figure(info), identity, 640),
        (
            "metric",
            "factor",
            "level",
            "average",
            "pairs",
            "better",
            "worse",
            "neither",
            "mean difference",
            "low (95 %)",
            "high (95 %)",
        ),
        tuple((*point[:3], *point[4:]) for point in info.points),
    )


def _training(info: TrainingInfo) -> Section:
    shown = len(info.curves)
    notes = [f"{shown} of {info.trajectories} training runs are shown."]
    if info.unshown:
        notes.append(f"{info.unshown} more are left out to keep it legible.")
    if info.missing:
        notes.append(f"{info.missing} have no readable curve.")
    if info.gaps:
        notes.append(f"{info.gaps} steps whose loss was not finite are left out.")
    chart = Chart(
        "training-curves",
        "Training loss",
        " ".join(notes),
        _drawn(training_figure(info), "training-curves"),
        ("trajectory", "why shown", "seed", "hyperparameters", "steps", "first loss", "last loss"),
        tuple(
            (c.trajectory_id, c.group, c.seed, c.values, c.trained, c.losses[0], c.losses[-1])
            for c in info.curves
        ),
    )
    return Section(
        "training",
        "Training curves",
        "A line is one training run, from which many configurations are read; diamonds are the steps at "
        "which they were. A long curve is thinned to at most 200 of its steps; losses are those of "
        "single batches and therefore noisy.",
        (chart,),
    )
