"""The JSON schema of what `--json` prints, by command: `sweeper schema`, or this module run by itself."""

import json
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.commands import app
from sweeper.errors import SweeperError
from sweeper.runs.command_outputs import json_schemas


@app.command(rich_help_panel="Run folders")
def schema(
    command: Annotated[
        str | None, typer.Argument(help="One command, such as `front`; all where not given.")
    ] = None,
) -> None:
    """Print the JSON schema of what `--json` prints."""
    schemas = json_schemas()
    if command is not None and command not in schemas:
        raise SweeperError(
            f"command `{command}` has no --json; commands with it: {', '.join(schemas)}"
        )
    show.json_text(json.dumps(schemas if command is None else schemas[command], indent=1))


if __name__ == "__main__":
    schema(None)
