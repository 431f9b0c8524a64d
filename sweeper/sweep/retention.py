"""Weight retention: a run keeps the weights of configurations that are, or may still be, on the front."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from sweeper.analysis import Candidate, Front, find_front, recommend
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.disk import Clock, RateLimited


class WeightRetention:
    """Deletes weights that are no longer needed, where `compute.keep_weights` is `front`.

    With `all` and `none` nothing is deleted here; `sweeper clean` deletes on request.
    """

    def __init__(self, spec: SweepSpec, folder: RunFolder, seconds: Clock = time.monotonic) -> None:
        self._spec = spec
        self._folder = folder
        self._keeps_front = spec.compute.keep_weights == "front"
        self._records: list[TrialRecord] = []
        self._deleted: set[tuple[str, int]] = set()
        self._paced = RateLimited(self._delete_ruled_out, seconds)

    def start(self) -> None:
        """Load existing records, and delete weights that they rule out."""
        if self._keeps_front:
            drop_unfinished(self._folder)
            self._records = list(read_records(self._folder.records).records)
            self._delete_ruled_out()

    def on_record(self, record: TrialRecord) -> None:
        """Delete weights that the records so far rule out."""
        if self._keeps_front:
            self._records.append(record)
            self._paced()

    def finish(self, completed: bool) -> None:
        """Delete ruled-out weights; a completed sweep keeps only the front and the recommended one."""
        if self._keeps_front and not completed:
            self._delete_ruled_out()
        elif self._keeps_front:
            keep = retained_ids(find_front(self._records, self._spec), self._spec)
            for config_id, path in weight_files(self._folder):
                if config_id not in keep:
                    path.unlink(missing_ok=True)

    def _delete_ruled_out(self) -> None:
        for item in ruled_out(find_front(self._records, self._spec), self._spec):
            for record in item.records:
                if record.key not in self._deleted:
                    self._deleted.add(record.key)
                    storage = self._folder.trial(record.trajectory_id)
                    storage.weights(record.config_id).unlink(missing_ok=True)


def retained_ids(found: Front, spec: SweepSpec) -> set[str]:
    """The configurations of a finished run whose weights are kept: the front and the recommended one."""
    chosen = recommend(found, spec).chosen
    return {item.config_id for item in (*found.members, *([] if chosen is None else [chosen]))}


def ruled_out(found: Front, spec: SweepSpec) -> list[Candidate]:
    """The configurations that no further record of the sweep can bring on the front, or recommend.

    What has ended otherwise than complete under one seed, or does not keep a constraint under one, is out
    for good. Another one is out when it is complete under all seeds and dominated by one that is, too:
    their means stay as they are, unless the sweep is refined with further seeds. A recommended one may be
    dominated, so none is out before the base model, which recommendations are measured by, is there.
    """
    based = found.base is not None and set(spec.seeds) <= set(found.base.seeds)
    decided = based and spec.search.refine is None
    keep = retained_ids(found, spec) if decided else set()
    return [item for item in found.candidates if _is_out(item, keep, decided)]


def _is_out(item: Candidate, keep: Iterable[str], decided: bool) -> bool:
    if item.status != "complete" or not item.feasible:
        return True
    return decided and item.excluded is None and item.config_id not in keep


def weight_files(folder: RunFolder) -> Iterator[tuple[str, Path]]:
    """All kept weights in a run folder: configuration id and file."""
    for trajectory in sorted(folder.trajectories.glob("*/")):
        for path in folder.trial(trajectory.name).weight_files():
            yield path.name.partition(".")[0], path


def unfinished_files(folder: RunFolder) -> Iterator[Path]:
    """Temporary files left by processes that were killed while writing; no driver may be running."""
    for pattern in ("*/.*.tmp", "*/outbox/.*.tmp"):
        yield from sorted(folder.trajectories.glob(pattern))
    yield from sorted(folder.generations.glob(".*.tmp"))


def drop_unfinished(folder: RunFolder) -> None:
    """Delete the temporary files left by processes that were killed while writing."""
    for path in unfinished_files(folder):
        path.unlink(missing_ok=True)
