"""Commands that read a finished or unfinished run."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.analysis import front_certainty
from sweeper.cli import show, show_front, show_judges
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    app,
    uncollected,
)
from sweeper.errors import ExportError, SweeperError
from sweeper.judges import MIN_COVERAGE

if TYPE_CHECKING:
    from sweeper.analysis import Candidate, Recommendation
    from sweeper.export import Origin
    from sweeper.runs.run import Run


@app.command()
@uncollected()
def front(
    run: RunArgument,
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Show the configurations that no other one beats in both safety and utility."""
    from sweeper.runs.run import open_run

    opened = open_run(run, judge, min_coverage)
    found, spec = opened.front(), opened.spec
    certainty = front_certainty(found, spec)
    if json_:
        show.data(show_front.front_data(found, certainty))
        show_judges.overlay(opened.judged(), to=show.err)
    else:
        show_front.front(found, certainty, spec)
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
    max_response_mib: Annotated[
        float,
        typer.Option(
            metavar="MIB", min=0.0, max=256.0, help="The most MiB of responses in it; 0 for none."
        ),
    ] = 4.0,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave prompts and responses of harmful suites out.")
    ] = False,
    external_plotly: Annotated[
        bool,
        typer.Option(
            "--external-plotly", help="plotly.js (4.8 MB) as a file beside the page, not inside it."
        ),
    ] = False,
) -> None:
    """Write the report: one HTML page that works offline."""
    from sweeper.report import write_report
    from sweeper.runs.run import open_run

    opened = open_run(run, judge, min_coverage)
    path = out or opened.folder.report
    judged = opened.judged()
    data = write_report(
        opened.folder,
        opened.records(),
        opened.spec,
        opened.accounting,
        path,
        opened.estimate,
        judged,
        samples=int(max_response_mib * 1024**2),
        redact=redact,
        external_plotly=external_plotly,
    )
    show_judges.overlay(judged)
    show.line(f"wrote {path}: open it in a browser")
    if data.found:
        by = f" --judge {shlex.quote(judge)}" if judge else ""
        show.line(f"next: sweeper export {shlex.quote(str(run))}{by} --format trl --rows")


@app.command("export-study")
def export_study(
    run: RunArgument,
    storage: Annotated[
        str | None,
        typer.Option(
            help="copy it to journal:PATH, sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME; a "
            "password belongs into PGPASSWORD."
        ),
    ] = None,
) -> None:
    """Bring the Optuna study of a run up to date, or copy it to a database, and say how to open it."""
    from sweeper.runs.run import open_run
    from sweeper.search.live_study import update_journal
    from sweeper.search.storages import shown_url
    from sweeper.search.study import copy_study

    opened = open_run(run)
    if storage is None:
        address = str(opened.folder.study)
        if not opened.folder.is_driven():  # A driver keeps it up to date itself.
            update_journal(opened.folder.study, opened.front(), opened.spec)
        show.line(f"wrote {address}")
    else:
        made = copy_study(opened.front(), opened.spec, storage)
        address = shown_url(storage).removeprefix("journal:")
        show.line(f"wrote the study {made.study_name} of {len(made.trials)} trials into {address}")
    show.line(f"next: optuna-dashboard {address}   (pip install optuna-dashboard)")


@app.command()
@uncollected()
def export(
    run: RunArgument,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="trl, transformers, accelerate, llamafactory, axolotl, yaml (the default), card, "
            "or all; may be repeated.",
        ),
    ] = None,
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
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Also the trained weights: those the sweep kept, or else it trains again, alone.",
        ),
    ] = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Write the recommended hyperparameters as another trainer's files, or the trained weights."""
    from sweeper.export import export as write_export
    from sweeper.export import formats_of
    from sweeper.runs.run import open_run

    opened = open_run(run, judge, min_coverage)
    formats = formats_of(format_ or ["yaml"])
    recommended = opened.recommend()
    chosen = opened.candidate(config) if config else recommended.chosen
    if chosen is None:
        raise SweeperError(
            f"{recommended.reason} Nothing is exported; name a configuration with --config"
        )
    origin = _origin(opened, chosen, recommended)
    spec, folder = opened.spec, out or opened.folder.root / "export"
    written: list[Path] = []
    for name in formats:
        try:
            written += write_export(chosen, spec, name, folder, world_size, micro_batch, origin)
        except ExportError as error:
            if "all" not in (format_ or ()):
                raise
            show.line(f"left out {name}: {error}")
    if rows:
        from sweeper.export.rows import export_rows

        written += export_rows(chosen, spec, folder, segments="axolotl" in formats)
    for path in dict.fromkeys(written):
        show.line(f"wrote {path}")
    if weights:
        from sweeper.export.weights import export_weights

        found = export_weights(opened.folder, spec, chosen, folder, origin)
        show.line(f"wrote {found.folder}\n{found.comparison}")


def _origin(opened: "Run", chosen: "Candidate", recommended: "Recommendation") -> "Origin":
    """What an export says about the run it comes from."""
    from sweeper.export import Origin

    judged = opened.judged()
    best = recommended.chosen
    return Origin(
        run=opened.folder.root.resolve().name,
        compared=recommended.compared,
        recommended=best is not None and best.config_id == chosen.config_id,
        base=recommended.base,
        judge=None if judged is None else judged.summary,
    )
