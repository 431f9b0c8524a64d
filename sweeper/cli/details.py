"""Commands that show one configuration, or compare several."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sweeper import analysis
from sweeper.analysis import (
    ABSENT,
    BASE_ROLE,
    Candidate,
    FrontMembership,
    Setting,
    bounds_text,
    measured_text,
    metric_names,
    reason_text,
    shown,
)
from sweeper.cli import completions, show
from sweeper.cli.commands import app, without_gc
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    open_run,
)
from sweeper.cli.overlay import print_overlay
from sweeper.cli.recommending import difference_text, differences_table, holds_for, p_text
from sweeper.judges import MIN_COVERAGE
from sweeper.metrics import metric_text, range_text
from sweeper.runs.outputs import seed_interval

if TYPE_CHECKING:  # They need pandas.
    from sweeper.runs.results import Comparison, Configuration


@app.command("show", rich_help_panel="Results")
@without_gc()
def show_configuration(
    run: RunArgument,
    config: Annotated[
        str,
        typer.Argument(
            help="A configuration id, or an unambiguous prefix of one.",
            autocompletion=completions.configurations,
        ),
    ],
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Show one configuration: hyperparameters, metrics by seed, constraints and controls."""
    opened = open_run(run, judge, min_coverage)
    found = opened.show(config)
    if json_:
        show.data(found.output)
    else:
        _print_configuration(found)
    print_overlay(opened.judged(), json_)


