"""Stops the driver of a run, or one of its paths."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from sweeper.analysis import SAFEST_USEFUL
from sweeper.errors import RunFolderError
from sweeper.launch import last_job
from sweeper.planning import Trajectory
from sweeper.runs.run import open_run
from sweeper.runs.trials_now import planned_paths
from sweeper.store.folder import RunFolder, write_with_retry
from sweeper.store.lock import Holder, this_machine
from sweeper.store.records import read_records
from sweeper.sweep.decision import stage_folder


def stop_driver(folder: RunFolder) -> int:
    """Ask the driver of a run to end, as Ctrl-C does, without waiting for it.

    It runs on this machine, or in the job that was launched for the run.

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


def stop_path(folder: RunFolder, name: str) -> list[str]:
    """Stop what is trained for one configuration, or one path, for good; the rest of the run goes on.

    Its trials look for the mark that is left here: at the next optimizer step, on several GPUs at the next
    readout, and where none runs, when one would begin. Every configuration of the path that has no record
    yet becomes `pruned`, so it is neither recommended nor trained again.

    Args:
        folder: Of the run. Once its decision has begun, the paths of that are looked at first.
        name: The id of a path or of a configuration, or the beginning of one.

    Returns: The ids of the paths: one, or of a configuration one for each seed.

    Raises:
        RunFolderError: no unfinished path has this name, or several unrelated ones do.
    """
    stage = stage_folder(folder, SAFEST_USEFUL)
    for at in (stage, folder) if stage.info.exists() else (folder,):
        known = {record.key for record in read_records(at.records).records}
        paths = [
            path
            for path in planned_paths(open_run(at.root).spec, folder)
            if any((item.config_id, path.seed) not in known for item in path.configurations)
        ]
        if found := _named(paths, name):
            for trajectory_id in found:
                storage = at.trial(trajectory_id)
                storage.create()
                write_with_retry(storage.stop_mark, b"")
            return found
    raise RunFolderError(
        f"no unfinished path of {folder.root} is, or holds, `{name}`; `sweeper status` and `sweeper logs` "
        "name the paths that run, `sweeper front --all` the configurations",
        code="run.no_such_path",
        path=folder.root,
    )


def stopped_path_text(trajectory_ids: Sequence[str]) -> str:
    """What happens to paths that `stop_path` has marked."""
    several = len(trajectory_ids) > 1
    return (
        f"path{'s' * several} {', '.join(trajectory_ids)} end{'s' * (not several)} at the next step, on "
        "several GPUs at the next readout; configurations without a record become `pruned`, which `resume` "
        "does not train again: remove their lines from records.jsonl for that"
    )


def _named(paths: Sequence[Trajectory], name: str) -> list[str]:
    """The ids of the paths that are meant."""
    by_id = {path.trajectory_id for path in paths if path.trajectory_id.startswith(name)}
    held = {
        item.config_id
        for path in paths
        for item in path.configurations
        if item.config_id.startswith(name)
    }
    if len(by_id | held) > 1:
        raise RunFolderError(
            f"`{name}` is the beginning of {len(by_id | held)} ids; give more of the one that is meant",
            code="run.no_such_path",
        )
    holders = (p for p in paths if held & {item.config_id for item in p.configurations})
    return sorted(by_id | {path.trajectory_id for path in holders})


def _ignores(process: int, number: signal.Signals) -> bool:
    """Whether a process ignores a signal; False where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
        mask = next(line for line in lines if line.startswith("SigIgn:")).split()[1]
        return bool(int(mask, 16) >> (number - 1) & 1)
    except (OSError, StopIteration, ValueError):
        return False
