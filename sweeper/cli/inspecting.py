"""Commands that look closer: at one configuration, at a few side by side, at all runs of a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.analysis import compare_configurations, contrasts, find_candidate, front_certainty
from sweeper.cli import completions, details, show, show_judges
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    app,
    uncollected,
)
from sweeper.judges import MIN_COVERAGE
from sweeper.runs.listing import list_runs

if TYPE_CHECKING:  # It needs a package that `ls` does without.
    from sweeper.runs.run import Run


@app.command("show")
@uncollected()
def show_configuration(
    run: RunArgument,
    config: Annotated[
        str,
        typer.Argument(
            help="A configuration id, or an unambiguous beginning of one.",
            autocompletion=completions.configurations,
        ),
    ],
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Show one configuration: settings, metrics by seed, constraints, controls, its responses' place."""
    from sweeper.runs.run import open_run

    opened = open_run(run, judge, min_coverage)
    front, spec = opened.front(), opened.spec
    item = find_candidate(front.candidates, config, str(run))
    membership = front_certainty(front, spec).memberships.get(item.config_id)
    found = details.Detail(
        item, front, membership, contrasts(item, front, spec), opened.folder, spec
    )
    if json_:
        show.data(details.detail_data(found))
    else:
        details.detail(found)
    _judged(opened, json_)


@app.command()
@uncollected()
def compare(
    run: RunArgument,
    configs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG...",
            help="2 to 4 configuration ids, or unambiguous beginnings; the first is held against.",
            autocompletion=completions.configurations,
        ),
    ],
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Compare 2 to 4 configurations: what differs, metrics, and the paired test against the first."""
    from sweeper.runs.run import open_run

    opened = open_run(run, judge, min_coverage)
    front, spec = opened.front(), opened.spec
    items = [find_candidate(front.candidates, config, str(run)) for config in configs]
    found, certainty = compare_configurations(items, spec), front_certainty(front, spec)
    if json_:
        show.data(details.comparison_data(found, certainty))
    else:
        details.comparison(found, certainty)
    _judged(opened, json_)


def _judged(opened: "Run", json_: bool) -> None:
    show_judges.overlay(opened.judged(), to=show.err if json_ else show.out)


@app.command()
@uncollected()
def ls(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs.")] = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List the runs in a folder and below it: how far, how good, how large."""
    found = list(list_runs(folder))
    if json_:
        show.data(details.runs_data(found, folder))
    else:
        details.runs(found, folder)