@app.command(rich_help_panel="Results")
@without_gc()
def compare(
    run: RunArgument,
    configs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG...",
            help="2 to 4 configuration ids, or unambiguous prefixes of them.",
            autocompletion=completions.configurations,
        ),
    ],
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Compare 2 to 4 configurations: what differs, and paired tests of each against the first."""
    opened = open_run(run, judge, min_coverage)
    found = opened.compare(*configs)
    if json_:
        show.data(found.output)
    else:
        _print_comparison(found)
    print_overlay(opened.judged(), json_)


def _print_configuration(found: "Configuration") -> None:
    """Settings, metrics by seed, constraints, controls, and where responses lie: never their text."""
    item = found.candidate
    show.line(f"configuration {item.config_id}")
    for text in _status_lines(found):
        show.line(f"  {text}")
    show.table("Hyperparameters", [(name, shown(value)) for name, value in item.config.items()])
    metrics = Table(title="Metrics (95 % intervals)", title_justify="left")
    for name in ("metric", "seed"):
        metrics.add_column(name)
    for name in ("value", "k/n", "interval"):
        metrics.add_column(name, justify="right")
    for row in _metric_rows(found):
        metrics.add_row(*map(escape, row))
    show.fit(metrics)
    for text in _constraint_lines(found):
        show.line(text)
    if found.contrasts:
        title = "This configuration minus its controls (95 % intervals)"
        show.fit(differences_table(found.contrasts, found.spec, title))
    else:
        show.line("none of its controls has been measured")
    for text in _response_lines(found):
        show.line(text)


def _status_lines(found: "Configuration") -> list[str]:
    item, membership = found.candidate, found.output.front
    role = item.role.replace("_", " ")
    lines = [f"{role}, {item.status}; seeds {', '.join(map(str, item.seeds))}"]
    if membership is not None:
        place = "on the front" if membership.on_front else "not on the front"
        label = membership.front_membership
        between = bounds_text(membership.p_front, membership.p_front_upper)
        about = f"P(front), {membership.claim}, {between}"
        lines.append(f"{place} by the point estimates; {about}: {label}")
    if item.excluded is not None:
        lines.append(f"not compared: {item.excluded}")
    if item.gain_evidence:
        lines.append(f"{'no gain' if item.gain is False else 'gain'}: {item.gain_evidence}")
    lines += [
        f"seed {record.seed} {record.status}: {reason_text(record)}"
        for record in item.records
        if record.status != "complete"
    ]
    return lines


def _metric_rows(found: "Configuration") -> Iterable[tuple[str, ...]]:
    """One row per metric and seed, and the mean where there are several seeds."""
    item = found.candidate
    for name in metric_names([item], found.spec):
        for record in item.records:
            metric = record.metrics.get(name)
            if metric is None:
                yield name, f"{record.seed}", ABSENT, "", ""
                continue
            known = "n unknown" if metric.n is None else f"n={metric.n}"
            counts = known if metric.k is None else f"{metric.k}/{metric.n}"
            between = seed_interval(name, metric)
            text = "" if between is None else range_text(name, *between)
            yield name, f"{record.seed}", metric_text(name, metric.value), counts, text
        if len(item.records) > 1:
            mean = item.values.get(name)
            yield name, "mean", ABSENT if mean is None else metric_text(name, mean), "", ""


def _constraint_lines(found: "Configuration") -> list[str]:
    lines = []
    for constraint, p in zip(found.spec.constraints, found.candidate.probabilities, strict=True):
        kept = "kept" if p >= constraint.confidence else "NOT kept"
        text = f"P = {p:.3f} for these weights, required {constraint.confidence:g}: {kept}"
        if constraint.metric not in found.candidate.values:
            text = f"{ABSENT}, so NOT kept"
        lines.append(f"constraint {constraint.metric} <= {constraint.max:g}: {text}")
    return lines


def _response_lines(found: "Configuration") -> list[str]:
    return [
        f"responses under seed {item.seed}: {item.path}{'' if item.exists else ' (missing)'}"
        for item in found.output.responses
    ]


def _print_comparison(result: "Comparison") -> None:
    """Settings that differ, then metrics with intervals, then paired tests against the first."""
    found, memberships = result.analysis, result.front.certainty.memberships
    title = "Side by side (95 % intervals); `>` marks hyperparameters that differ"
    table = Table("", title=title, title_justify="left")
    for number, item in enumerate(found.items, start=1):
        table.add_column(f"{number}: {escape(item.config_id)}")
    for setting in found.settings:
        if setting.differs:
            table.add_row(*_setting_row(setting, found.items))
    table.add_section()
    for metric in found.metrics:
        cells = (measured_text(item, metric.metric, interval=True) for item in found.items)
        table.add_row(escape(metric.metric), *cells)
    table.add_row("P(front)", *(_p_front(memberships.get(item.config_id)) for item in found.items))
    show.fit(table)
    same = sum(not setting.differs for setting in found.settings)
    show.line(f"{same} other hyperparameters are the same; `sweeper show` prints all of one")
    show.fit(_differences(found))
    for note in found.notes:
        show.line(f"note: {note}")


def _setting_row(setting: Setting, items: Sequence[Candidate]) -> list[str]:
    values = [
        "-" if item.role == BASE_ROLE else shown(value)
        for item, value in zip(items, setting.values, strict=True)
    ]
    name = f"[bold]> {escape(setting.name)}[/bold]"
    return [name, *(f"[bold]{escape(value)}[/bold]" for value in values)]


def _p_front(membership: FrontMembership | None) -> str:
    if membership is None:
        return "-"
    between = bounds_text(membership.p_front, membership.p_front_upper)
    return f"{between} ({membership.label}; {membership.claim})"


def _differences(found: analysis.Comparison) -> Table:
    first, *others = found.items
    table = Table(title=f"Each minus the first, {escape(first.config_id)}", title_justify="left")
    for name in ("configuration", "metric"):
        table.add_column(name)
    for name in ("difference (95 % interval)", "p"):
        table.add_column(name, justify="right")
    table.add_column("holds for")
    table.add_column("based on")
    for index, other in enumerate(others):
        for metric in found.metrics:
            gap = metric.differences[index]
            kind = "pairs" if gap is not None and gap.paired else "each, unpaired"
            on = "" if gap is None else "n unknown" if gap.n is None else f"{gap.n} {kind}"
            cells = (
                other.config_id,
                metric.metric,
                difference_text(gap, mark=False),
                p_text(gap),
                holds_for(gap),
                on,
            )
            table.add_row(*map(escape, cells))
        table.add_section()
    return table
