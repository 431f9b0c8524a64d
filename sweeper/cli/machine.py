"""Commands about the machine: whether it can run a sweep, and what it has to fetch for one."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.options import JsonOption, SetOption, SpecArgument, app
from sweeper.setup.doctor import examine
from sweeper.spec import load_spec


@app.command()
def doctor(
    out: Annotated[Path, typer.Option(help="Where runs are to be written.")] = Path("runs"),
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to join for a moment; none is started.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Say whether this machine can run a sweep; ends with 1 where it cannot."""
    found = examine(out, address)
    problems = [check for check in found if check.state == "problem"]
    if json_:
        checks = [check._asdict() for check in found]
        show.data({"ok": not problems, "checks": checks})
    else:
        show.table("This machine", [(item.name, item.state, item.found) for item in found])
        for check in found:
            if check.state != "ok":
                show.line(
                    f"{check.state}: {check.name}: found {check.found}; expected {check.expected}; "
                    f"{check.remedy}"
                )
        count = len(problems)
        verdict = "nothing stands in the way of a sweep"
        show.line(f"{count} problem{'' if count == 1 else 's'}" if problems else verdict)
    if problems:
        raise typer.Exit(1)


@app.command()
def prefetch(spec: SpecArgument, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Fetch and check a sweep's model, data and suites, for nodes without a network."""
    from sweeper.setup.prefetch import prefetch as fetch_all

    loaded = load_spec(spec, set_ or ())
    found = fetch_all(loaded)
    places = " ".join(f"{name}={shlex.quote(value)}" for name, value in found.environment.items())
    words = [word for override in set_ or () for word in ("--set", override)]
    command = f"{places} {shlex.join(['sweeper', 'run', spec, *words])}"
    if json_:
        items = [item._asdict() for item in found.items]
        show.data({"items": items, "rows": found.rows, "run": command})
        return
    rows = []
    for item in found.items:
        state = item.commit or f"sha256 {(item.sha256 or '')[:12]}"
        rows.append((item.what, item.name, state, show.size(item.size_bytes), item.place))
    show.table("Fetched and checked", rows)
    show.rows(found.rows)
    show.line(f"on a node without network: {command}")
