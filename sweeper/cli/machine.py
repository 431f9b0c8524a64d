"""Commands around a sweep: doctor, prefetch, clean, migrate and serve."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import plan_tables, show
from sweeper.cli.commands import app
from sweeper.cli.options import JsonOption, RunArgument, SetOption, SpecArgument, open_run
from sweeper.data.load import unread_data
from sweeper.errors import SweeperError
from sweeper.runs.clean import clean as delete
from sweeper.runs.clean import leftovers
from sweeper.runs.command_outputs import (
    CheckModel,
    CleanOutput,
    DoctorOutput,
    FetchedModel,
    InitOutput,
    LeftoverModel,
    NodeModel,
    PrefetchOutput,
)
from sweeper.runs.migrate import migrate as bring_up
from sweeper.setup.doctor import Check, Node, examine
from sweeper.spec import load_spec
from sweeper.store.folder import RUN_VERSION, RunFolder

COLUMNS = ("prompt", "completion", "system")
"""What a column of training rows can hold."""


@app.command(rich_help_panel="Before a sweep")
def doctor(
    out: Annotated[Path, typer.Option(help="Where runs are to be written.")] = Path("runs"),
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster, every node of which is checked, too.")
    ] = None,
    spec: Annotated[
        str | None,
        typer.Option(help="With --address: a sweep file whose model and data every node must see."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check whether this machine can run a sweep: exit code 1 if not, 2 if a node of a cluster differs."""
    found = examine(out, address)
    problems = [check for check in found if check.state == "problem"]
    nodes = _nodes(out, address, spec, found)
    differ = [node for node in nodes if node.problems]
    if json_:
        checks = tuple(map(CheckModel.model_validate, found))
        listed = tuple(map(NodeModel.model_validate, nodes))
        show.data(DoctorOutput(ok=not problems and not differ, checks=checks, nodes=listed))
    else:
        show.table("This machine", [(item.name, item.state, item.found) for item in found])
        for check in found:
            if check.state != "ok":
                show.line(
                    f"{check.state}: {check.name}: found {check.found}; expected {check.expected}; "
                    f"{check.remedy}"
                )
        count = len(problems)
        verdict = "this machine can run a sweep"
        show.line(f"{count} problem{'' if count == 1 else 's'}" if problems else verdict)
        _show_nodes(nodes)
    if problems or differ:
        raise typer.Exit(2 if differ else 1)


def _nodes(out: Path, address: str | None, spec: str | None, checks: list[Check]) -> list[Node]:
    """Every node of the cluster, where the checks of this machine have found one."""
    if address is None or checks[-1].state != "ok":
        return []
    from sweeper.setup.nodes import examine_nodes, inputs_of  # They need Ray.

    return examine_nodes(address, out, {} if spec is None else inputs_of(load_spec(spec)))


def _show_nodes(nodes: list[Node]) -> None:
    if not nodes:
        return
    rows = [
        (
            node.name,
            f"{node.cpus:g} CPU, {node.gpus:g} GPU",
            *(f"{name} {version or 'missing'}" for name, version in node.packages.items()),
            "differs" if node.problems else "ok",
        )
        for node in nodes
    ]
    show.table("Nodes of the cluster", rows)
    for node in nodes:
        for kind, texts in (("problem", node.problems), ("note", node.notes)):
            for text in texts:
                show.line(f"{kind}: {node.name}: {text}")
    differ = sum(bool(node.problems) for node in nodes)
    show.line(
        f"nodes with problems: {differ} of {len(nodes)}"
        if differ
        else "no node differs from this machine"
    )


