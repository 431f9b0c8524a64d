"""The application and its list of commands; the module of a command is imported when it is called.

`sweeper --help` and the completion of a command's name thus import nothing of what the commands do.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from sweeper.cli import show
from sweeper.cli.examples import add_examples


class Listed(NamedTuple):
    """A command as `sweeper --help` lists it: its module in `sweeper.cli`, its panel, its summary."""

    module: str
    panel: str
    summary: str


COMMANDS: dict[str, Listed] = {
    "doctor": Listed(
        "machine",
        "Before a sweep",
        "Check whether this machine can run a sweep: exit code 1 if not, 2 if a node of a cluster differs.",
    ),
    "init": Listed(
        "machine",
        "Before a sweep",
        "Write a commented sweep file for your model and rows, and show its plan.",
    ),
    "prefetch": Listed(
        "machine",
        "Before a sweep",
        "Download and check a sweep's model, data and suites, for nodes without a network.",
    ),
    "plan": Listed(
        "sweeps",
        "Before a sweep",
        "Show what a sweep will train, what sharing saves, and what it will cost, without running it.",
    ),
    "run": Listed(
        "sweeps",
        "Sweeps",
        "Run a sweep on Ray, or continue it after any interruption with the same command.",
    ),
    "status": Listed(
        "control",
        "Sweeps",
        "Show what a run is doing: records done of planned, failures, time left, and its trials.",
    ),
    "stop": Listed(
        "control",
        "Sweeps",
        "Stop a running sweep on this machine, or its cluster job, like Ctrl-C; `resume` continues it.",
    ),
    "resume": Listed(
        "control",
        "Sweeps",
        "Continue the run in a folder, with the settings it was started with.",
    ),
    "launch": Listed(
        "launching",
        "Sweeps",
        "Launch a sweep on a cluster: write its job into RUN/launch and submit it.",
    ),
    "logs": Listed(
        "logs",
        "Sweeps",
        "Show the logs of a run's trials: losses, learning rates, speed, readouts, warnings, failures.",
    ),
    "verify": Listed(
        "sweeps",
        "Sweeps",
        "Retrain configurations alone and check that the results equal the sweep's, bit for bit.",
    ),
    "trial": Listed(
        "sweeps",
        "Sweeps",
        "Run one trajectory in this process, without Ray, and print one record per line.",
    ),
    "import": Listed(
        "importing",
        "Results",
        "Make a run of what another tool measured, to read like one of sweeper's.",
    ),
    "front": Listed(
        "results",
        "Results",
        "Show the Pareto front: the configurations that no other one dominates in safety and utility.",
    ),
    "recommend": Listed(
        "recommending",
        "Results",
        "Recommend one configuration under a policy, with its controls and how certain it is.",
    ),
    "show": Listed(
        "details",
        "Results",
        "Show one configuration: hyperparameters, metrics by seed, constraints and controls.",
    ),
    "compare": Listed(
        "details",
        "Results",
        "Compare 2 to 4 configurations: what differs, and paired tests of each against the first.",
    ),
    "report": Listed("results", "Results", "Write the report: one HTML page that works offline."),
    "open": Listed(
        "control",
        "Results",
        "Open the report of a run in the browser; it is written first where it is missing or out of date.",
    ),
    "serve": Listed(
        "machine", "Results", "Serve live reports of runs in the browser. Stop with Ctrl-C."
    ),
    "export": Listed(
        "results",
        "Results",
        "Write the recommended hyperparameters as another trainer's files, or the trained weights.",
    ),
    "export-study": Listed(
        "results",
        "Results",
        "Bring the Optuna study of a run up to date, or copy it to a database, and say how to open it.",
    ),
    "judges": Listed("judging", "Judges", "How well keyword lists agree with people."),
    "rescore": Listed(
        "judging",
        "Judges",
        "Judge the stored responses of a run again; without --judge, show the judges of the run.",
    ),
    "ls": Listed(
        "listing",
        "Run folders",
        "List the runs in a folder: progress, front, recommendation, size.",
    ),
    "clean": Listed(
        "machine",
        "Run folders",
        "List files of a run that can be deleted, and delete them with --yes. Records are never deleted.",
    ),
    "migrate": Listed(
        "machine",
        "Run folders",
        "Convert a run folder of an earlier version; without --write, only show what would change.",
    ),
    "schema": Listed("schema", "Run folders", "Print the JSON schema of what `--json` prints."),
}
"""All commands, in the order of use."""


class CommandGroup(TyperGroup):
    """Lists commands from `COMMANDS`, and imports the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        imported = self.commands
        self.commands = {name: imported.get(name) or _entry(name) for name in COMMANDS}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """See `typer.core.TyperGroup`."""
        if args and args[0] in COMMANDS:
            if args[0] == "run" and show.err.is_terminal:  # What it imports takes a while.
                show.note("preparing: reading the sweep file")
            _register(COMMANDS[args[0]].module)
            self.commands = get_group(app).commands
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="sweeper",
    cls=CommandGroup,
    help="Sweep fine-tuning hyperparameters for safety and utility at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def all_commands() -> TyperGroup:
    """The application with every command imported."""
    for listed in COMMANDS.values():
        _register(listed.module)
    return get_group(app)


def _register(module: str) -> None:
    """Import a module, which gives the application its commands."""
    with without_gc(), _numpy_on_one_thread():
        import_module(f"sweeper.cli.{module}")
    add_examples(app)


def _entry(name: str) -> TyperCommand:
    """What the list shows of a command that is not imported."""
    _, panel, summary = COMMANDS[name]
    return TyperCommand(name, help=summary, rich_help_panel=panel)


@contextmanager
def without_gc() -> Iterator[None]:
    """Disables the cyclic garbage collector.

    Imported modules and records live until the command ends; scanning them again and again would take a
    tenth of the time of an import, and a third of that of a report on ten thousand records.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _numpy_on_one_thread() -> Iterator[None]:
    """numpy, where imported inside, multiplies on one thread; a user's own setting stands.

    Its products are small here: threads gain nothing, and spin while they wait for each other. The
    variable is removed again, so that workers and torch do not inherit it.
    """
    name = "OPENBLAS_NUM_THREADS"
    added = name not in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if added:
            del os.environ[name]
