"""Shell completions. They read at most a folder, or one file of records.

The arguments of commands name these functions, so each imports what it reads itself.
"""

import re
from collections.abc import Callable
from pathlib import Path

import typer

_IDENTITY = re.compile(rb'"config_id":"([\w-]+)"')


def specs(incomplete: str) -> list[str]:
    """The shipped sweeps, and YAML files and folders that match the typed path."""
    from sweeper.spec.load import shipped_specs

    names = [name for name in shipped_specs() if name.startswith(incomplete)]
    return [*names, *_paths(incomplete, lambda path: path.suffix in (".yaml", ".yml"))]


def runs(incomplete: str) -> list[str]:
    """Run folders, and other folders with a final slash to descend into."""
    return _paths(incomplete, lambda path: (path / "run.json").is_file())


def configurations(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids that the records of the run on the command line have, each once, without parsing them."""
    from sweeper.store.folder import RunFolder

    named = ctx.params.get("run")
    path = None if named is None else RunFolder(Path(named)).records
    if path is None or not path.is_file():
        return []
    with path.open("rb") as file:
        found = [match[1].decode("ascii") for line in file if (match := _IDENTITY.search(line))]
    given = ctx.params.get("configs") or ()
    known = dict.fromkeys(name for name in found if name not in given)
    return [name for name in known if name.startswith(incomplete)]


def trials(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the trials that have a log in the run on the command line."""
    from sweeper.store.folder import RunFolder

    named = ctx.params.get("run")
    known = [] if named is None else RunFolder(Path(named)).trials_with_logs()
    return [name for name in known if name.startswith(incomplete)]


def policies(incomplete: str) -> list[str]:
    """The names of policies."""
    from sweeper.analysis import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


def formats(incomplete: str) -> list[str]:
    """What `sweeper export` writes."""
    from sweeper.export import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[str]:
    """Entries of the folder that is typed so far; folders that are not wanted themselves end in `/`."""
    head, _, start = incomplete.rpartition("/")
    folder = Path(head or "/") if "/" in incomplete else Path()
    prefix = f"{head}/" if "/" in incomplete else ""
    if not folder.is_dir():
        return []
    found = []
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(start) or (path.name.startswith(".") and not start):
            continue
        if wanted(path):
            found.append(f"{prefix}{path.name}")
        elif path.is_dir():
            found.append(f"{prefix}{path.name}/")
    return found
