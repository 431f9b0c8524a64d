"""The Slurm job of a run, seen from any machine that sees its folder: its state, and how to stop it."""

import re
from pathlib import Path
from typing import NamedTuple

from sweeper.launch.tools import answer


class SlurmJob(NamedTuple):
    """The id of a job, and its files below RUN/launch."""

    id: str
    launch: Path

    @property
    def title(self) -> str:
        """What it is called for people."""
        return f"Slurm job {self.id}"

    @property
    def log(self) -> str:
        """The file of what the job prints."""
        return str(self.launch / f"slurm-{self.id}.log")

    def state(self) -> str | None:
        """Such as `PENDING (Priority)`; empty or None once it has left the queue, or without `squeue`."""
        return answer("squeue", "--noheader", "--format=%T (%r)", "--jobs", self.id)

    def stop(self) -> bool:
        """Let the job that runs, this or one before, end its sweep like Ctrl-C; False if none does."""
        running = list(self.launch.glob("job-*"))
        for place in running:
            (place / "stop").touch()
        return bool(running)

    def cancel(self, *, only_waiting: bool) -> bool:
        """Take it out of the queue; whether it was there."""
        state = self.state() or ""
        if not state or (only_waiting and not state.startswith("PENDING")):
            return False
        return answer("scancel", self.id) is not None


def submitted_id(said: str) -> str | None:
    """The id of a job from what sbatch said; None if it said none."""
    found = re.search(r"Submitted batch job (\d+)", said)
    return None if found is None else found[1]
