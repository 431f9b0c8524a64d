"""Commands on a run by its folder: what it does now, stop it, continue it, open its report."""

import shlex
import time
import webbrowser
from typing import Annotated

import typer

from sweeper.analysis import SAFEST_USEFUL
from sweeper.cli import show
from sweeper.cli.commands import app, without_gc
from sweeper.cli.options import JsonOption, RunArgument, open_run
from sweeper.errors import RunFolderError
from sweeper.estimate import duration_text
from sweeper.launch import last_job
from sweeper.runs.command_outputs import StatusOutput
from sweeper.runs.counts import decision_counts, left_to_do
from sweeper.runs.status import run_status
from sweeper.runs.stopping import stop_driver, stop_path, stopped_path_text
from sweeper.store.folder import RunFolder

STOP_SECONDS = 60.0
"""How long `stop` waits for the driver to end."""

POLL_SECONDS = 0.2


@app.command(rich_help_panel="Sweeps")
@without_gc()
def status(run: RunArgument, json_: JsonOption = False) -> None:
    """Show what a run is doing: records done of planned, failures, time left, and its trials."""
    folder = RunFolder(run)
    if not json_ and not folder.info.exists() and _show_job(folder):
        return
    found = run_status(folder.open())
    if json_:
        show.data(StatusOutput.of(found))
        return
    driver = f" (process {found.process} on {found.host})" if found.process is not None else ""
    left_over = f": {found.left}" if found.left else ""
    show.line(f"{folder.root}: {found.state}{driver}{left_over}")
    search, decision = found.search, found.decision
    show.line(f"search: {search.records} of {search.planned} records, {search.failed} failed")
    if decision is not None:
        done = f"{decision.records} of {decision.planned} records of this round"
        show.line(f"decision: {done}, {decision.failed} failed")
    if found.cost is None:
        if found.state != "finished":
            _show_job(folder)
        show.line(_next("open" if found.state == "finished" else "resume", folder))
        return
    left = found.seconds_left
    show.line("time left: not known yet" if left is None else f"about {duration_text(left)} left")
    show.line(f"cost of the search so far: {found.cost.text}")
    for trial in found.trials:
        show.line(trial.text)


@app.command(rich_help_panel="Sweeps")
def stop(
    run: RunArgument,
    path: Annotated[
        str | None,
        typer.Option(help="Stop only this configuration or path, by its id, for good."),
    ] = None,
) -> None:
    """Stop a running sweep on this machine, or its cluster job, like Ctrl-C; `resume` continues it."""
    folder = RunFolder(run)
    if path is not None:
        show.line(stopped_path_text(stop_path(folder.open(), path)))
        return
    job = last_job(folder.launch)
    driven = folder.has_driver()
    if job is not None and job.cancel(only_waiting=driven):
        show.line(f"{job.title} is cancelled; `sweeper launch` continues the run")
        if not driven:
            return
    if job is not None and not folder.info.exists() and (state := job.state()):
        raise RunFolderError(
            f"{job.title} of {folder.root} was not stopped; it is: {state}",
            code="run.not_running",
            path=folder.root,
        )
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
    from sweeper.cli.recommending import decide
    from sweeper.cli.sweeps import run as run_command

    folder = RunFolder(run).open()
    run_command(str(folder.spec), out=run)
    opened = open_run(run)  # `run` leaves a decision alone that the sweep leaves out.
    begun = not opened.spec.decide and decision_counts(folder) is not None
    if begun and left_to_do(folder, opened.spec, opened.records):
        decide(opened, SAFEST_USEFUL, None, None, quiet=False)


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


def _show_job(folder: RunFolder) -> bool:
    """The job of a launch, where there is one that its cluster knows."""
    job = last_job(folder.launch)
    state = None if job is None else job.state()
    if job is None or not state:
        return False
    show.line(f"{folder.root}: {job.title}: {state}; its log: {job.log}")
    return True


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
