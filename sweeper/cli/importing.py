"""`sweeper import`: a run folder made of what other tools measured."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.commands import app, without_gc


@app.command("import", rich_help_panel="Results")
@without_gc()
def import_(
    source: Annotated[Path, typer.Argument(help="A file or folder of another tool.")],
    out: Annotated[Path, typer.Option(help="The new run folder.")],
    map_: Annotated[
        Path | None, typer.Option("--map", help="A map of the columns in YAML; else it is guessed.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="The kind, if it is not recognised.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Which study or experiment, of several in a source.")
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(help="Of rows of responses: further metrics, one row per choice."),
    ] = None,
) -> None:
    """Make a run of what another tool measured, to read like one of sweeper's."""
    from sweeper.runs.imported import import_run  # Its readers are of many tools.

    made = import_run(source, out, map=map_, kind=kind, study=study, values=values)
    spec = made.run.question
    show.line(made.summary)
    for item in spec.objectives:
        show.line(f"objective: {item.metric}, {item.direction}d")
    for limit in spec.constraints:
        show.line(f"limit: {limit.metric} <= {limit.max:g} with probability {limit.confidence:g}")
    for text in made.notes:
        show.note(text)
    if made.unmapped:
        named = ", ".join(made.unmapped[:8]) + (", ..." if len(made.unmapped) > 8 else "")
        show.note(f"not imported, as nothing says which way is better: {named}")
    if not spec.needs_gain:
        show.note("the untouched model is not named (`base` of the map), so no gain can be shown")
    quoted = shlex.quote(str(out))
    how = "guessed" if map_ is None else "used"
    show.line(f"the map that was {how} is {out / 'import.yaml'}: edit it, then import with --map")
    show.line(f"next: sweeper front {quoted}; sweeper recommend {quoted}; sweeper report {quoted}")
