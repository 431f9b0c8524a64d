"""Commands that plan, train and retrain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import progress, show
from sweeper.cli.options import JsonOption, RunArgument, SetOption, SpecArgument, app
from sweeper.errors import SweeperError
from sweeper.estimate import DiskNeed, Estimate, Tokens, disk_data, saved
from sweeper.estimate.inputs import on_gpus, plan_disk, plan_estimate, planned_tokens, this_machine
from sweeper.planning import Plan, make_plan, make_tasks
from sweeper.search.refine import refinement_rows
from sweeper.spec import SweepSpec, load_spec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import read_records
from sweeper.sweep.disk import free_bytes


@app.command()
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
    """Show what a sweep will train, what sharing saves, and what it will cost. No sweep is run."""
    loaded = load_spec(spec, set_ or ())
    made = make_plan(loaded)
    if tasks is not None:
        from sweeper.data.sources import resolve

        RunFolder(tasks).create()
        for task in make_tasks(made, loaded, resolve):
            write_atomic(tasks / f"{task.trajectory_id}.json", task.to_json())
    tokens: Tokens | str
    cost: Estimate | str
    if calibrate:
        cost = _calibrated(made, loaded, workers)
        tokens = cost.tokens
    else:
        tokens = _tokens(made, loaded)
        cost = _analytic(made, loaded, workers, tokens)
    rows = None if isinstance(tokens, str) else tokens.rows
    need = _disk(made, loaded, workers, tokens)
    free = free_bytes(Path("runs") / loaded.name)
    if json_:
        show.data({**_plan_data(made, cost, rows), "disk": disk_data(need, free)})
        return
    show.accounting(loaded.name, made.accounting)
    if rows is not None:
        show.rows(rows)
    if isinstance(cost, str):
        show.line(f"no estimate: {cost}")
    else:
        show.estimate(cost, on_gpus(made, loaded, cost.tokens, this_machine()))
    if need is not None:
        show.disk(need, free, loaded.compute.disk_quota_gib)


def _disk(
    made: Plan, spec: SweepSpec, workers: int | None, tokens: Tokens | str
) -> DiskNeed | None:
    """What the sweep needs on disk, or None where too little is known."""
    try:
        return None if isinstance(tokens, str) else plan_disk(made, spec, tokens, workers)
    except SweeperError:
        return None


def _tokens(made: Plan, spec: SweepSpec) -> Tokens | str:
    """What the data holds, or why it cannot be read: a plan is worth showing without."""
    try:
        return planned_tokens(made, spec)
    except SweeperError as error:
        return str(error)


def _analytic(
    made: Plan, spec: SweepSpec, workers: int | None, tokens: Tokens | str
) -> Estimate | str:
    """The estimate, or what is missing for it."""
    if isinstance(tokens, str):
        return tokens
    try:
        return plan_estimate(made, spec, workers=workers, tokens=tokens)
    except SweeperError as error:
        return str(error)


def _calibrated(made: Plan, spec: SweepSpec, workers: int | None) -> Estimate:
    """The estimate from rates measured now; what it needs and cannot have is an error."""
    from sweeper.data.sources import resolve
    from sweeper.estimate.measured_rates import calibrated_estimate

    return calibrated_estimate(made, spec, resolve, workers)


def _plan_data(
    made: Plan, cost: Estimate | str, rows: Mapping[str, int] | None
) -> dict[str, object]:
    missing = isinstance(cost, str)
    return {
        **made.accounting._asdict(),
        "rows": rows,
        "estimate": None if isinstance(cost, str) else cost.to_data(),
        "estimate_missing": cost if missing else None,
        "trajectory_list": [
            {
                "trajectory_id": item.trajectory_id,
                "seed": item.seed,
                "optimizer_steps": item.steps,
                "configurations": [
                    {"config_id": c.config_id, "role": c.role, "config": dict(c.values)}
                    for c in item.configurations
                ],
            }
            for item in made.trajectories
        ],
    }


@app.command()
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
        bool, typer.Option(help="Refuse what does not fit this machine's GPUs by the estimate.")
    ] = True,
    disk_check: Annotated[
        bool, typer.Option(help="Refuse what does not fit the disk by the estimate.")
    ] = True,
) -> None:
    """Run a sweep on Ray, or continue it after any interruption with the same command."""
    from sweeper.sweep.run import SweepCallbacks, SweepOptions, run_sweep

    loaded = load_spec(spec, set_ or ())
    folder = RunFolder(out or Path("runs") / loaded.name)
    builds = ", and building the miniature (a minute, once)" if _is_builtin(loaded) else ""
    show.line(f"checking model, data and {folder.root}{builds}")
    with progress.resumable(folder), progress.SweepProgress(loaded) as shown:
        ended = run_sweep(
            loaded,
            folder.root,
            SweepOptions(overwrite=overwrite, memory_check=memory_check, disk_check=disk_check),
            SweepCallbacks(
                on_rows=show.rows,
                on_disk_need=lambda need: show.disk(
                    need, free_bytes(folder.root), loaded.compute.disk_quota_gib
                ),
                on_plan=shown.begin,
                on_record=shown.record,
            ),
        )
    records = read_records(folder.records).records
    if not ended.completed or ended.keys - {record.key for record in records}:
        progress.interrupted(folder)
    show.line(f"{len(records)} records in {folder.records}")
    if (less := saved(records)) is not None:
        show.line(f"stopped early: {less.text}")
    _refined(folder, loaded)
    show.line(f"next: sweeper front {folder.root}; sweeper report {folder.root}")
    failed = sum(record.status == "failed" for record in records)
    if failed:
        show.error(
            f"{failed} of {len(records)} records are `failed`; the report says why. Once the cause is "
            f"mended, remove their lines from {folder.records}: the same command measures them again"
        )
        raise typer.Exit(1)


def _refined(folder: RunFolder, spec: SweepSpec) -> None:
    """What further seeds have decided, in a line."""
    rows = refinement_rows(folder, spec, read_records(folder.records).records)
    if rows:
        first, last = rows[0], rows[-1]
        show.line(
            f"further seeds for the undecided: {last.spent:,} optimizer steps in {len(rows) - 1} rounds; "
            f"undecided {first.state.undecided} -> {last.state.undecided}, on the front "
            f"{first.state.on} -> {last.state.on}, off it {first.state.off} -> {last.state.off}"
        )


def _is_builtin(spec: SweepSpec) -> bool:
    return spec.model.path.startswith("builtin:")


@app.command()
def trial(
    task: Annotated[Path, typer.Argument(help="A task file, from `sweeper plan --tasks`.")],
    out: Annotated[Path, typer.Option(help="Where to work and write; continued if begun.")],
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


@app.command()
def verify(
    run: RunArgument,
    sample: Annotated[int, typer.Option(min=1, help="How many configurations to retrain.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the random choice.")] = 0,
) -> None:
    """Retrain configurations alone and check that they equal what the sweep recorded, bit for bit."""
    from sweeper.runs.run import open_run
    from sweeper.runs.verify import verify as run_verification

    opened = open_run(run)
    found = []
    for item in run_verification(opened.folder, opened.spec, sample, seed):
        found.append(item)
    show.verifications(found)
    if not all(item.holds for item in found):
        raise typer.Exit(1)
