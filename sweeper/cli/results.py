"""Commands that show and export the results of a run: front, report, study, files of other trainers."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sweeper import analysis
from sweeper.analysis import (
    CANDIDATE_ROLE,
    OFF,
    ON,
    Candidate,
    Certainty,
    Volume,
    bounds_text,
    shown,
    varying,
)
from sweeper.cli import show
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
from sweeper.metrics import SAFETY_METRICS
from sweeper.runs.outputs import uncertain_others
from sweeper.runs.value_texts import objectives_text, value_text
from sweeper.spec import SweepSpec

if TYPE_CHECKING:  # It needs pandas.
    from sweeper.runs.results import Front

MOST_OTHERS = 10
"""The most listed configurations that may be on the front, but are not by their estimates."""


@app.command(rich_help_panel="Results")
@without_gc()
def front(
    run: RunArgument,
    json_: JsonOption = False,
    judge: JudgeOption = None,
    min_coverage: CoverageOption = MIN_COVERAGE,
) -> None:
    """Show the Pareto front: the configurations that no other one dominates in safety and utility."""
    opened = open_run(run, judge, min_coverage)
    found = opened.front()
    if json_:
        show.data(found.output)
    else:
        print_front(found)
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
            "--external-plotly", help="plotly.js (4.8 MB) as a file beside the page, not inside it."
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
    if written.data.found:
        by = f" --judge {shlex.quote(judge)}" if judge else ""
        show.line(f"next: sweeper export {shlex.quote(str(run))}{by} --format trl --rows")


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
        bool, typer.Option("--rows", help="Also the training rows, in the order of the sweep.")
    ] = False,
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


def print_front(result: "Front") -> None:
    """The front, best utility first, then configurations that may be on it, most probable first."""
    found, certainty, spec = result.analysis, result.certainty, result.spec
    names = varying(found.candidates, CANDIDATE_ROLE)
    title = f"Pareto front; P(front) of {certainty.about}"
    table = Table(title=title, title_justify="left")
    table.add_column("configuration")
    for name in names:
        table.add_column(name, justify="right")
    for objective in spec.objectives:
        table.add_column(objective.metric, justify="right")
    table.add_column("95 % interval", justify="right")
    for name in ("estimate", "P(front)", "membership"):
        table.add_column(name, justify="right")
    others = uncertain_others(found, certainty)
    for item in found.members:
        table.add_row(*_cells(item, names, certainty, spec))
    if found.members:
        table.add_section()
    for item in others[:MOST_OTHERS]:
        table.add_row(*_cells(item, names, certainty, spec))
    show.fit(table)
    for text in _lines(found, certainty, len(others)):
        show.line(text)
    if found.base is not None:
        show.line(f"untouched base model: {objectives_text(found.base, spec)}")


def _cells(
    candidate: Candidate, names: Sequence[str], certainty: Certainty, spec: SweepSpec
) -> list[str]:
    config = [shown(candidate.config[name]) for name in names]
    values = [value_text(candidate, objective.metric) for objective in spec.objectives]
    safety = next(o.metric for o in spec.objectives if o.metric in SAFETY_METRICS)
    interval = candidate.interval(safety)
    inside = "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
    membership = certainty.memberships[candidate.config_id]
    between = bounds_text(membership.p_front, membership.p_front_upper)
    place = ["on" if membership.on_front else "off", between, membership.label]
    return [escape(cell) for cell in (candidate.config_id, *config, *values, inside, *place)]


def _lines(found: analysis.Front, certainty: Certainty, others: int) -> list[str]:
    lines = [
        f"{len(found.members)} on the front, of {len(found.competing)} complete configurations, by their "
        f"estimates; {len(found.trade_off)} on the trade-off curve without the constraints"
    ]
    if certainty.memberships:
        lines.append(
            f"by P(front): {certainty.count('on')} on (at least {ON:g} against all others together), "
            f"{certainty.count('uncertain')} uncertain, {certainty.count('off')} off (below {OFF:g} "
            f"against one other alone); {certainty.draws} draws"
        )
    if others > MOST_OTHERS:
        lines.append(f"{others - MOST_OTHERS} more that may be on the front are not listed")
    if certainty.hypervolume is not None:
        lines.append(volume_text(certainty.hypervolume))
    return [*lines, *(f"note: {note}" for note in certainty.notes)]


def volume_text(volume: Volume) -> str:
    """`hypervolume 0.041 (95 % interval 0.038 to 0.043) up to rouge_l 0, unsafe_rate 0.05`."""
    low, high = volume.interval
    corner = ", ".join(f"{name} {value:.4g}" for name, value in volume.reference.items())
    return (
        f"hypervolume {volume.value:.4g} (95 % interval {low:.4g} to {high:.4g}), "
        f"reference point {corner}"
    )
