"""Commands that plan, train and retrain."""

import contextlib
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.cli import interrupts, plan_tables, show
from sweeper.cli.beside import live_page
from sweeper.cli.commands import app
from sweeper.cli.options import JsonOption, RunArgument, SetOption, SpecArgument, open_run
from sweeper.cli.outcome import outcome
from sweeper.data.load import unread_data
from sweeper.errors import SweeperError
from sweeper.estimate import saved
from sweeper.estimate.epochs import count_epoch_rows, epochs_text
from sweeper.estimate.inputs import on_gpus, this_machine
from sweeper.planning import Plan, make_tasks
from sweeper.runs.measure import run_to_end
from sweeper.runs.progress import SweepProgress
from sweeper.runs.status import TrialsNow
from sweeper.search.refine import refinement_rows
from sweeper.spec import SweepSpec, load_spec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import RecordsRead, read_records
from sweeper.sweep.disk import free_disk_bytes

if TYPE_CHECKING:  # They need pandas and torch.
    from sweeper.runs.plans import Plan as PlanResult
    from sweeper.sweep.verify import Verification


BUDGET_ENDED = 3
"""The exit code of a run that its budget ended."""


@app.command(rich_help_panel="Before a sweep")
def plan(
    spec: SpecArgument,
    set_: SetOption = None,
    json_: JsonOption = False,
    tasks: Annotated[
        Path | None, typer.Option(help="Also write one task file per trajectory into this folder.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Measure for about a minute instead of estimating from sizes.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; as many as this machine runs.")
    ] = None,
) -> None:
    """Show what a sweep will train, what sharing saves, and what it will cost, without running it."""
    from sweeper.runs.plans import plan as lay_out  # It needs pandas.

    loaded = count_epoch_rows(load_spec(spec, set_ or ()))
    found = lay_out(loaded, workers=workers, calibrate=calibrate)
    if tasks is not None:
        from sweeper.data.sources import resolve

        RunFolder(tasks).create()
        for task in make_tasks(found.plan, loaded, resolve):
            write_atomic(tasks / f"{task.trajectory_id}.json", task.to_json())
    if json_:
        show.data(found.output)
        return
    _show_plan(loaded, found)


def _show_plan(loaded: SweepSpec, found: "PlanResult", order: bool = False) -> None:
    """A plan for people; with `order`, also what starts when where there is no budget."""
    plan_tables.accounting(loaded.name, found.accounting)
    if (epochs := epochs_text(loaded)) is not None:
        show.line(epochs)
    if found.rows is not None:
        plan_tables.rows(found.rows, unread_data(loaded.data, loaded.evaluation))
    if (cost := found.estimate) is None:
        show.line(f"no estimate: {found.estimate_missing}")
    else:
        plan_tables.estimate(cost, on_gpus(found.plan, loaded, cost.tokens, this_machine()))
    if found.decision is not None:
        plan_tables.decision_cost(found.decision, found.accounting.steps_planned)
    if found.disk is not None:
        plan_tables.disk(found.disk, found.free_bytes, loaded.compute.disk_quota_gib)
    if found.budget is not None or order:
        plan_tables.forecast(found.budget or found.forecast())


@app.command(rich_help_panel="Sweeps")
def run(
    spec: SpecArgument,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; runs/NAME where not given.")
    ] = None,
    set_: SetOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an earlier run in the folder first.")
    ] = False,
    memory_check: Annotated[
        bool,
        typer.Option(help="Reject a sweep that does not fit this machine's GPUs by the estimate."),
    ] = True,
    disk_check: Annotated[
        bool, typer.Option(help="Reject a sweep that does not fit the disk by the estimate.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its order; run nothing.")
    ] = False,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Also serve its live page, until the run ends; `sweeper serve` shows it again.",
        ),
    ] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="Serve its live page and open it in the browser.")
    ] = False,
) -> None:
    """Run a sweep on Ray, or continue it after any interruption with the same command."""
    loaded = count_epoch_rows(load_spec(spec, set_ or ()))
    if dry_run:
        from sweeper.runs.plans import plan as lay_out  # It needs pandas.

        _show_plan(loaded, lay_out(loaded), order=True)
        return
    folder = RunFolder(out or Path("runs") / loaded.name)
    builds = ", and building the miniature (a minute, once)" if _is_builtin(loaded) else ""
    show.line(f"checking model, data and {folder.root}{builds}")
    page = live_page(folder.root, open_) if serve or open_ else contextlib.nullcontext()
    progress = SweepProgress(loaded, show.err, show.out, doing=partial(_doing, TrialsNow(folder)))
    with interrupts.resumable(folder), page, progress as shown:
        decision = run_to_end(
            loaded,
            folder.root,
            shown,
            overwrite=overwrite,
            memory_check=memory_check,
            disk_check=disk_check,
            on_rows=lambda rows: plan_tables.rows(
                rows, unread_data(loaded.data, loaded.evaluation)
            ),
            on_disk_need=lambda need: plan_tables.disk(
                need, free_disk_bytes(folder.root), loaded.compute.disk_quota_gib
            ),
            on_plan=lambda plan, found: begin(shown, plan, found),
        )
    records = read_records(folder.records).records
    show.line(f"{len(records)} records in {folder.records}")
    if (less := saved(records)) is not None:
        show.line(f"stopped early: {less.text}")
    _refined(folder, loaded)
    outcome(decision)
    commands = (shlex.join(["sweeper", name, str(folder.root)]) for name in ("front", "report"))
    show.line(f"next: {'; '.join(commands)}")
    failed = sum(record.status == "failed" for record in records)
    if failed:
        show.error(
            f"{failed} of {len(records)} records are `failed`; the report says why. Once the cause is "
            f"fixed, remove their lines from {folder.records} and run the same command to measure them"
        )
        raise typer.Exit(1)
    if shown.budget is not None:
        raise typer.Exit(BUDGET_ENDED)


