"""Downloads everything a sweep reads into the cache and checks it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sweeper.data.hub import fetch, is_hub_id
from sweeper.data.load import data_hash, pin_revisions
from sweeper.data.sources import resolve
from sweeper.data.suites import resolve_suite
from sweeper.estimate.epochs import count_epoch_rows
from sweeper.model.load import model_commit, model_folder, model_hash
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import preflight
from sweeper.spec import SweepSpec
from sweeper.sweep.prepare import check_packages
from sweeper.task import DataSource, TrajectoryTask

PLACES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "SWEEPER_CACHE")
"""Environment variables that move the caches: a compute node needs the same."""


class Item(NamedTuple):
    """One cached item: its commit on the Hub, or the SHA-256 of a local file or folder."""

    what: str
    name: str
    place: str
    commit: str | None
    sha256: str | None
    size_bytes: int


class Prefetched(NamedTuple):
    """The cached items, the row counts of the data, and the environment variables for a compute node."""

    items: list[Item]
    rows: dict[str, int]
    environment: dict[str, str]


def prefetch(spec: SweepSpec) -> Prefetched:
    """Fetch and check a sweep's model, tokenizer, data and suites with the code of a trial.

    Raises:
        DataError, ModelError, MissingExtraError: a download failed, or a trial would fail on it.
    """
    check_packages(spec)
    spec = count_epoch_rows(spec)
    tasks = make_tasks(make_plan(spec), spec, resolve)
    task = pin_revisions(tasks[0])
    rows = preflight(task, tasks)
    places = {name: os.environ[name] for name in PLACES if os.environ.get(name)}
    return Prefetched(list(_items(task)), rows, {**places, "HF_HUB_OFFLINE": "1"})


def _items(task: TrajectoryTask) -> Iterator[Item]:
    model = task.model
    commit = model_commit(model)
    digest = None if commit else model_hash(model)
    folder = model_folder(model)
    yield Item("model", model.name, str(folder), commit, digest, _size(folder))
    rows = {"train": task.data.train, "heldout": task.data.heldout, "safety": task.data.safety}
    for what, source in rows.items():
        if source is not None:
            yield _data(what, source)
    asked = {"harmful": task.evaluation.harmful, "harmless": task.evaluation.harmless}
    for what, sources in asked.items():
        for source in sources:
            yield _data(what, source)


def _data(what: str, source: DataSource) -> Item:
    known = resolve_suite(source)
    if is_hub_id(known.path):
        folder = fetch(known.path, known.revision)
        return Item(what, source.name, str(folder), folder.name, None, _size(folder))
    path = Path(known.path)
    return Item(what, source.name, str(path), None, data_hash(source), _size(path))


def _size(place: Path) -> int:
    """Bytes of a file, or of all files of a folder; of links, what they lead to."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
