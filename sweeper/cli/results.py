"""Commands that show and export the results of a run: front, report, study, files of other trainers."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.cli import fronts, show
from sweeper.cli.commands import app, without_gc
from sweeper.cli.options import (
    CoverageOption,
    JsonOption,
    JudgeOption,
    RunArgument,
    open_run,
)
from sweeper.cli.overlay import print_overlay
from sweeper.judges import MIN_COVERAGE

if TYPE_CHECKING:  # It needs pandas.
    pass


@app.command(rich_help_panel="Results")
@without_gc()
def front(
    run: RunArgument,
    all_: Annotated[
        bool, typer.Option("--all", help=f"All members, not only {fronts.MOST_MEMBERS}.")
    ] = False,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide", help="Every column, all members, and those that may be on the front."
        ),
    ] = False,
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Show the Pareto front: the configurations that no other one dominates in safety and utility."""
    opened = open_run(run, judge, min_coverage)
    if json_:
        show.data(opened.front().output)
    elif wide:
        fronts.print_wide(opened.front())
    else:
        fronts.print_front(opened.recommend(), everything=all_)
    print_overlay(opened.judged(), json_)


@app.command(rich_help_panel="Results")
@without_gc()
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
        bool,
        typer.Option(
            "--redact",
            help="Leave out prompts and responses of harmful suites, and folders of local paths.",
        ),
    ] = False,
    external_plotly: Annotated[
        bool,
        typer.Option(
            "--external-plotly", help="plotly.js (1.5 MB) as a file beside the page, not inside it."
        ),
    ] = False,
) -> None:
    """Write the report: one HTML page that works offline."""
    opened = open_run(run, judge, min_coverage)
    written = opened.report(
        out,
        max_response_mib=max_response_mib,
        redact=redact,
        external_plotly=external_plotly,
    )
    print_overlay(opened.judged())
    show.line(f"wrote {written.path}: open it in a browser")
    if written.csv is not None:
        show.line(f"wrote {written.csv}: every configuration, as the page lists a part of them")
    if written.data.found and written.data.exports:
        by = f" --judge {shlex.quote(judge)}" if judge else ""
        show.line(f"next: sweeper export {shlex.quote(str(run))}{by} --format trl")


@app.command("export-study", rich_help_panel="Results")
def export_study(
    run: RunArgument,
    storage: Annotated[
        str | None,
        typer.Option(
            help="copy it to journal:PATH, sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME; "
            "put a password into PGPASSWORD."
        ),
    ] = None,
) -> None:
    """Bring the Optuna study of a run up to date, or copy it to a database, and say how to open it."""
    from sweeper.search.live_study import update_journal
    from sweeper.search.storages import shown_url
    from sweeper.search.study import copy_study

    opened = open_run(run)
    if storage is None:
        address = str(opened.folder.study)
        if not opened.folder.has_driver():  # A running driver updates it itself.
            update_journal(opened.folder.study, opened.front().analysis, opened.spec)
        show.line(f"wrote {address}")
    else:
        made = copy_study(opened.front().analysis, opened.spec, storage)
        address = shown_url(storage).removeprefix("journal:")
        show.line(f"wrote the study {made.study_name} of {len(made.trials)} trials into {address}")
    show.line(f"next: optuna-dashboard {address}   (pip install optuna-dashboard)")


@app.command(rich_help_panel="Results")
@without_gc()
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
        bool | None,
        typer.Option(
            "--rows/--no-rows",
            help="The training rows, in the order of the sweep; by default where a format needs them.",
        ),
    ] = None,
    weights: Annotated[
        bool,
        typer.Option(
            "--weights",
            help="Also the trained weights: those kept by the sweep, or else trained again.",
        ),
    ] = False,
    allow_unaveraged: Annotated[
        bool,
        typer.Option(
            "--allow-unaveraged",
            help="Files that train an averaged configuration without its average, for commands that "
            "take no callbacks: `trl sft`, `llamafactory-cli train`.",
        ),
    ] = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Write the recommended hyperparameters as another trainer's files, or the trained weights."""
    written = open_run(run, judge, min_coverage).export(
        *(format_ or ()),
        out=out,
        config=config,
        world_size=world_size,
        micro_batch=micro_batch,
        rows=rows,
        weights=weights,
        allow_unaveraged=allow_unaveraged,
    )
    if written.unaveraged is not None:
        show.note(written.unaveraged)
    for name, why in written.left_out.items():
        show.line(f"left out {name}: {why}")
    for path in written.paths:
        show.line(f"wrote {path}")
    if written.comparison is not None:
        show.line(written.comparison)
    for command in _commands([path.name for path in written.paths]):
        show.line(f"run it in {written.paths[0].parent}: {command}")


def _commands(names: Sequence[str]) -> Iterator[str]:
    """How to run the exported files, by their names."""
    rows = next((name for name in names if name.endswith(".rows.jsonl")), "ROWS.jsonl")
    by_ending = {
        ".accelerate.yaml": "accelerate launch --config_file {} {stem}.trl.py --dataset_name {rows}",
        ".trl.py": "python {} --dataset_name {rows}",
        ".llamafactory.py": "python {}",
        ".axolotl.yaml": "PYTHONPATH=. axolotl train {}",
    }
    if not any(name.endswith(".llamafactory.py") for name in names):
        by_ending[".llamafactory.yaml"] = "llamafactory-cli train {}"
    for name in names:
        for ending, command in by_ending.items():
            if name.endswith(ending):
                quoted, stem = shlex.quote(name), shlex.quote(name.removesuffix(ending))
                yield command.format(quoted, stem=stem, rows=shlex.quote(rows))
