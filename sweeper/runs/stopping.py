"""Stops the driver of a run."""

import os
import signal
from pathlib import Path

from sweeper.errors import RunFolderError
from sweeper.launch import last_job
from sweeper.store.folder import RunFolder
from sweeper.store.lock import Holder, this_machine


def stop_driver(folder: RunFolder) -> int:
    """Ask the driver of a run to end, as Ctrl-C does, without waiting for it.

    It runs on this machine, or in the Slurm job of the run, which looks into the run folder.

    Returns: Its process.

    Raises:
        RunFolderError: none runs, it runs on another machine otherwise, or it belongs to another user.
    """
    holder = Holder.read(folder.lock)
    elsewhere = holder is not None and (holder.host, holder.boot) != this_machine()
    # Some shared file systems show a lock to its own machine only.
    if holder is None or not (elsewhere or folder.has_driver()):
        raise RunFolderError(
            f"no sweep is running in {folder.root}, so there is nothing to stop; `sweeper status` shows "
            "its state",
            code="run.not_running",
            path=folder.root,
        )
    if elsewhere:
        job = last_job(folder.launch)
        if job is not None and job.stop():
            return holder.process
        raise RunFolderError(
            f"the sweep in {folder.root} runs on {holder.host}, not on this machine, unless it was killed "
            "there; stop it there",
            code="run.not_running",
            path=folder.root,
        )
    # Background jobs of a shell ignore Ctrl-C; `sweeper run` treats SIGTERM alike, a notebook would end.
    ignored = _ignores(holder.process, signal.SIGINT)
    try:
        os.kill(holder.process, signal.SIGTERM if ignored else signal.SIGINT)
    except OSError as error:
        raise RunFolderError(
            f"process {holder.process}, which runs {folder.root}, cannot be stopped: {error.strerror}; "
            "stop it as its user",
            code="run.not_running",
            path=folder.root,
        ) from None
    return holder.process


def _ignores(process: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal; False where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
        mask = next(line for line in lines if line.startswith("SigIgn:")).split()[1]
        return bool(int(mask, 16) >> (number - 1) & 1)
    except (OSError, StopIteration, ValueError):
        return False