def _doing(trials: TrialsNow) -> list[str]:
    """A line for each running trial; none while the folder cannot be read."""
    try:
        return [trial.text for trial in trials.read()]
    except SweeperError:
        return []


def begin(progress: SweepProgress, plan: Plan, found: RecordsRead) -> None:
    """Print the plan, and start counting."""
    plan_tables.accounting(progress.spec.name, plan.accounting)
    if (epochs := epochs_text(progress.spec)) is not None:
        show.line(epochs)
    progress.begin(plan, found)


def _refined(folder: RunFolder, spec: SweepSpec) -> None:
    """The effect of further seeds, in a line."""
    rows = refinement_rows(folder, spec, read_records(folder.records).records)
    if rows:
        first, last = rows[0], rows[-1]
        show.line(
            f"further seeds, the would-be choice first: {last.spent:,} optimizer steps in "
            f"{len(rows) - 1} rounds; "
            f"undecided {first.state.undecided} -> {last.state.undecided}, on the front "
            f"{first.state.on} -> {last.state.on}, off it {first.state.off} -> {last.state.off}"
        )


def _is_builtin(spec: SweepSpec) -> bool:
    return spec.model.path.startswith("builtin:")


@app.command(rich_help_panel="Sweeps")
def trial(
    task: Annotated[Path, typer.Argument(help="A task file, from `sweeper plan --tasks`.")],
    out: Annotated[Path, typer.Option(help="The output folder; an interrupted trial continues.")],
) -> None:
    """Run one trajectory in this process, without Ray, and print one record per line."""
    from sweeper.scoring.inputs import preflight
    from sweeper.task import TrajectoryTask
    from sweeper.trial.run import run_trajectory

    loaded = TrajectoryTask.read(task)
    folder = RunFolder(out)
    folder.create()
    preflight(loaded)
    failed = False
    for record in run_trajectory(loaded, folder.trial(loaded.trajectory_id)):
        show.json_text(record.to_json())
        failed |= record.status == "failed"
    if failed:
        raise typer.Exit(1)


@app.command(rich_help_panel="Sweeps")
def verify(
    run: RunArgument,
    sample: Annotated[int, typer.Option(min=1, help="How many configurations to retrain.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the random choice.")] = 0,
) -> None:
    """Retrain configurations alone and check that the results equal the sweep's, bit for bit."""
    from sweeper.sweep.verify import verify as run_verification

    opened = open_run(run)
    found = list(run_verification(opened.folder, opened.spec, sample, seed))
    print_verifications(found)
    if not all(item.holds for item in found):
        raise typer.Exit(1)


def print_verifications(found: Sequence["Verification"]) -> None:
    """The results of `verify`, one line per configuration and a summary."""
    for item in found:
        marks = {
            "weights bit-equal": item.bit_equal,
            "responses equal": item.responses_equal,
            "verdicts equal": item.verdicts_equal,
        }
        shown = ", ".join(f"{name}: {'yes' if held else 'NO'}" for name, held in marks.items())
        failure = f"; retraining failed: {item.failure}" if item.failure else ""
        packed = f", trained in a pack with {item.packed_with} others" if item.packed_with else ""
        show.line(
            f"{item.config_id} seed {item.seed} {item.label} step {item.step} "
            f"(shared its path with {item.shared_with}{packed}): {shown}, "
            f"largest metric difference {item.difference:.1g}{failure}"
        )
    equal = sum(item.bit_equal for item in found)
    verdicts = sum(item.verdicts_equal for item in found)
    held = sum(item.holds for item in found)
    show.line(
        f"{equal} of {len(found)} bit-equal, {verdicts} of {len(found)} with equal verdicts, "
        f"{held} of {len(found)} as promised"
    )
