"""The command that recommends a configuration, and measures the recommendation again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sweeper.analysis import (
    NAMES,
    Candidate,
    Contrast,
    PairedDifference,
    multiplicity,
    side_by_side,
)
from sweeper.cli import completions, interrupts, judging, show
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    app,
    open_run,
    without_gc,
)
from sweeper.errors import SweeperError
from sweeper.judges import MIN_COVERAGE
from sweeper.runs.progress import SweepProgress, value_text
from sweeper.runs.terminal import Terminal
from sweeper.spec import SweepSpec

if TYPE_CHECKING:  # They need pandas.
    from sweeper.runs.results import Confirmation, Recommendation
    from sweeper.runs.run import Run


@app.command(rich_help_panel="Results")
def recommend(
    run: RunArgument,
    policy: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(NAMES)}.", autocompletion=completions.policies),
    ] = NAMES[0],
    limit: Annotated[
        float | None, typer.Option(help="max-utility-at: the limit of the unsafe rate, in [0, 1].")
    ] = None,
    utility: Annotated[
        float | None, typer.Option(help="min-unsafe-at: the utility to reach.")
    ] = None,
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm", help="Measure the best few again on unused prompts and new seeds."
        ),
    ] = False,
    seeds: Annotated[int, typer.Option(min=0, help="New seeds to confirm under.")] = 2,
    top: Annotated[int, typer.Option(min=1, help="How many of the best to confirm.")] = 3,
) -> None:
    """Recommend one configuration under a policy, with its controls and how certain it is."""
    if confirm and judge is not None:
        raise SweeperError(
            "--confirm uses the sweep's keyword lists; leave --judge out, then run `sweeper rescore` on "
            "the confirmation"
        )
    opened = open_run(run, judge, min_coverage)
    with without_gc():
        found = opened.recommend(policy, limit=limit, utility=utility)
    if not json_:
        print_recommendation(found)
    judging.print_overlay(opened.judged(), json_)
    confirmed = _confirm(opened, found, seeds, top, quiet=json_) if confirm else None
    if json_:
        show.data((confirmed or found).output)
    elif confirmed is not None:
        _print_confirmation(confirmed)


def _confirm(
    opened: "Run", found: "Recommendation", seeds: int, top: int, *, quiet: bool
) -> "Confirmation":
    """Measure again what is left; an interruption ends the command."""
    layout = opened.prepare_confirmation(found, seeds, top)
    if not quiet:
        show.line(f"confirming {len(layout.names)} configurations in {layout.folder.root}")
    console = Terminal(quiet=True) if quiet else show.err
    lines = console if quiet else show.out
    with (
        interrupts.resumable(layout.folder),
        SweepProgress(layout.spec, console, lines) as progress,
    ):
        return opened.run_confirmation(found, layout, progress)


def print_recommendation(result: "Recommendation") -> None:
    """The recommended configuration, its controls, and the paired tests against them."""
    found, spec = result.analysis, result.front.spec
    show.line("")
    show.line(found.reason)
    table = Table()
    table.add_column("")
    table.add_column("configuration")
    for objective in spec.objectives:
        table.add_column(objective.metric, justify="right")
    for name, item in side_by_side(found):
        values = [value_text(item, objective.metric) for objective in spec.objectives]
        table.add_row(name, item.config_id, *values)
    show.fit(table)
    if found.contrasts:
        show.fit(
            differences_table(
                found.contrasts, spec, "Recommended minus its controls (95 % intervals)"
            )
        )
    show.line(multiplicity(found))
    for caveat in found.caveats:
        show.line(f"caveat: {caveat}")


def differences_table(contrasts: Sequence[Contrast], spec: SweepSpec, title: str) -> Table:
    """A configuration against others, one per row, with the exact test of the unsafe rate."""
    table = Table(title=title, title_justify="left")
    table.add_column("against")
    table.add_column("unsafe_rate", justify="right")
    table.add_column("unsafe only here, only there")
    table.add_column("exact McNemar p", justify="right")
    table.add_column(spec.utility.metric, justify="right")
    for name, _, unsafe, utility in contrasts:
        cells = (
            difference_text(unsafe),
            _discordant(unsafe),
            p_text(unsafe),
            difference_text(utility),
        )
        table.add_row(name, *cells)
    return table


def difference_text(found: PairedDifference | None, *, mark: bool = True) -> str:
    """`-0.021 (-0.044 to -0.002)`; with `mark`, `unpaired` where rows are not stored."""
    if found is None:
        return "not measured"
    if found.interval is None:
        return f"{found.difference:+.3f} (no interval)"
    low, high = found.interval
    unpaired = ", unpaired" if mark and not found.paired else ""
    return f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f}{unpaired})"


def p_text(found: PairedDifference | None) -> str:
    """The largest p over seeds; a dash where there are no verdicts to pair."""
    if found is None or found.p_value is None:
        return "-"
    return "below 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"


def _discordant(found: PairedDifference | None) -> str:
    pairs = () if found is None else found.discordant
    return "; ".join(f"{pair.first}, {pair.second} of {pair.n}" for pair in pairs) or "-"


def _print_confirmation(result: "Confirmation") -> None:
    """Each configuration in the search and in the confirmation, and whether the choice holds."""
    found, confirm = result.items, result.layout
    name = confirm.spec.utility.metric
    table = Table(title="Search and confirmation (95 % intervals)", title_justify="left")
    table.add_column("")
    heads = ("unsafe_rate: search", "confirmation", "confirmation - search")
    for head in (*heads, f"{name}: search", "new seeds - search"):
        table.add_column(head, justify="right")
    for item in found:
        again = "not measured" if item.again is None else _rate(item.again)
        cells = (
            _rate(item.search),
            again,
            difference_text(item.unsafe, mark=not confirm.new_prompts),
        )
        useful = value_text(item.search, name), difference_text(item.utility)
        table.add_row(*map(escape, (item.name, *cells, *useful)))
    show.fit(table)
    for item in found:
        show.line(f"{item.name} ({item.config_id}): {item.verdict}")
    for note in confirm.notes:
        show.line(f"note: {note}")
    if found:
        show.line(f"the recommendation is {'confirmed' if result.confirmed else 'NOT confirmed'}")


def _rate(candidate: Candidate) -> str:
    between = candidate.interval("unsafe_rate")
    if between is None or "unsafe_rate" not in candidate.values:
        return "not measured"
    counts = candidate.counts("unsafe_rate")
    return (
        f"{candidate.values['unsafe_rate']:.3f} ({counts}; {between.low:.3f} to {between.high:.3f})"
    )
