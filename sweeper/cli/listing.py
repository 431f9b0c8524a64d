"""The command that lists the runs of a folder."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sweeper.cli import show
from sweeper.cli.commands import app, without_gc
from sweeper.cli.options import JsonOption
from sweeper.runs.command_outputs import LsOutput
from sweeper.runs.listing import RunLine, list_runs


@app.command(rich_help_panel="Run folders")
@without_gc()
def ls(
    folder: Annotated[Path, typer.Argument(help="Where to look for runs.")] = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List the runs in a folder: progress, front, recommendation, size."""
    found = list(list_runs(folder))
    if json_:
        show.data(LsOutput.of(found, folder))
    else:
        _print_runs(found, folder)


def _print_runs(found: Sequence[RunLine], root: Path) -> None:
    """One line per run, and the problems of unreadable ones below the table."""
    if not found:
        show.line(f"no runs in {root} or below it; `sweeper run` writes one")
        return
    table = Table(title="Runs", title_justify="left")
    for name in ("run", "name", "state"):
        table.add_column(name)
    for name in ("records", "failed", "front"):
        table.add_column(name, justify="right")
    for name in ("recommended", "objectives", "last record"):
        table.add_column(name)
    table.add_column("size", justify="right")
    for item in found:
        table.add_row(*map(escape, _run_cells(item, root)))
    show.fit(table)
    for item in found:
        if item.problem is not None:
            show.line(f"unreadable: {item.path}: {item.problem}")


def _run_cells(item: RunLine, root: Path) -> list[str]:
    where = "." if item.path == root else str(item.path.relative_to(root))
    if item.state == "unreadable":
        return [where, "", item.state, "", "", "", "", "", "", show.size(item.size_bytes)]
    best = ", ".join(f"{name} {value:.3f}" for name, value in item.best.items())
    assert item.written is not None
    local = datetime.fromisoformat(item.written).astimezone()
    return [
        where,
        item.name or "",
        item.state,
        f"{item.records}/{item.planned}",
        f"{item.failed}",
        f"{item.front}",
        item.recommended or "none",
        best,
        f"{local:%Y-%m-%d %H:%M}",
        show.size(item.size_bytes),
    ]
