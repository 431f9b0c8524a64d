"""The command that serves reports of runs that are still going."""

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.options import app


@app.command()
def serve(
    path: Annotated[Path, typer.Argument(help="A run folder, or a folder that holds several.")],
    host: Annotated[
        str, typer.Option(help="The address to bind to; others can reach any but the default.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8765,
    with_generations: Annotated[
        bool, typer.Option("--with-generations", help="Also let files of responses be downloaded.")
    ] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Leave prompts and responses of harmful suites out.")
    ] = False,
) -> None:
    """Show reports in the browser while their sweeps run. Ends with Ctrl-C."""
    from sweeper.serve import Started, serve

    def begin(started: Started) -> None:
        if not started.runs:
            show.line(f"no run has begun in {path} yet; each one that does will be listed")
        if started.public:
            show.error(
                f"warning: {host} is not this machine alone: whoever reaches the port can read the "
                "reports, and without --redact harmful prompts and responses; nobody is asked for "
                "a password"
            )
        show.line(f"serving {path} at {started.url}   (Ctrl-C ends)")

    try:
        serve(path, host, port, with_generations=with_generations, redact=redact, begin=begin)
    except KeyboardInterrupt:
        show.line("stopped")
