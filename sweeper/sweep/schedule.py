"""Which pack a free worker takes next. Knows neither Ray nor the clock on the wall."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from sweeper.errors import SweeperError
from sweeper.planning import Pack, take_pack
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask

Rounds = Iterator[Sequence[TrajectoryTask]]
"""The tasks of one round after the other; an empty round where something that runs has to end first."""

MakePacks = Callable[[Sequence[TrajectoryTask]], list[Pack]]
Finished = Literal["finished"]
FINISHED: Finished = "finished"


class Schedule:
    """Hands out packs.

    `exhausted` says that there is nothing more to train, `failure` that the next round cannot be laid out.

    Args:
        rounds: The tasks of each round.
        ahead: Ask for the next round while the one before still runs, when all of it has begun; else a
            round builds on all records of the one before.
    """

    def __init__(self, rounds: Rounds, ahead: bool = False) -> None:
        self.exhausted = False
        self.failure: SweeperError | None = None
        self._rounds = rounds
        self._ahead = ahead
        self._dry = False

    def next(self, trial_id: str) -> Pack | Finished | None:
        """A pack for a trial, None while something has to end first, or FINISHED."""
        raise NotImplementedError

    def ended(self, trial_id: str) -> None:
        """A trial has ended, for whatever reason."""
        self._dry = False

    def started(self, trial_id: str) -> None:
        """A worker has begun with the pack of a trial."""

    def on_record(self, record: TrialRecord) -> None:
        """A new record is on disk."""

    def stop(self) -> bool:
        """Whether what runs has to be stopped now."""
        return False

    def close(self) -> None:
        """Nothing runs any more."""

    def _next_round(self, running: bool) -> Sequence[TrajectoryTask] | Finished | None:
        """The next round, None while something that runs has to end first, or FINISHED."""
        if running and (self._dry or not self._ahead):
            return None
        try:
            tasks = next(self._rounds)
        except StopIteration:
            self.exhausted = True
            return FINISHED
        except SweeperError as error:  # Tune would hide its class.
            self.failure = error
            return FINISHED
        self._dry = not tasks
        return tasks or (None if running else FINISHED)


class RoundSchedule(Schedule):
    """Packs in the order they were made, round by round.

    Args:
        rounds: See `Schedule`.
        make: Puts the tasks of a round into packs.
        workers: Packs are divided where one of so many would be idle; see `take_pack`.
        ahead: See `Schedule`.
    """

    def __init__(
        self, rounds: Rounds, make: MakePacks, workers: int = 1, ahead: bool = False
    ) -> None:
        super().__init__(rounds, ahead)
        self._make = make
        self._workers = workers
        self._waiting: list[Pack] = []
        self._running: set[str] = set()

    def next(self, trial_id: str) -> Pack | Finished | None:
        """See `Schedule`."""
        if not self._waiting:
            tasks = self._next_round(bool(self._running))
            if tasks is None or tasks == FINISHED:
                return tasks
            self._waiting = self._make(tasks)
        self._running.add(trial_id)
        return take_pack(self._waiting, self._workers)

    def ended(self, trial_id: str) -> None:
        """One trial less to wait for."""
        super().ended(trial_id)
        self._running.discard(trial_id)
