"""The command that recommends a configuration, and measures the recommendation again."""

from typing import Annotated, Any

import typer

from sweeper.analysis import NAMES, policy_of, under_policy
from sweeper.analysis import recommend as choose
from sweeper.cli import completions, progress, recommendations, show, show_judges
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    app,
    uncollected,
)
from sweeper.errors import SweeperError
from sweeper.judges import MIN_COVERAGE
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep.confirm import Confirmation, confirmation, prepare, shrinkages


@app.command()
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
        bool, typer.Option("--confirm", help="Measure the best few again; continued if begun.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=0, help="New seeds to confirm under.")] = 2,
    top: Annotated[int, typer.Option(min=1, help="How many of the best to confirm.")] = 3,
) -> None:
    """Recommend one configuration under a policy, and say what it beat and how sure that is."""
    from sweeper.runs.run import open_run

    wanted = policy_of(policy, limit, utility)
    if confirm and judge is not None:
        raise SweeperError(
            "--confirm measures with the sweep's keyword lists; leave --judge out, and have the new run "
            "judged by `sweeper rescore`"
        )
    opened = open_run(run, judge, min_coverage)
    with uncollected():
        front, spec = opened.front(), opened.spec
        found = choose(front, spec, wanted)
    if not json_:
        recommendations.recommendation(found, spec)
    show_judges.overlay(opened.judged(), to=show.err if json_ else show.out)
    content: dict[str, Any] = recommendations.recommendation_data(found)
    if confirm:
        laid_out = confirmation(opened.folder, spec, front, found, seeds, top)
        prepare(laid_out, opened.folder)
        _run(laid_out, opened.folder, quiet=json_)
        _, under = under_policy(front, spec, wanted)
        again = shrinkages(front, under, read_records(laid_out.folder.records).records, laid_out)
        if not json_:
            recommendations.shrinkage(again, laid_out, spec)
        content["confirmation"] = recommendations.shrinkage_data(again, laid_out)
    if json_:
        show.data(content)


def _run(laid_out: Confirmation, of: RunFolder, *, quiet: bool) -> None:
    """Run what is laid out, or what is left of it; an interruption ends the command."""
    from sweeper.sweep.run import SweepCallbacks, SweepOptions, run_sweep

    root, only = laid_out.folder.root, tuple(laid_out.names)
    options = SweepOptions(only=only, part_of=of)
    with progress.resumable(laid_out.folder):
        if quiet:
            ended = run_sweep(laid_out.spec, root, options)
        else:
            show.line(f"confirming {len(only)} configurations in {root}")
            with progress.SweepProgress(laid_out.spec) as shown:
                callbacks = SweepCallbacks(on_plan=shown.begin, on_record=shown.record)
                ended = run_sweep(laid_out.spec, root, options, callbacks)
    records = read_records(laid_out.folder.records).records
    if not ended.completed or ended.plan.keys() - {record.key for record in records}:
        progress.interrupted(laid_out.folder)
