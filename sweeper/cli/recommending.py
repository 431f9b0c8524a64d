"""The command that recommends a configuration, and measures the recommendation again."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sweeper.analysis import (
    ABSENT,
    CANDIDATE_ROLE,
    NAMES,
    Contrast,
    PairedDifference,
    Policy,
    measured_text,
    multiplicity,
    name_of,
    policy_of,
    side_by_side,
    varying,
)
from sweeper.analysis.decision import Decision
from sweeper.cli import completions, interrupts, show
from sweeper.cli.commands import app, without_gc
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    open_run,
)
from sweeper.cli.outcome import outcome
from sweeper.cli.overlay import print_overlay
from sweeper.judges import MIN_COVERAGE
from sweeper.metrics import is_rate
from sweeper.runs.terminal import Terminal
from sweeper.spec import ResultsSpec, SweepSpec

if TYPE_CHECKING:  # They need pandas.
    from sweeper.runs.results import Recommendation
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
            "--confirm",
            help="Train the best again on new seeds and prompts until one holds, or go on with it.",
        ),
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="New seeds; those of `decide` where not given.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="The most configurations tested, likewise.")
    ] = None,
) -> None:
    """Recommend one configuration under a policy, with its controls and how certain it is."""
    opened = open_run(run, judge, min_coverage)
    if confirm:
        decide(opened, policy_of(policy, limit, utility), seeds, top, quiet=json_)
    with without_gc():
        found = opened.recommend(policy, limit=limit, utility=utility)
    if json_:
        show.data(found.output)
    else:
        print_recommendation(found, run, judged=judge is not None)
    print_overlay(opened.judged(), json_)


def decide(
    opened: "Run", policy: Policy, seeds: int | None, top: int | None, *, quiet: bool
) -> None:
    """Run the decision, or what is left of it; an interruption ends the command."""
    from sweeper.runs.progress import SweepProgress  # It needs the estimates of a sweep.

    console = Terminal(quiet=True) if quiet else show.err
    lines = console if quiet else show.out
    with (
        interrupts.resumable(opened.folder),
        SweepProgress(opened.spec, console, lines) as progress,
    ):
        opened.run_decision(policy, seeds, top, progress)


def print_recommendation(result: "Recommendation", run: Path, *, judged: bool = False) -> None:
    """The recommended configuration, what to do next, its controls, and the paired tests against them."""
    found, spec = result.analysis, result.front.spec
    show.line("")
    for text in _head(result, run, judged=judged):
        show.line(text)
    show.line(found.reason)
    table = Table()
    table.add_column("")
    table.add_column("configuration")
    for objective in spec.objectives:
        table.add_column(objective.metric, justify="right")
    for name, item in side_by_side(found):
        values = [measured_text(item, objective.metric) for objective in spec.objectives]
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
    if result.decision is not None:
        print_decision(result.decision, spec)


def _head(result: "Recommendation", run: Path, *, judged: bool) -> list[str]:
    """The answer in a few lines: name, rates, seeds, selection, and the next commands."""
    found, front, chosen = result.analysis, result.front, result.chosen
    missing = [f"  {text}" for text in result.missing]
    if chosen is None:
        return missing
    name = name_of(chosen, varying(front.candidates, CANDIDATE_ROLE))
    objectives = (item.metric for item in front.spec.objectives)
    seeds = ", ".join(map(str, chosen.seeds))
    lines = [
        f"recommended: {name}",
        *missing,
        f"  configuration {chosen.config_id}, seed{'s' * (len(chosen.seeds) > 1)} {seeds}",
        *(f"  {metric} {measured_text(chosen, metric, interval=True)}" for metric in objectives),
        f"  selected from {found.compared} configurations, of which {len(found.ranked)} qualify alone",
    ]
    decided = result.decision is not None and result.decision.complete
    if not isinstance(front.spec, SweepSpec):
        return [*lines, ""]
    quoted, commands = shlex.quote(str(run)), []
    if not (judged or decided):
        numbers = [f"--{option} {value:g}" for option, value in _numbers(found.policy)]
        asked = " ".join([f"--policy {found.policy.name}", *numbers, "--confirm"])
        commands.append(f"sweeper recommend {quoted} {asked}")
    commands.append(f"sweeper export {quoted} --config {chosen.config_id} --format trl")
    return [*lines, *(f"next: {command}" for command in commands), ""]


def _numbers(policy: Policy) -> list[tuple[str, float]]:
    """The number of a policy that has one, by its option."""
    given = (("limit", policy.limit), ("utility", policy.utility))
    return [(name, value) for name, value in given if value is not None]


def differences_table(contrasts: Sequence[Contrast], spec: ResultsSpec, title: str) -> Table:
    """A configuration against others, one per row, with the test of the unsafe rate."""
    table = Table(title=title, title_justify="left")
    table.add_column("against")
    table.add_column(spec.safety.metric, justify="right")
    table.add_column("unsafe only here, only there")
    table.add_column("p", justify="right")
    table.add_column(spec.utility.metric, justify="right")
    table.add_column("holds for")
    for name, _, unsafe, utility in contrasts:
        cells = (
            difference_text(unsafe),
            _discordant(unsafe),
            p_text(unsafe),
            difference_text(utility),
            holds_for(unsafe or utility),
        )
        table.add_row(name, *cells)
    return table


def difference_text(found: PairedDifference | None, *, mark: bool = True) -> str:
    """`-0.021 (-0.044 to -0.002)`, of rates `-2.1 points (-4.4 to -0.2)`; with `mark` also `unpaired`."""
    if found is None:
        return ABSENT
    scale, form, unit = (100, "+.1f", " points") if is_rate(found.metric) else (1, "+.3f", "")
    text = f"{scale * found.difference:{form}}{unit}"
    if found.interval is None:
        return f"{text} (no interval)"
    low, high = (f"{scale * end:{form}}" for end in found.interval)
    unpaired = ", unpaired" if mark and not found.paired else ""
    return f"{text} ({low} to {high}{unpaired})"


def p_text(found: PairedDifference | None) -> str:
    """The p of a rate; a dash where there are no verdicts to pair."""
    if found is None or found.p_value is None:
        return "-"
    return "below 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"


def holds_for(found: PairedDifference | None) -> str:
    """`these weights`, or `trained again` where runs vary, too."""
    return "-" if found is None else found.claim


def _discordant(found: PairedDifference | None) -> str:
    pairs = () if found is None else found.discordant
    return "; ".join(f"{pair.first}, {pair.second} of {pair.n}" for pair in pairs) or "-"


def print_decision(found: Decision, spec: ResultsSpec) -> None:
    """Each configuration in the search and trained again, and which of them holds."""
    name = spec.utility.metric
    table = Table(title="Search and trained again (95 % intervals)", title_justify="left")
    table.add_column("")
    heads = ("unsafe_rate: search", "again", "again - search")
    for head in (*heads, f"{name}: search", "again - search"):
        table.add_column(head, justify="right")
    for item in (*(step.measured for step in found.steps), *found.controls):
        cells = (
            measured_text(item.search, "unsafe_rate", interval=True),
            measured_text(item.again, "unsafe_rate", interval=True),
            difference_text(item.unsafe, mark=not found.new_prompts),
        )
        useful = measured_text(item.search, name), difference_text(item.utility)
        table.add_row(*map(escape, (item.name, *cells, *useful)))
    show.fit(table)
    outcome(found, told=True)
