"""Signs of life: how far the members of an attempt are, on disk while they run."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence

from sweeper.store.folder import write_atomic
from sweeper.store.progress import TrajectoryProgress, read_trajectory
from sweeper.trial.member import Member

SECONDS = 1.0
"""The shortest time between two writings within a stage."""

SHARE = 100
"""Within a stage, writing takes at most one part in so many of the time: a slow disk is written less."""


class Heartbeat:
    """Writes the progress of members at every change of stage, and about once a second in between.

    Only what is known already is written: no loss is fetched from a GPU for it. A disk that refuses
    is ignored here; checkpoint and record, without which a trial cannot go on, will say so.
    """

    def __init__(
        self,
        members: Sequence[Member],
        clock: Callable[[], float] = time.monotonic,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._members = tuple(members)
        self._alive = alive
        self._clock = clock
        self._due = clock()
        self._count: dict[Member, int] = {}
        self._ended: set[Member] = set()

    def enter(self, stage: str, members: Iterable[Member]) -> None:
        """Members begin a stage, or go on in it."""
        self._alive()
        changed = [member for member in members if member.stage != stage]
        for member in changed:
            member.stage = stage
        if changed:
            self._write([member for member in changed if member in self._members])
        else:
            self.tick()

    def tick(self) -> None:
        """Something was done."""
        self._alive()
        if self._clock() >= self._due:
            self._write([member for member in self._members if member not in self._ended])

    def end(self) -> None:
        """No member is worked on any more."""
        self._write(self._members, ended=True)

    def _write(self, members: Iterable[Member], ended: bool = False) -> None:
        began = self._clock()
        for member in members:
            over = ended or not member.waiting
            if over:
                self._ended.add(member)
            path = member.storage.progress
            count = self._count.get(member)
            if count is None:
                before = read_trajectory(path)
                count = 0 if before is None else before.beat
            self._count[member] = count + 1
            step, losses = member.reached()
            progress = TrajectoryProgress(
                trajectory_id=member.task.trajectory_id,
                stage="end" if over else member.stage,
                step=step,
                steps=max(readout.step for readout in member.task.readouts),
                losses=losses,
                beat=count + 1,
                written_at=time.time(),
            )
            with contextlib.suppress(OSError):
                write_atomic(path, progress.to_json(), durable=False)
        now = self._clock()
        self._due = now + max(SECONDS, SHARE * (now - began))
