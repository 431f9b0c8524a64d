"""Heartbeats: writes the progress of the paths of an attempt to disk while they run."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from sweeper.store.folder import write_atomic
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.trial.path import RunningPath
from sweeper.trial.pending import PendingReadouts

SECONDS = 1.0
"""The shortest time between two writings within a stage."""

SHARE = 100
"""Within a stage, writing takes at most 1/SHARE of the time, so slow disks are written less often."""


class Heartbeat:
    """Writes the progress of paths at every change of stage, and about once a second in between.

    Only known values are written: no loss is fetched from a GPU for it. Disk errors are ignored here; a
    checkpoint or a record that cannot be written reports them.

    Args:
        pending: The readouts of the attempt. Only the main process of a trial writes.
        clock: A monotonic clock, in seconds.
        alive: Called at every heartbeat.
    """

    def __init__(
        self,
        pending: Sequence[PendingReadouts],
        clock: Callable[[], float] = time.monotonic,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._pending = [one for one in pending if one.world.is_main_process]
        self._running: dict[PendingReadouts, RunningPath] = {}
        self._alive = alive
        self._clock = clock
        self._due = clock()
        self._count: dict[PendingReadouts, int] = {}
        self._ended: set[PendingReadouts] = set()

    def follow(self, paths: Iterable[RunningPath]) -> None:
        """Report the progress of these paths from now on."""
        self._running = {path.pending: path for path in paths}

    def enter(self, stage: str, paths: Iterable[RunningPath]) -> None:
        """Report that paths enter a stage, or continue in it."""
        self._alive()
        changed = [path for path in dict.fromkeys(paths) if path.pending.stage != stage]
        for path in changed:
            path.pending.stage = stage
            path.pending.log.write("stage", stage=stage, step=path.trainer.step)
        if changed:
            self._write([path.pending for path in changed if path.pending in self._pending])
        else:
            self.tick()

    def tick(self) -> None:
        """Report progress."""
        self._alive()
        if self._clock() >= self._due:
            self._write([one for one in self._pending if one not in self._ended])

    def end(self) -> None:
        """Report that the attempt has ended."""
        self._write(self._pending, ended=True)
        self._running = {}

    def _write(self, pending: Iterable[PendingReadouts], ended: bool = False) -> None:
        began = self._clock()
        for one in pending:
            over = ended or not one.waiting
            if over:
                self._ended.add(one)
            path = one.storage.progress
            count = self._count.get(one)
            if count is None:
                before = read_trajectory(path)
                count = 0 if before is None else before.beat
            self._count[one] = count + 1
            step, losses = self._running[one].progress if one in self._running else (0, ())
            progress = TrajectoryProgress(
                trajectory_id=one.task.trajectory_id,
                stage="end" if over else one.stage,
                step=step,
                steps=max(readout.step for readout in one.task.readouts),
                losses=losses,
                beat=count + 1,
                written_at=time.time(),
            )
            with contextlib.suppress(OSError):
                write_atomic(path, progress.to_json(), durable=False)
        now = self._clock()
        self._due = now + max(SECONDS, SHARE * (now - began))
