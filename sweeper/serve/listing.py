"""Which runs of a folder may be shown. A name from outside is only ever looked up here."""

import os
from pathlib import Path
from typing import NamedTuple

from sweeper.store.folder import RunFolder

LEADS_OUT = "is a link that leads out of the folder"


class Listed(NamedTuple):
    """A run by its name; `problem` says why it cannot be shown, empty where it can."""

    name: str
    folder: RunFolder
    problem: str = ""


def list_runs(root: Path) -> dict[str, Listed]:
    """The run at `root`, or those directly below it, by name.

    Args:
        root: A resolved path. A run that is a link, or holds one, to somewhere outside is listed with
            its problem, so that nobody wonders where it is.
    """
    if _has(root, "run.json"):
        return {root.name: _listed(root.name, root, root)}
    try:
        names = sorted(path.name for path in root.iterdir())
    except OSError:
        return {}
    return {
        name: _listed(name, root / name, root)
        for name in names
        if name.isprintable() and not name.startswith(".") and _has(root / name, "run.json")
    }


def _has(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except OSError:
        return False


def _listed(name: str, path: Path, root: Path) -> Listed:
    folder = RunFolder(path)
    try:
        inside = path.resolve().is_relative_to(root)
        stray = _first_stray(folder) if inside else f"{name} {LEADS_OUT}"
    except (OSError, RuntimeError) as error:
        return Listed(name, folder, f"cannot be read: {error}")
    return Listed(name, folder, stray)


def _first_stray(folder: RunFolder) -> str:
    """What is wrong with one of the names in a run: it leads out of the run, or reading it may hang."""
    home = folder.root.resolve()
    for place in (folder.root, folder.generations, folder.confirm):
        try:
            with os.scandir(place) as entries:
                odd = [
                    Path(entry.path)
                    for entry in entries
                    if entry.is_symlink() or not (entry.is_file() or entry.is_dir())
                ]
        except (FileNotFoundError, NotADirectoryError):
            continue
        for path in odd:
            name = path.relative_to(folder.root)
            if not path.resolve().is_relative_to(home):
                return f"{name} {LEADS_OUT}"
            if not (path.is_file() or path.is_dir()):
                return f"{name} is neither a file nor a folder"
    return ""
