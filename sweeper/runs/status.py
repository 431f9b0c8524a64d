"""What a run is doing: its records, its driver, how long it still takes, and its trials."""

import time
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import SAFEST_USEFUL
from sweeper.estimate import duration_text
from sweeper.runs.cost_so_far import CostSoFar, cost_so_far
from sweeper.runs.counts import Counts, counts_of, decision_counts, left_to_do
from sweeper.runs.run import open_run
from sweeper.runs.time_left import run_seconds_left
from sweeper.runs.trials_now import STAGES, path_names, running_trials
from sweeper.store.folder import RunFolder
from sweeper.store.lock import Holder
from sweeper.sweep.decision import stage_folder

SILENT_SECONDS = 120.0
"""After so long without an update a trial may be gone; some steps take as long."""


class TrialNow(NamedTuple):
    """A running trial: its id, its settings in words, its stage, and its optimizer steps, done of all.

    `silent_seconds` have passed since its last update, which a living one writes about every second.
    """

    trial: str
    name: str
    stage: str
    step: int
    steps: int
    silent_seconds: float

    @property
    def text(self) -> str:
        """`lr 4e-3, seed 0: training, step 12 of 20`."""
        silent = self.silent_seconds > SILENT_SECONDS
        since = f", silent for {duration_text(self.silent_seconds)}" if silent else ""
        return f"{self.name}: {self.stage}, step {self.step} of {self.steps}{since}"


class RunStatus(NamedTuple):
    """What a run is doing.

    `state` is `running`, `stopped`, or `finished` once resuming it would do nothing; `left` says what a
    stopped one would go on with. `process` and `host` are the driver's, None without one, or where its
    lock does not say. `decision` counts this round's records, None before it. `seconds_left` is None while
    nothing is known, `cost` without a driver; `trials` are those of a run that has one.
    """

    path: Path
    state: str
    left: str
    process: int | None
    host: str | None
    search: Counts
    decision: Counts | None
    seconds_left: float | None
    cost: CostSoFar | None
    trials: tuple[TrialNow, ...]


def run_status(folder: RunFolder) -> RunStatus:
    """The state of a run, and what goes with it.

    Raises:
        SweeperError: the folder cannot be read as a run.
    """
    holder = Holder.read(folder.lock)
    search, decision = counts_of(folder), decision_counts(folder)
    run = open_run(folder.root)
    if not folder.has_driver():
        left = left_to_do(folder, run.question, run.records)
        state = "stopped" if left else "finished"
        return RunStatus(folder.root, state, left, None, None, search, decision, None, None, ())
    return RunStatus(
        path=folder.root,
        state="running",
        left="",
        process=None if holder is None else holder.process,
        host=None if holder is None else holder.host,
        search=search,
        decision=decision,
        seconds_left=run_seconds_left(folder, run.spec, time.time()),
        cost=cost_so_far(run.records, run.estimate, run.spec),
        trials=TrialsNow(folder).read(),
    )


class TrialsNow:
    """The running trials of a run as often as asked: of its decision once that goes on, else its search."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._stage = stage_folder(folder, SAFEST_USEFUL)
        self._names: dict[str, str] = {}
        self._unknown: frozenset[str] = frozenset()

    def read(self) -> tuple[TrialNow, ...]:
        """Those that have started and not ended, the last to be heard of first.

        Raises:
            SweeperError: the folder cannot be read as a run.
        """
        at_work = self._stage if self._stage.has_driver() else self._folder
        found = sorted(running_trials(at_work), key=lambda item: -item.written_at)
        unknown = frozenset(item.trajectory_id for item in found) - self._names.keys()
        if unknown != self._unknown:
            self._names |= path_names(open_run(at_work.root).spec, self._folder)
            self._unknown = unknown - self._names.keys()
        return tuple(
            TrialNow(
                trial=item.trajectory_id,
                name=self._names.get(item.trajectory_id, f"trial {item.trajectory_id}"),
                stage=STAGES[item.stage],
                step=item.step,
                steps=item.steps,
                silent_seconds=max(0.0, time.time() - item.written_at),
            )
            for item in found
        )
