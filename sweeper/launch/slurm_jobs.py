"""The Slurm job of a run folder, seen from any machine that sees the folder: its state, and how to stop it.

`launch` notes the id of the last job that it submitted in RUN/launch/slurm-job.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from sweeper.store.folder import write_atomic

_SECONDS = 30


class SlurmJob(NamedTuple):
    """The id of a job, and its files below RUN/launch."""

    id: str
    launch: Path

    @property
    def log(self) -> Path:
        """What the job prints."""
        return self.launch / f"slurm-{self.id}.log"

    def state(self) -> str | None:
        """Such as `PENDING (Priority)`; empty or None once it has left the queue, or without `squeue`."""
        return _slurm("squeue", "--noheader", "--format=%T (%r)", "--jobs", self.id)

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
        return _slurm("scancel", self.id) is not None


def note_job(launch: Path, said: str) -> None:
    """Keep the id of a job from what sbatch said."""
    found = re.search(r"Submitted batch job (\d+)", said)
    if found is not None:
        write_atomic(launch / "slurm-job", found[1])


def last_job(launch: Path) -> SlurmJob | None:
    """The job that was last submitted for a run; None if there is none."""
    try:
        text = (launch / "slurm-job").read_text(encoding="utf-8")
    except OSError:
        return None
    return SlurmJob(text, launch) if text.isascii() and text.isdigit() else None


def _slurm(tool: str, *words: str) -> str | None:
    """The output of a tool of Slurm's; None if there is no such tool, or it fails."""
    if shutil.which(tool) is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            [tool, *words], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
