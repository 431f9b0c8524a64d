"""The interface to Ray Tune: a searcher that provides packs, and a trainable that runs one.

The trial function is an argument. Records are sent to the driver as plain fields of a Tune result, never as
a Tune metric.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from sweeper.errors import DiskFullError, UnreachableError
from sweeper.planning import Pack
from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.sweep.schedule import FINISHED, Schedule
from sweeper.task import TrajectoryTask

Keys = frozenset[tuple[str, int]]
PackFunction = Callable[
    [Sequence[TrajectoryTask], Callable[[str], TrialStorage], Keys], Iterator[Sequence[TrialRecord]]
]

RECORDS = "records"
REFUSED = "storage_refused"
"""The fields of a Tune result: records as JSON; the error of a storage that refused to take them."""


class PackSearcher(Searcher):
    """Asks a schedule for packs, each with the configurations it may skip; knows nothing of metrics."""

    def __init__(self, schedule: Schedule, keys: Set[tuple[str, int]]) -> None:
        super().__init__()
        self._schedule = schedule
        self._keys = keys

    def suggest(self, trial_id: str) -> Any:
        """The next pack, None while something has to end first, or that there are no more."""
        pack = self._schedule.next(trial_id)
        if pack is None:
            return None
        if pack == FINISHED:
            return Searcher.FINISHED
        return {"tasks": _written(pack), "done": _done(pack, self._keys)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass it on. Nothing to learn: records are the source of truth."""
        self._schedule.ended(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles searchers to restore runs, which we never do."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a driver that starts again works out what is left from the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class ScheduleStopper(tune.Stopper):
    """Stops everything when the schedule says so."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether nothing may run any longer."""
        return self._schedule.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Empty, as of the searcher."""
        return {}


def _written(pack: Pack) -> list[str]:
    return [task.to_json() for task in pack]


def _done(pack: Pack, keys: Set[tuple[str, int]]) -> list[tuple[str, int]]:
    own = ((readout.config_id, task.seed) for task in pack for readout in task.readouts)
    return [key for key in own if key in keys]


def tasks_of(config: Mapping[str, Any]) -> list[TrajectoryTask]:
    """The tasks of a Tune trial."""
    return [TrajectoryTask.from_json(text) for text in config["tasks"]]


class PackTrainable(tune.Trainable):
    """One Tune trial: every step carries some records back; the actor is reused by the next trial."""

    def setup(  # type: ignore[override]  # `with_parameters` fills in the last two
        self, config: dict[str, Any], run: PackFunction, root: RunFolder
    ) -> None:
        """Start on the pack in `config`."""
        self._run = run
        self._root = root
        self._start(config)

    def _start(self, config: dict[str, Any]) -> None:
        done = frozenset((config_id, seed) for config_id, seed in config["done"])
        self._records = self._run(tasks_of(config), self._root.trial, done)

    def step(self) -> dict[str, Any]:
        """The next records, as JSON; after the last ones, `done`.

        A storage failure ends the run: as a failure of the trial, Tune would retry it or count it as lost.
        """
        try:
            records = next(self._records, None)
        except (DiskFullError, UnreachableError) as error:
            return {"done": True, REFUSED: error}
        if records is None:
            return {"done": True}
        return {RECORDS: [record.to_json() for record in records]}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next pack in the same process."""
        self.cleanup()
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """Let the trial function release what it holds."""
        close = getattr(self._records, "close", None)
        if close is not None:
            close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials write their own checkpoints; Tune keeps none."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""
