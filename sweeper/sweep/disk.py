"""The disk a run takes: how much is there, whether a run fits, and a quota that is kept while it runs."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from sweeper.errors import DiskQuotaError
from sweeper.estimate import DiskNeed
from sweeper.memory import GIB
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordObserver, TrialRecord

SHARE = 0.05
"""What is done beside the records takes at most this share of the driver's time."""

Clock = Callable[[], float]


class RateLimited:
    """Calls something that takes its time only so often that it takes at most SHARE of all time."""

    def __init__(self, work: Callable[[], None], seconds: Clock = time.monotonic) -> None:
        self._work = work
        self._seconds = seconds
        self._next = seconds()

    def __call__(self) -> None:
        """Do the work, or nothing where it was done a short while ago."""
        begun = self._seconds()
        if begun < self._next:
            return
        self._work()
        ended = self._seconds()
        self._next = ended + (ended - begun) / SHARE


def used_bytes(root: Path) -> int:
    """Bytes of the files below a folder; links are not followed, and what vanishes meanwhile is nothing."""
    total = 0
    for place, _, files in os.walk(root):
        for name in files:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue
    return total


def free_disk_bytes(path: Path) -> int:
    """What is free for this user on the file system that a path lies on, or would."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def check_disk(need: DiskNeed, spec: SweepSpec, folder: RunFolder) -> None:
    """Refuse a run that needs more than its quota, or more than is free beside what it has taken already.

    Raises:
        DiskQuotaError: with the parts of the need and what would help.
    """
    quota, total = spec.compute.disk_quota_gib, need.total_bytes
    parts = ", ".join(f"{name} {_gib(n)}" for name, n in need.to_data().items() if n and n < total)
    text = f"the run needs about {_gib(total)} of disk ({parts})"
    if quota is not None and total > quota * GIB:
        raise DiskQuotaError(
            f"{text}, and compute.disk_quota_gib allows {quota:g} GiB; raise it, or {_remedies(spec)}",
            code="quota.plan",
            quota_gib=quota,
        )
    free, used = free_disk_bytes(folder.root), used_bytes(folder.root)
    if total > free + used:
        raise DiskQuotaError(
            f"{text}, and {_gib(free)} are free where {folder.root} lies; choose another place with "
            f"--out, or {_remedies(spec)}; `--no-disk-check` tries it all the same",
            code="quota.no_space",
            free_bytes=free,
        )


def _remedies(spec: SweepSpec) -> str:
    fewer = "lower compute.max_concurrent_trials or compute.adapters_per_trial"
    kept = spec.compute.keep_weights
    return fewer if kept == "none" else f"{fewer}, or keep fewer weights (keep_weights: {kept})"


def quota_check(
    spec: SweepSpec, folder: RunFolder, seconds: Clock = time.monotonic
) -> RecordObserver:
    """An observer that raises DiskQuotaError once the run folder is larger than its quota.

    The record it is called with is on disk by then, so the same command continues with a higher quota.
    """
    quota = spec.compute.disk_quota_gib

    def check() -> None:
        used = used_bytes(folder.root)
        if quota is not None and used > quota * GIB:
            raise DiskQuotaError(
                f"{folder.root} has {_gib(used)}, and compute.disk_quota_gib allows {quota:g} GiB; "
                "all finished results are saved: raise the quota, or delete what `sweeper clean` "
                "lists; the same command continues",
                code="quota.used_up",
                path=folder.root,
                used_bytes=used,
                quota_gib=quota,
            )

    paced = RateLimited(check, seconds)

    def on_record(record: TrialRecord) -> None:
        if quota is not None:
            paced()

    return on_record


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 100 else f"{count / 2**20:.2f} MiB"
