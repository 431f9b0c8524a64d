"""Finds and deletes files of a run folder that are not needed. Records are never changed."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import find_front
from sweeper.errors import RunFolderError
from sweeper.planning import make_plan
from sweeper.search.rounds import already_suggested
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.lock import DriverLock
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.disk import used_bytes
from sweeper.sweep.retention import retained_ids, unfinished_files, weight_files


class Leftover(NamedTuple):
    """Files or folders that can be deleted, their size, and what is lost with them."""

    what: str
    paths: tuple[Path, ...]
    size_bytes: int
    lost: str


def leftovers(
    folder: RunFolder,
    spec: SweepSpec,
    *,
    checkpoints: bool = False,
    weights: bool = False,
    responses: bool = False,
) -> list[Leftover]:
    """The files of a run folder that can be deleted.

    Always: checkpoints and outboxes of trajectories that have all their records, Ray's temporary files,
    and partial files of killed processes. A record that exists only in an outbox is kept.

    Args:
        folder: A run folder.
        spec: Its spec.
        checkpoints: Also those of unfinished trajectories.
        weights: Also kept weights of configurations neither on the front nor recommended.
        responses: Also all responses.

    Raises: RunFolderError: a driver is using the folder. RecordError: records.jsonl cannot be trusted.
    """
    if folder.has_driver():
        raise RunFolderError(
            f"a driver is using {folder.root} and deletes unneeded files itself; wait for it to finish, "
            f"or stop it first"
        )
    records = read_records(folder.records).records
    done, begun = _by_state(folder, spec, records)
    nothing = "nothing"
    found = [
        _leftover("checkpoints of finished trajectories", _checkpoints(done), nothing),
        _leftover("outboxes of finished trajectories", _outboxes(done), nothing),
        _leftover("partial files", unfinished_files(folder), nothing),
        _leftover("Ray's temporary files", _present(folder.ray), nothing),
    ]
    if checkpoints:
        lost = "these trajectories start again from their first step"
        found.append(_leftover("checkpoints of unfinished trajectories", _checkpoints(begun), lost))
    if weights:
        keep = retained_ids(find_front(records, spec), spec)
        off = (path for config_id, path in weight_files(folder) if config_id not in keep)
        lost = "`sweeper export --weights` trains these configurations again"
        found.append(_leftover("weights off the front", off, lost))
    if responses:
        lost = (
            "the responses: they can no longer be rescored, shown in reports, or compared by `sweeper "
            "verify`"
        )
        found.append(_leftover("responses", _present(folder.generations), lost))
    return [item for item in found if item.paths]


def clean(folder: RunFolder, found: list[Leftover]) -> None:
    """Delete what `leftovers` found. Raises: RunFolderError: a driver is now using the folder."""
    with DriverLock(folder):
        for path in (path for item in found for path in item.paths):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _by_state(
    folder: RunFolder, spec: SweepSpec, records: tuple[TrialRecord, ...]
) -> tuple[list[TrialStorage], list[TrialStorage]]:
    """The trajectories that have all their records, and the others.

    Trajectories that are not in the plan count as unfinished.
    """
    keys = {record.key for record in records}
    finished = {
        item.trajectory_id
        for item in make_plan(spec, already_suggested(folder) or None).trajectories
        if all((one.config_id, item.seed) in keys for one in item.configurations)
    }
    names = [path.name for path in sorted(folder.trajectories.glob("*/"))]
    done = [folder.trial(name) for name in names if name in finished]
    return done, [folder.trial(name) for name in names if name not in finished]


def _checkpoints(storages: list[TrialStorage]) -> Iterator[Path]:
    for storage in storages:
        yield from storage.checkpoints()


def _outboxes(storages: list[TrialStorage]) -> Iterator[Path]:
    for storage in storages:
        yield from _present(storage.outbox)


def _present(path: Path) -> list[Path]:
    return [path] if path.exists() else []


def _leftover(what: str, paths: Iterator[Path] | list[Path], lost: str) -> Leftover:
    found = tuple(paths)
    size = sum(used_bytes(path) if path.is_dir() else path.lstat().st_size for path in found)
    return Leftover(what, found, size, lost)
