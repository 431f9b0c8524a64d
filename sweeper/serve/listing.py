"""Which runs of a folder may be shown. A name from outside is only ever looked up here."""

import os
from pathlib import Path
from typing import NamedTuple

from sweeper.folder import RunFolder


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
        stray = _first_stray(folder) if inside else name
    except (OSError, RuntimeError) as error:
        return Listed(name, folder, f"cannot be read: {error}")
    return Listed(name, folder, f"{stray} is a link that leads out of the folder" if stray else "")


def _first_stray(folder: RunFolder) -> str:
    """The name of a link in a run that leads out of it, among what is read of a run."""
    home = folder.root.resolve()
    for place in (folder.root, folder.generations, folder.confirm):
        try:
            with os.scandir(place) as entries:
                links = [Path(entry.path) for entry in entries if entry.is_symlink()]
        except (FileNotFoundError, NotADirectoryError):
            continue
        for link in links:
            if not link.resolve().is_relative_to(home):
                return str(link.relative_to(folder.root))
    return ""
