"""The command that gives disk back."""

from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.options import JsonOption, RunArgument, app
from sweeper.runs.clean import clean as delete
from sweeper.runs.clean import leftovers


@app.command()
def clean(
    run: RunArgument,
    yes: Annotated[
        bool, typer.Option("--yes/--dry-run", help="Delete; without, it is only said what.")
    ] = False,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="Also those of unfinished trajectories.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Also kept weights of what is off the front.")
    ] = False,
    responses: Annotated[
        bool,
        typer.Option("--responses", help="Also all responses: nothing can be rescored then."),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Show what of a run can be deleted, and delete it with --yes. Records are never deleted."""
    from sweeper.runs.run import open_run

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
        items = [
            {"what": i.what, "files": len(i.paths), "size_bytes": i.size_bytes, "lost": i.lost}
            for i in found
        ]
        show.data({"deleted": yes, "items": items, "size_bytes": total})
        return
    rows = [(i.what, f"{len(i.paths)}", show.size(i.size_bytes), f"lost: {i.lost}") for i in found]
    if rows:
        show.table("Deleted" if yes else "Can be deleted", rows)
    if yes:
        show.line(f"{show.size(total)} deleted; the records are as they were")
    else:
        show.line(f"{show.size(total)} can be deleted: the same command with --yes does it")
