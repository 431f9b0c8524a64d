"""The command that brings a run folder up to the version of this program."""

from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.options import RunArgument, app
from sweeper.store.folder import RunFolder
from sweeper.store.migrate import migrate as bring_up
from sweeper.store.records import RECORD_VERSION


@app.command()
def migrate(
    run: RunArgument,
    write: Annotated[
        bool, typer.Option("--write", help="Do it; the file as it was is kept beside it.")
    ] = False,
) -> None:
    """Bring the records of an earlier version up to this one's; without --write, only say what is to do."""
    found = bring_up(RunFolder(run), write=write)
    total = sum(found.versions.values())
    if not found.older:
        show.line(f"nothing to do: {total} records, all of version {RECORD_VERSION}")
    elif found.backup is None:
        show.line(
            f"{found.older} of {total} records are of an earlier version than {RECORD_VERSION}; "
            f"next: sweeper migrate {run} --write"
        )
    else:
        show.line(f"brought {found.older} of {total} records to version {RECORD_VERSION}")
        show.line(f"as they were: {found.backup}")
