"""`sweeper logs`: the logs of a run's trials."""

import heapq
import time
from typing import Annotated

import typer

from sweeper.cli import completions, show
from sweeper.cli.commands import app
from sweeper.cli.options import RunArgument
from sweeper.errors import RunFolderError
from sweeper.store.folder import RunFolder
from sweeper.store.trial_log import LogLine, LogReader

POLL_SECONDS = 1.0
"""Seconds between the checks of `--follow` for new lines."""

NO_LOGS = (
    "no trial of {} has a log: none has started yet (`--follow` waits while the sweep runs), or an earlier "
    "version of sweeper, which wrote none, ran it"
)


@app.command(rich_help_panel="Sweeps")
def logs(
    run: RunArgument,
    trial: Annotated[
        str | None,
        typer.Argument(
            help="A trajectory id, or an unambiguous prefix of one; by default the latest trial.",
            autocompletion=completions.trials,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All trials, by time.")] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Print new lines while the sweep runs; of all trials unless TRIAL is given.",
        ),
    ] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Show the logs of a run's trials: losses, learning rates, speed, readouts, warnings, failures."""
    folder = RunFolder(run).open()
    every = all_ or (follow and trial is None)
    readers: dict[str, LogReader] = {}
    lines = _new_lines(folder, _trials(folder, trial, every), readers)
    if not lines and not follow:
        raise RunFolderError(NO_LOGS.format(run))
    for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
        _print(line, json_)
    while follow and folder.has_driver():
        time.sleep(POLL_SECONDS)
        for line in _new_lines(folder, _trials(folder, trial, every), readers):
            _print(line, json_)


def _trials(folder: RunFolder, trial: str | None, every: bool) -> list[str]:
    """The ids of the trials to show.

    Raises:
        RunFolderError: none or several ids start with the given text.
    """
    names = folder.trials_with_logs()
    if every:
        return names
    if trial is None:
        return names[-1:]
    matching = [trial] if trial in names else [name for name in names if name.startswith(trial)]
    if len(matching) == 1:
        return matching
    if not names:
        raise RunFolderError(NO_LOGS.format(folder.root))
    count = f"{len(matching)} trials" if matching else "no trial"
    raise RunFolderError(
        f"{count} with a log in {folder.root} begin{'' if matching else 's'} with `{trial}`; give a "
        f"trajectory id, such as {', '.join((matching or names)[-5:])}, or leave it out for the latest"
    )


def _new_lines(
    folder: RunFolder, trials: list[str], readers: dict[str, LogReader]
) -> list[LogLine]:
    """New log lines of these trials since the last call, by time."""
    for name in trials:
        readers.setdefault(name, LogReader(folder.trial(name)))
    return list(heapq.merge(*(readers[name].new_lines() for name in trials), key=_time))


def _time(line: LogLine) -> float:
    return line.time


def _print(line: LogLine, json_: bool) -> None:
    if json_:
        show.json_text(line.to_json())
    else:
        show.line(str(line))
