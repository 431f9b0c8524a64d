"""Commands that read a finished or unfinished run."""

from pathlib import Path
from typing import Annotated

import typer

from sweeper.certainty import certainty
from sweeper.cli import show, show_judges, standings
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


@app.command()
@uncollected()
def front(
    run: RunArgument,
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Show the configurations that no other one beats in both safety and utility."""
    from sweeper.run import open_run

    opened = open_run(run, judge, min_coverage)
    found, spec = opened.front(), opened.spec
    sure = certainty(found, spec)
    if json_:
        show.data(standings.front_data(found, sure))
        show_judges.overlay(opened.judged(), to=show.err)
    else:
        standings.front(found, sure, spec)
        show_judges.overlay(opened.judged())


@app.command()
@uncollected()
def report(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option(help="The page to write; report.html in the run.")
    ] = None,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
    samples: Annotated[
        float,
        typer.Option(metavar="MIB", min=0.0, max=256.0, help="MiB of responses in it; 0 for none."),
    ] = 4.0,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave prompts and responses of harmful suites out.")
    ] = False,
) -> None:
    """Write the report: one HTML page that works offline."""
    from sweeper.report import write_report
    from sweeper.run import open_run

    opened = open_run(run, judge, min_coverage)
    path = out or opened.folder.report
    judged = opened.judged()
    write_report(
        opened.folder,
        opened.records(),
        opened.spec,
        opened.accounting,
        path,
        opened.estimate,
        judged,
        samples=int(samples * 1024**2),
        redact=redact,
    )
    show_judges.overlay(judged)
    show.line(f"wrote {path}")


@app.command()
def study(
    run: RunArgument,
    storage: Annotated[
        str | None,
        typer.Option(
            help="journal:PATH, sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME instead of a "
            "file in the run; a password belongs into PGPASSWORD."
        ),
    ] = None,
) -> None:
    """Make an Optuna study from the records and say how to open it."""
    from sweeper.run import open_run
    from sweeper.search import project, project_into, shown_url

    opened = open_run(run)
    if storage is None:
        path = opened.folder.study
        project(opened.front(), opened.spec, path)
        show.line(f"wrote {path}")
        address = f"sqlite:///{path}"
    else:
        made = project_into(opened.front(), opened.spec, storage)
        address = shown_url(storage).removeprefix("journal:")
        show.line(f"wrote the study {made.study_name} of {len(made.trials)} trials into {address}")
    show.line(f"next: optuna-dashboard {address}   (pip install optuna-dashboard)")


@app.command()
def export(
    run: RunArgument,
    format_: Annotated[str, typer.Option("--format", help="trl, transformers or yaml.")] = "yaml",
    out: Annotated[Path | None, typer.Option(help="Folder to write; export/ in the run.")] = None,
    config: Annotated[
        str | None, typer.Option(help="A configuration id instead of the recommended one.")
    ] = None,
    world_size: Annotated[int, typer.Option(min=1, help="GPUs the training will use.")] = 1,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Rows per GPU and forward pass.")
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Also the training rows, in the order of the sweep.")
    ] = False,
) -> None:
    """Write the recommended hyperparameters as another trainer's files."""
    from sweeper.export import export as write_export
    from sweeper.run import open_run

    opened = open_run(run)
    chosen = opened.candidate(config) if config else opened.recommend().chosen
    if chosen is None:
        raise SweeperError(
            f"{opened.recommend().reason} Nothing is exported; name a configuration with --config"
        )
    folder = out or opened.folder.root / "export"
    for path in write_export(chosen, opened.spec, format_, folder, world_size, micro_batch):
        show.line(f"wrote {path}")
    if rows:
        from sweeper.export.rows import export_rows

        show.line(f"wrote {export_rows(chosen, opened.spec, folder)}")
