"""Commands on a run by its folder: what it does now, stop it, continue it, open its report."""

import shlex
import time
import webbrowser
from collections.abc import Iterator
from typing import Annotated

import typer

from sweeper.analysis import SAFEST_USEFUL
from sweeper.cli import show
from sweeper.cli.commands import app, without_gc
from sweeper.cli.options import RunArgument, open_run
from sweeper.estimate import duration_text
from sweeper.launch import last_job
from sweeper.runs.cost_so_far import cost_so_far
from sweeper.runs.stopping import stop_driver
from sweeper.runs.time_left import run_seconds_left
from sweeper.store.folder import RunFolder
from sweeper.store.lock import Holder
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.store.records import read_records
from sweeper.sweep.decision import stage_folder

STOP_SECONDS = 60.0
"""How long `stop` waits for the driver to end."""

POLL_SECONDS = 0.2

DOING = {
    "load": "loading",
    "train": "training",
    "checkpoint": "writing a checkpoint",
    "evaluate": "scoring",
}
"""A stage of a trial in words."""


@app.command(rich_help_panel="Sweeps")
@without_gc()
def status(run: RunArgument) -> None:
    """Show what a run is doing: records done of planned, failures, time left, and its trials."""
    folder = RunFolder(run)
    if not folder.info.exists() and _show_slurm_job(folder):
        return
    folder.open()
    stage = stage_folder(folder, SAFEST_USEFUL)
    holder, driven = Holder.read(folder.lock), folder.has_driver()
    done, planned, failed = _counts(folder)
    state = "finished" if done >= planned else "not finished"
    if driven:
        state = (
            f"running{'' if holder is None else f' (process {holder.process} on {holder.host})'}"
        )
    show.line(f"{folder.root}: {state}")
    show.line(f"search: {done} of {planned} records, {failed} failed")
    if stage.info.exists():
        done, planned, failed = _counts(stage)
        show.line(f"decision: {done} of {planned} records of this round, {failed} failed")
    if not driven:
        if state != "finished":
            _show_slurm_job(folder)
        show.line(_next("open" if state == "finished" else "resume", folder))
        return
    opened = open_run(run)
    left = run_seconds_left(folder, opened.spec, time.time())
    show.line("time left: not known yet" if left is None else f"about {duration_text(left)} left")
    cost = cost_so_far(opened.records, opened.estimate, opened.spec)
    show.line(f"cost of the search so far: {cost.text}")
    for item in _running(stage if stage.has_driver() else folder):
        show.line(
            f"trial {item.trajectory_id}: {DOING[item.stage]}, step {item.step} of {item.steps}"
        )


@app.command(rich_help_panel="Sweeps")
def stop(run: RunArgument) -> None:
    """Stop a running sweep on this machine, or its Slurm job, like Ctrl-C; `resume` continues it."""
    folder = RunFolder(run)
    job = last_job(folder.launch)
    driven = folder.has_driver()
    if job is not None and job.cancel(only_waiting=driven):
        show.line(f"Slurm job {job.id} is cancelled; `sweeper launch` continues the run")
        if not driven:
            return
    folder.open()
    show.line(f"stopping process {stop_driver(folder)}; finished results are saved")
    until = time.monotonic() + STOP_SECONDS
    while folder.has_driver():
        if time.monotonic() > until:
            show.line("it is still writing checkpoints; `sweeper status` says when it has ended")
            return
        time.sleep(POLL_SECONDS)
    show.line(f"stopped; {_next('resume', folder)}")


@app.command(rich_help_panel="Sweeps")
def resume(run: RunArgument) -> None:
    """Continue the run in a folder, with the settings it was started with."""
    from sweeper.cli.sweeps import run as run_command

    folder = RunFolder(run).open()
    run_command(str(folder.spec), out=run)


@app.command("open", rich_help_panel="Results")
def open_report(
    run: RunArgument,
    browser: Annotated[
        bool, typer.Option(help="Open it; with --no-browser, only print its path.")
    ] = True,
) -> None:
    """Open the report of a run in the browser; it is written first where it is missing or out of date."""
    folder = RunFolder(run).open()
    if not _is_current(folder):
        with without_gc():
            open_run(run).report()
    path = folder.report.resolve()
    show.line(str(path))
    if browser and not webbrowser.open(path.as_uri()):
        show.note("no browser was found here: open the file in one")


def _next(command: str, folder: RunFolder) -> str:
    return f"next: {shlex.join(['sweeper', command, str(folder.root)])}"


def _show_slurm_job(folder: RunFolder) -> bool:
    """The job of a launch that waits or runs, where there is one that Slurm knows here."""
    job = last_job(folder.launch)
    state = None if job is None else job.state()
    if job is None or not state:
        return False
    show.line(f"{folder.root}: Slurm job {job.id}: {state}; its log: {job.log}")
    return True


def _counts(folder: RunFolder) -> tuple[int, int, int]:
    """Records there are, planned, and failed."""
    records = read_records(folder.records).records
    failed = sum(record.status == "failed" for record in records)
    return len(records), folder.planned_records(), failed


def _running(folder: RunFolder) -> Iterator[TrajectoryProgress]:
    """The trials that have started and not ended."""
    for path in sorted(folder.trajectories.glob("*/progress.json")):
        found = read_trajectory(path)
        if found is not None and found.running:
            yield found


def _is_current(folder: RunFolder) -> bool:
    """Whether the report is newer than all it is made of."""
    sources = (
        folder.records,
        folder.spec,
        folder.judgements,
        *folder.confirm.rglob("records.jsonl"),
    )
    try:
        written = folder.report.stat().st_mtime_ns
    except FileNotFoundError:
        return False
    return all(path.stat().st_mtime_ns <= written for path in sources if path.exists())
