"""Disk space of a run: what is free, whether the run fits, and the quota while it runs."""

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
"""Rate-limited work takes at most this share of the driver's time."""

Clock = Callable[[], float]


class RateLimited:
    """Calls a slow function only so often that it takes at most SHARE of the elapsed time."""

    def __init__(self, work: Callable[[], None], seconds: Clock = time.monotonic) -> None:
        self._work = work
        self._seconds = seconds
        self._next = seconds()

    def __call__(self) -> None:
        """Call the function, unless the last call was too recent."""
        begun = self._seconds()
        if begun < self._next:
            return
        self._work()
        ended = self._seconds()
        self._next = ended + (ended - begun) / SHARE


def used_bytes(root: Path) -> int:
    """The size of all files below a folder; links are not followed, and vanished files are skipped."""
    total = 0
    for place, _, files in os.walk(root):
        for name in files:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:
                continue
    return total


def free_disk_bytes(path: Path) -> int:
    """The bytes free for this user on the file system of a path that may not exist yet."""
    there = path.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def check_disk(need: DiskNeed, spec: SweepSpec, folder: RunFolder) -> None:
    """Reject a run that needs more than its quota, or more than the free space plus its existing files.

    Raises:
        DiskQuotaError: the message lists the parts of the need and the remedies.
    """
    quota, total = spec.compute.disk_quota_gib, need.total_bytes
    parts = ", ".join(f"{name} {_gib(n)}" for name, n in need.to_data().items() if n and n < total)
    text = f"the run needs about {_gib(total)} of disk ({parts})"
    if quota is not None and total > quota * GIB:
        raise DiskQuotaError(
            f"{text}, but compute.disk_quota_gib is {quota:g} GiB; increase it, or {_remedies(spec)}",
            code="quota.plan",
            quota_gib=quota,
        )
    free, used = free_disk_bytes(folder.root), used_bytes(folder.root)
    if total > free + used:
        raise DiskQuotaError(
            f"{text}, but only {_gib(free)} are free on the disk of {folder.root}; choose another folder "
            f"with --out, or {_remedies(spec)}; use `--no-disk-check` to run anyway",
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
                f"{folder.root} takes {_gib(used)}, but compute.disk_quota_gib is {quota:g} GiB; "
                "all finished results are saved: increase the quota, or delete what `sweeper clean` "
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
