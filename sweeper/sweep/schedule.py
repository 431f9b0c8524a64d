"""Which pack a free worker takes next. Knows neither Ray nor the clock on the wall."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from sweeper.errors import SweeperError
from sweeper.planning import Pack
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask

Rounds = Iterator[Sequence[TrajectoryTask]]
MakePacks = Callable[[Sequence[TrajectoryTask]], list[Pack]]
Finished = Literal["finished"]
FINISHED: Finished = "finished"


class Schedule:
    """Hands out packs.

    `exhausted` says that there is nothing more to train, `failure` that the next round cannot be laid out.
    """

    def __init__(self) -> None:
        self.exhausted = False
        self.failure: SweeperError | None = None

    def next(self, trial_id: str) -> Pack | Finished | None:
        """A pack for a trial, None while something has to end first, or FINISHED."""
        raise NotImplementedError

    def ended(self, trial_id: str) -> None:
        """A trial has ended, for whatever reason."""

    def started(self, trial_id: str) -> None:
        """A worker has begun with the pack of a trial."""

    def on_record(self, record: TrialRecord) -> None:
        """A new record is on disk."""

    def stop(self) -> bool:
        """Whether what runs has to be stopped now."""
        return False

    def close(self) -> None:
        """Nothing runs any more."""


class RoundSchedule(Schedule):
    """Packs in the order they were made, round by round.

    The next round is taken when nothing of the one before is running, so that it can build on all its
    records.
    """

    def __init__(self, rounds: Rounds, make: MakePacks) -> None:
        super().__init__()
        self._packs = map(make, rounds)
        self._waiting: deque[Pack] = deque()
        self._running: set[str] = set()

    def next(self, trial_id: str) -> Pack | Finished | None:
        """See `Schedule`."""
        if not self._waiting and self._running:
            return None
        try:
            while not self._waiting:
                self._waiting.extend(next(self._packs))
        except StopIteration:
            self.exhausted = True
            return FINISHED
        except SweeperError as error:  # Tune would hide its class.
            self.failure = error
            return FINISHED
        self._running.add(trial_id)
        return self._waiting.popleft()

    def ended(self, trial_id: str) -> None:
        """One trial less to wait for."""
        self._running.discard(trial_id)
