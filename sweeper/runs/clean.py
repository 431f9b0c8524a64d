"""What of a run folder can be deleted, with its size, and deleting it. Records are never touched."""

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
    """Something that can be deleted: files or folders, their size, and what is lost with them."""

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
    """What can be deleted of a run folder.

    Always: checkpoints and outboxes of trajectories that have all their records, Ray's scratch, and what
    processes that were killed left half-written. A record that only lies in an outbox is not among them.

    Args:
        folder: A run folder.
        spec: Its spec.
        checkpoints: Also those of trajectories that are not done.
        weights: Also kept weights of what is neither on the front nor recommended.
        responses: Also all responses.

    Raises:
        RunFolderError: a driver is at work here.
        RecordError: records.jsonl cannot be trusted.
    """
    if folder.has_driver():
        raise RunFolderError(
            f"a driver is at work in {folder.root}; it deletes what it does not need itself. Wait for "
            "it, or stop it first"
        )
    records = read_records(folder.records).records
    done, begun = _by_state(folder, spec, records)
    nothing = "nothing"
    found = [
        _leftover("checkpoints of finished trajectories", _checkpoints(done), nothing),
        _leftover("outboxes of finished trajectories", _outboxes(done), nothing),
        _leftover("half-written files", unfinished_files(folder), nothing),
        _leftover("Ray's scratch", _present(folder.ray), nothing),
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
            "`sweeper rescore` has nothing to judge, reports show no responses, and `sweeper verify` "
            "nothing to compare"
        )
        found.append(_leftover("responses", _present(folder.generations), lost))
    return [item for item in found if item.paths]


def clean(folder: RunFolder, found: list[Leftover]) -> None:
    """Delete what `leftovers` found.

    Raises:
        RunFolderError: a driver is at work here by now.
    """
    with DriverLock(folder):
        for path in (path for item in found for path in item.paths):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _by_state(
    folder: RunFolder, spec: SweepSpec, records: tuple[TrialRecord, ...]
) -> tuple[list[TrialStorage], list[TrialStorage]]:
    """The trajectories that have all their records, and the others. What the plan does not have is open."""
    only = (folder.read_info() or {}).get("only")
    keys = {record.key for record in records}
    finished = {
        item.trajectory_id
        for item in make_plan(spec, already_suggested(folder) or None, only).trajectories
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
