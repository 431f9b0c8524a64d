"""Keeps an Optuna study of a running sweep up to date, in a journal in the run folder.

The journal can always be rebuilt from the records, which it never changes.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from sweeper.analysis import BASE_ROLE, CANDIDATE_ROLE, Front, find_front
from sweeper.errors import StorageError
from sweeper.search.storages import open_journal
from sweeper.search.study import (
    create_study,
    describe_base,
    distributions,
    has_ended,
    study_trials,
    trial_of,
)
from sweeper.spec import SweepSpec
from sweeper.store.records import TrialRecord

REWRITE_SECONDS = 30.0
"""Minimum interval between rewrites. Finished trials are immutable, so a change requires rewriting all;
with many trials the interval is one second per trial."""

_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    optuna.exceptions.OptunaError,
)
"""What Optuna raises when it reads a damaged journal."""

_log = logging.getLogger("sweeper.search.live_study")


class LiveStudy:
    """Updates the study of a run record by record. Not thread-safe; one writer per journal.

    A configuration of the space is appended when it has finished. Changes of existing trials (further
    seeds, a control on the front) are written later, at the latest when the run ends. A failure is logged
    once and never raised.
    """

    def __init__(
        self,
        spec: SweepSpec,
        path: Path,
        records: Iterable[TrialRecord] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open or create the journal, and update it with the existing records.

        Args:
            spec: The spec of the run.
            path: The journal.
            records: The records of earlier drivers.
            clock: A monotonic clock, in seconds.
        """
        self._spec = spec
        self._path = path
        self._clock = clock
        self._records: dict[str, list[TrialRecord]] = {}
        for record in records:
            self._records.setdefault(record.config_id, []).append(record)
        self._study: optuna.Study | None = None
        self._trials: set[str] = set()
        self._ranges: dict[str, BaseDistribution] = {}
        self._size = 0
        self._stale = True
        self._next_rewrite = 0.0
        self._warned = False
        self._try(self._update)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def on_record(self, record: TrialRecord) -> None:
        """Add a record that is on disk."""
        self._records.setdefault(record.config_id, []).append(record)
        self._try(lambda: self._add(record.config_id))

    def close(self) -> None:
        """Write all pending changes."""
        self._try(self._update)

    def _add(self, config_id: str) -> None:
        study = self._study
        if study is None or not self._path.exists() or self._path.stat().st_size < self._size:
            self._stale = True
        else:
            try:
                self._stale |= not self._append(study, self._front([config_id]))
            except _DAMAGE:  # As when somebody deleted the study in a dashboard.
                self._stale = True
            self._size = self._path.stat().st_size
        if self._stale and self._clock() >= self._next_rewrite:
            self._update()

    def _append(self, study: optuna.Study, front: Front) -> bool:
        """Append one configuration, if it has ended; False where trials that are there have to change."""
        item = front.candidates[0]
        if item.role == BASE_ROLE:
            describe_base(study, front)
            return True
        if not has_ended(item, self._spec):
            return True
        if item.role != CANDIDATE_ROLE:
            return not front.members
        if item.config_id in self._trials:
            return False
        try:
            trial = trial_of(item, self._spec, self._ranges)
        except ValueError:  # Outside the space, as in records of another version.
            return False
        study.add_trial(trial)
        self._trials.add(item.config_id)
        return True

    def _front(self, config_ids: Iterable[str]) -> Front:
        records = itertools.chain.from_iterable(self._records[id_] for id_ in config_ids)
        return find_front(records, self._spec)

    def _update(self) -> None:
        front = self._front(self._records)
        self._study = update_journal(self._path, front, self._spec)
        self._trials = {*study_trials(front, self._spec)}
        self._ranges = distributions(
            [item for item in front.candidates if item.config_id in self._trials], self._spec
        )
        self._size = self._path.stat().st_size
        self._stale = False
        self._next_rewrite = self._clock() + max(REWRITE_SECONDS, len(self._trials))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, StorageError, *_DAMAGE) as error:
            self._study = None
            self._next_rewrite = self._clock() + REWRITE_SECONDS
            if not self._warned:
                self._warned = True
                _log.warning(
                    "cannot write the Optuna study %s (%s); the records are not affected, and "
                    "`sweeper export-study` recreates the study",
                    self._path,
                    error,
                )


def update_journal(path: Path, front: Front, spec: SweepSpec) -> optuna.Study:
    """Bring the study in a journal up to date with the records; a journal that cannot be read is made anew.

    Trials that are right stay where they are. Where one is not, all are written again in a new study of
    the same name, in the same file, because other programs may have it open.

    Raises:
        StorageError: the journal cannot be written.
    """
    wanted = study_trials(front, spec)
    try:
        storage = _open(path)
        study = _study_in(storage, spec)
        found = study.get_trials(deepcopy=False)
        present = {trial.user_attrs.get("config_id"): trial for trial in found}
        same = all(id_ in wanted and _same(t, wanted[id_]) for id_, t in present.items())
        if not same or len(present) < len(found):
            study, present = _replaced(storage, spec), {}
        describe_base(study, front)
        study.add_trials(trial for id_, trial in wanted.items() if id_ not in present)
    except OSError as error:
        raise StorageError(
            f"cannot write the study {path}: {error.strerror}",
            code="study_storage.unwritable",
            path=path,
        ) from None
    return study


def _open(path: Path) -> BaseStorage:
    try:
        if _is_torn(path):
            raise ValueError("the last line is torn")
        return open_journal(path)
    except _DAMAGE:
        path.unlink(missing_ok=True)
        return open_journal(path)


def _study_in(storage: BaseStorage, spec: SweepSpec) -> optuna.Study:
    """The study of the sweep, made where there is none with its objectives."""
    if spec.name not in optuna.get_all_study_names(storage):
        return create_study(spec, storage)
    study = optuna.load_study(study_name=spec.name, storage=storage)
    directions = [objective.direction for objective in spec.objectives]
    same = [direction.name.lower() for direction in study.directions] == directions
    return study if same else _replaced(storage, spec)


def _replaced(storage: BaseStorage, spec: SweepSpec) -> optuna.Study:
    optuna.delete_study(study_name=spec.name, storage=storage)
    return create_study(spec, storage)


def _is_torn(path: Path) -> bool:
    """Whether a file does not end with a line end."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) != b"\n"


def _same(one: FrozenTrial, other: FrozenTrial) -> bool:
    """Whether two trials differ in number and times alone."""
    names = ("state", "values", "params", "distributions", "user_attrs", "system_attrs")
    return all(getattr(one, name) == getattr(other, name) for name in names)
