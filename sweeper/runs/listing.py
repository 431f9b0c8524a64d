"""The runs of a folder: one line each for `ls`, and those that `serve` may show by name.

An unreadable run, damaged or of an earlier version, is listed with its problem.
Names from requests are only looked up here, never used as paths.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sweeper.analysis import find_front, recommend
from sweeper.analysis.decision import decided_of
from sweeper.errors import RunFolderError, SweeperError
from sweeper.runs.counts import left_to_do
from sweeper.runs.question import read_question
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep.decision import read_decision
from sweeper.sweep.disk import used_bytes

State = Literal["running", "finished", "stopped", "unreadable"]

_INSIDE = {"trajectories", "generations", "ray", "verdicts", "export"}
"""Subfolders of a run folder that contain no other runs."""


LEADS_OUT = "is a link to a place outside the folder"
"""Why a run is listed and not served."""


class RunLine(NamedTuple):
    """A run in a list of runs.

    `planned` counts one record for each configuration and seed, for an adaptive search those suggested so
    far; further seeds of a refinement are not included, so `records` may be larger. `best` is the
    recommended configuration with its objectives by metric. `written` is when its records last changed, in
    UTC and ISO 8601. `size_bytes` counts every file below the folder. Unknown fields of a damaged run are
    None, and `problem` says why.
    """

    path: Path
    name: str | None
    state: State
    records: int | None
    planned: int | None
    failed: int | None
    front: int | None
    recommended: str | None
    best: dict[str, float]
    written: str | None
    size_bytes: int
    problem: str | None


def list_runs(root: Path) -> Iterator[RunLine]:
    """The runs in a folder and below it, by path. Needs neither torch nor pandas.

    Raises:
        RunFolderError: there is no such folder.
    """
    if not root.is_dir():
        raise RunFolderError(f"{root} is not a folder; give one that holds runs, such as runs")
    unreadable: list[OSError] = []
    for place, folders, files in os.walk(root, onerror=unreadable.append):
        path = Path(place)
        folders.sort()
        if {"run.json", "records.jsonl"} & set(files):
            folders[:] = [name for name in folders if name not in _INSIDE]
            yield _line(path)
        while unreadable:
            error = unreadable.pop()
            yield _damaged(Path(error.filename), error.strerror or str(error))
    for error in unreadable:
        yield _damaged(Path(error.filename), error.strerror or str(error))


def _line(path: Path) -> RunLine:
    try:
        return _whole(RunFolder(path).open())
    except (SweeperError, OSError) as error:
        return _damaged(path, str(error))


def _damaged(path: Path, problem: str) -> RunLine:
    empty: dict[str, Any] = dict.fromkeys(
        ("name", "records", "planned", "failed", "front", "recommended", "written")
    )
    size = used_bytes(path)
    return RunLine(
        path=path, state="unreadable", best={}, size_bytes=size, problem=problem, **empty
    )


def _whole(folder: RunFolder) -> RunLine:
    spec = read_question(folder)
    planned = folder.planned_records()
    records = read_records(folder.records).records
    found = find_front(records, spec)
    decided = decided_of(read_decision(folder, spec, found))
    chosen = recommend(found, spec, decided=decided).chosen
    if folder.has_driver():
        state: State = "running"
    else:
        state = "stopped" if left_to_do(folder, spec, records) else "finished"
    return RunLine(
        path=folder.root,
        name=spec.name,
        state=state,
        records=len(records),
        planned=planned,
        failed=sum(record.status == "failed" for record in records),
        front=len(found.members),
        recommended=None if chosen is None else chosen.config_id,
        best={} if chosen is None else {o.metric: chosen.values[o.metric] for o in spec.objectives},
        written=_written(folder),
        size_bytes=used_bytes(folder.root),
        problem=None,
    )


def _written(folder: RunFolder) -> str:
    """When the records last changed; before the first of them, when the run began."""
    path = folder.records if folder.records.exists() else folder.info
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


class Listed(NamedTuple):
    """A run by its name; `problem` says why it cannot be shown, empty where it can."""

    name: str
    folder: RunFolder
    problem: str = ""


def servable_runs(root: Path) -> dict[str, Listed]:
    """The run at `root`, or those directly below it, by name.

    Args:
        root: A resolved path. A run that is a link, or holds one, to somewhere outside is listed with
            its problem, so that it is not silently missing.
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
    """The problem with a file in a run: it links to a place outside, or reading it may hang."""
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
