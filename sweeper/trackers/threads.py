"""One thread for each tracker, so that a slow or broken one does not block the sweep."""

import hashlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from sweeper.errors import MissingExtraError, SweeperError
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.progress import read_trajectory
from sweeper.store.records import RecordObserver, TrialRecord
from sweeper.trackers.logged import Tracker, TrajectoryRun, configuration_of

CLOSE_SECONDS = 60.0
"""Seconds that the end of a sweep waits for its trackers."""

PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}
"""Tracker -> the package it needs."""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "WANDB_ERROR_REPORTING": "false",
}
"""Set unless the environment says otherwise: no telemetry, and few retries of a server that is down."""

_log = logging.getLogger("sweeper.trackers")

Opener = Callable[[SweepSpec, RunFolder], Tracker]


class Trackers:
    """The trackers a spec names. Records are passed on in the order they were written, without waiting."""

    def __init__(self, spec: SweepSpec, folder: RunFolder) -> None:
        """Check the requirements of the trackers.

        Raises:
            MissingExtraError: its package is not installed.
            SweeperError: W&B is to be online and has no key.
        """
        for name in spec.compute.trackers:
            check(name)
        self._threads = [
            TrackerThread(name, OPENERS[name], spec, folder)
            for name in dict.fromkeys(spec.compute.trackers)
        ]

    @contextmanager
    def observing(self) -> Iterator[RecordObserver]:
        """An observer that passes records to every tracker; on exit, trackers can finish."""

        def on_record(record: TrialRecord) -> None:
            for thread in self._threads:
                thread.record(record)

        try:
            yield on_record
        finally:
            until = time.monotonic() + CLOSE_SECONDS
            for thread in self._threads:
                thread.finish()
            for thread in self._threads:
                thread.close(max(0.0, until - time.monotonic()))


def check(name: str) -> None:
    """Reject a tracker that cannot work.

    Raises:
        MissingExtraError: its package is not installed.
        SweeperError: W&B is to be online and has no key.
    """
    package = PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(
            f"compute.trackers names {name}, which needs {package}; install it with "
            f"`pip install 'sweeper-llm[trackers]'`, or leave {name} out"
        )
    offline = os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun", "disabled")
    if name == "wandb" and not offline and not os.environ.get("WANDB_API_KEY"):
        raise SweeperError(
            "compute.trackers names wandb, and the environment has no WANDB_API_KEY; set it, or "
            "WANDB_MODE=offline to write below the run folder"
        )


class TrackerThread:
    """One tracker in its own thread. After its first failure it is disabled."""

    def __init__(self, name: str, opener: Opener, spec: SweepSpec, folder: RunFolder) -> None:
        self._name = name
        self._opener = opener
        self._spec = spec
        self._folder = folder
        self._tracker: Tracker | None = None
        self._pending: set[str] = set()
        self._failed = False
        self._waiting: set[Future[None]] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"tracker-{name}")

    def record(self, record: TrialRecord) -> None:
        """Log a record."""
        self._submit(lambda: self._record(record))

    def finish(self) -> None:
        """Log the remaining curves."""
        self._submit(self._curves)

    def close(self, seconds: float) -> None:
        """Wait at most this many seconds; the rest is not logged."""
        left = wait(self._waiting.copy(), timeout=seconds).not_done
        if left and not self._failed:
            _log.warning(
                "%s did not finish within %.0f s; %d runs are missing there. The sweep itself is not "
                "affected",
                self._name,
                CLOSE_SECONDS,
                len(left),
            )
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], None]) -> None:
        if not self._failed:
            future = self._thread.submit(work)
            self._waiting.add(future)
            future.add_done_callback(self._done)

    def _done(self, future: "Future[None]") -> None:
        self._waiting.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is not None and not self._failed:
            self._failed = True
            _log.warning(
                "%s failed and is disabled; the sweep itself is not affected: %s: %s",
                self._name,
                type(error).__name__,
                error,
            )

    def _record(self, record: TrialRecord) -> None:
        if self._failed:
            return
        self._open().configuration(configuration_of(record))
        self._pending.add(record.trajectory_id)
        self._curves()

    def _open(self) -> Tracker:
        if self._tracker is None:
            self._tracker = self._opener(self._spec, self._folder)
        return self._tracker

    def _curves(self) -> None:
        """Log the trajectories that have ended: earlier losses may be those of a decay tail."""
        for trajectory_id in sorted(self._pending):
            if self._failed:
                return
            found = read_trajectory(self._folder.trial(trajectory_id).progress)
            if found is not None and not found.running:
                self._pending.discard(trajectory_id)
                if found.losses:
                    self._open().trajectory(TrajectoryRun(trajectory_id, found.losses))


def sweep_key(folder: RunFolder) -> str:
    """A key that separates the runs of this run folder from others on the same server."""
    info = folder.read_info() or {}
    text = f"{info.get('spec_hash')} {info.get('created_at')}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:8]


def _set_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _tensorboard(spec: SweepSpec, folder: RunFolder) -> Tracker:
    from sweeper.trackers.to_tensorboard import TensorBoard

    return TensorBoard(folder.root / "tensorboard")


def _mlflow(spec: SweepSpec, folder: RunFolder) -> Tracker:
    _set_environment()
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        uri = (folder.root / "mlruns").resolve().as_uri()
    from sweeper.trackers.to_mlflow import MLflow

    return MLflow(uri, spec.name, sweep_key(folder))


def _wandb(spec: SweepSpec, folder: RunFolder) -> Tracker:
    _set_environment()
    from sweeper.trackers.to_wandb import WandB

    return WandB(folder.root, spec.name, sweep_key(folder))


OPENERS: dict[str, Opener] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
"""Tracker -> the function that opens it; its package is imported in its thread, as that is slow."""