@app.command(rich_help_panel="Before a sweep")
def init(
    model: Annotated[str, typer.Argument(help="A folder with safetensors weights, or a hub id.")],
    data: Annotated[str, typer.Argument(help="Training rows: a file, a folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="The sweep file to write.")] = Path("sweep.yaml"),
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Size it for this GPU (A10, A100, H100, H200)."),
    ] = None,
    harmful: Annotated[
        str, typer.Option(help="Harmful prompts: a published suite, a hub id or a file.")
    ] = "advbench",
    harmless: Annotated[
        str, typer.Option(help="Harmless prompts, to see whether it refuses too much; likewise.")
    ] = "xstest-safe",
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COLUMN",
            help="A column with an unusual name: prompt=QUESTION, completion=ANSWER; repeated.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json_: JsonOption = False,
) -> None:
    """Write a commented sweep file for your model and rows, and show its plan."""
    from sweeper.runs.plans import plan  # These need pandas and torch.
    from sweeper.setup.init import init as write_sweep

    columns = dict(_pair(text) for text in column or ())
    made = write_sweep(
        model,
        data,
        out,
        gpu=gpu,
        harmful=harmful,
        harmless=harmless,
        columns=columns,
        force=force,
    )
    found = plan(made.spec)
    if json_:
        show.data(InitOutput(path=str(made.path), notes=made.notes, plan=found.output))
        return
    show.line(f"wrote {made.path}")
    show.line(f"plan: {found.summary}")
    if found.rows is not None:
        plan_tables.rows(found.rows)
    if found.estimate is None:
        show.line(f"no estimate: {found.estimate_missing}")
    for note in made.notes:
        show.line(f"note: {note}")
    quoted = shlex.quote(str(made.path))
    show.line(f"next: sweeper prefetch {quoted}; sweeper plan {quoted}; sweeper run {quoted}")


def _pair(text: str) -> tuple[str, str]:
    """`prompt=QUESTION` as a pair.

    Raises: SweeperError: it is not of that form.
    """
    name, separator, column = text.partition("=")
    if not separator or name not in COLUMNS or not column:
        raise SweeperError(
            f"--column: found {text!r}, expected NAME=COLUMN with a NAME of {', '.join(COLUMNS)}"
        )
    return name, column


@app.command(rich_help_panel="Before a sweep")
def prefetch(spec: SpecArgument, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Download and check a sweep's model, data and suites, for nodes without a network."""
    from sweeper.setup.prefetch import prefetch as fetch_all

    loaded = load_spec(spec, set_ or ())
    found = fetch_all(loaded)
    places = " ".join(f"{name}={shlex.quote(value)}" for name, value in found.environment.items())
    words = [word for override in set_ or () for word in ("--set", override)]
    command = f"{places} {shlex.join(['sweeper', 'run', spec, *words])}"
    if json_:
        show.data(
            PrefetchOutput(
                items=tuple(map(FetchedModel.model_validate, found.items)),
                rows=found.rows,
                unread=tuple(unread_data(loaded.data, loaded.evaluation)),
                run=command,
            )
        )
        return
    rows = []
    for item in found.items:
        state = item.commit or f"sha256 {(item.sha256 or '')[:12]}"
        rows.append((item.what, item.name, state, show.size(item.size_bytes), item.place))
    show.table("Fetched and checked", rows)
    plan_tables.rows(found.rows, unread_data(loaded.data, loaded.evaluation))
    show.line(f"on a node without network: {command}")


@app.command(rich_help_panel="Run folders")
def clean(
    run: RunArgument,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes/--dry-run", help="Delete; without it, only list what would be deleted."
        ),
    ] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also those of unfinished trajectories.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also kept weights of configurations off the front.")
    ] = False,
    responses: Annotated[
        bool,
        typer.Option("--responses", help="Also all responses; they can then not be rescored."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """List files of a run that can be deleted, and delete them with --yes. Records are never deleted."""
    opened = open_run(run)
    found = leftovers(
        opened.folder,
        opened.spec,
        checkpoints=checkpoints,
        weights=weights,
        responses=responses,
    )
    total = sum(item.size_bytes for item in found)
    if yes:
        delete(opened.folder, found)
    if json_:
        items = tuple(
            LeftoverModel(what=i.what, files=len(i.paths), size_bytes=i.size_bytes, lost=i.lost)
            for i in found
        )
        show.data(CleanOutput(deleted=yes, items=items, size_bytes=total))
        return
    rows = [(i.what, f"{len(i.paths)}", show.size(i.size_bytes), f"lost: {i.lost}") for i in found]
    if rows:
        show.table("Deleted" if yes else "Can be deleted", rows)
    if not found:
        show.line("nothing to delete")
    elif yes:
        show.line(f"{show.size(total)} deleted; the records are unchanged")
    else:
        show.line(
            f"{show.size(total)} can be deleted; run the same command with --yes to delete it"
        )


@app.command(rich_help_panel="Run folders")
def migrate(
    run: RunArgument,
    write: Annotated[
        bool, typer.Option("--write", help="Convert; a copy of each old file is kept.")
    ] = False,
) -> None:
    """Convert a run folder of an earlier version; without --write, only show what would change."""
    found = bring_up(RunFolder(run), write=write)
    total = sum(found.versions.values())
    if not found.files:
        show.line(f"nothing to do: {total} records, all of version {RUN_VERSION}")
    elif not found.written:
        show.line(
            f"{found.older} of {total} records and {len(found.files)} files are of an earlier version than "
            f"{RUN_VERSION}; next: sweeper migrate {shlex.quote(str(run))} --write"
        )
    else:
        show.line(f"converted {found.older} of {total} records to version {RUN_VERSION}")
        show.line(f"changed: {', '.join(found.files)}; copies: NAME.before-v{RUN_VERSION}")


@app.command(rich_help_panel="Results")
def serve(
    path: Annotated[Path, typer.Argument(help="A run folder, or a folder that holds several.")],
    host: Annotated[
        str,
        typer.Option(
            help="The address to bind to; any but the default is reachable from other machines."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8765,
    with_generations: Annotated[
        bool, typer.Option("--with-generations", help="Also allow downloads of response files.")
    ] = False,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Leave out prompts and responses of harmful suites, and folders of local paths.",
        ),
    ] = False,
) -> None:
    """Serve live reports of runs in the browser. Stop with Ctrl-C."""
    from sweeper.serve import Started, serve

    def begin(started: Started) -> None:
        if not started.runs:
            show.line(f"no runs in {path} yet; new ones will be listed")
        if started.public:
            show.error(
                f"warning: {host} is not this machine alone: whoever reaches the port can read the "
                "reports, and without --redact harmful prompts and responses; nobody is asked for "
                "a password"
            )
        show.line(f"serving {path} at {started.url}   (Ctrl-C to stop)")

    try:
        serve(path, host, port, with_generations=with_generations, redact=redact, begin=begin)
    except KeyboardInterrupt:
        show.line("stopped")
