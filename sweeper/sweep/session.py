"""The Ray that a run uses: started once, beside other work, for its search and for its decision."""

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import ray
from ray.exceptions import AuthenticationError

from sweeper.errors import ClusterTokenError, SweeperError
from sweeper.estimate.inputs import Machine, this_machine
from sweeper.sweep.ray_sockets import check_socket_path
from sweeper.task import ComputeSettings

_ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Activations come and go by the megabyte; returning them to the system each time costs a fifth.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Once Tune has reserved every CPU, Ray ends the workers that wait for its trials as too many: work that
    # has just been given to one of them then never starts.
    "RAY_kill_idle_workers_interval_ms": "0",
}

PRELOADED = "sweeper.sweep.trials,sweeper.trial.run"
"""What a worker of a local Ray imports before it is given anything to do."""

_PRELOAD = "RAY_preload_python_modules"
_ALONE = threading.Lock()
"""A process is in one Ray at a time."""


class RaySession:
    """A Ray that starts in the background, and stops when the block ends; nothing starts before `begin`.

    One thread starts Ray, lives as long as it does, and stops it: Linux kills Ray's processes as soon as
    the thread that started them has ended.

    Args:
        compute: Which cluster to join, else how much of this machine a trial takes.
        paths: How many there are to train, where workers should make themselves ready for `run_pack`.
    """

    def __init__(self, compute: ComputeSettings, paths: int = 0) -> None:
        self._compute = compute
        self._paths = paths
        # Without an address Ray would join the cluster that `ray start` last wrote down, even a dead one.
        self._address = compute.ray_address or os.environ.get("RAY_ADDRESS") or "local"
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._over = threading.Event()
        self._failure: Exception | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a Ray of this run alone, whose size does not change."""
        return self._address == "local"

    def begin(self) -> None:
        """Begin to start Ray, if that has not begun; an error is raised by `wait`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, daemon=True, name="ray session")
            self._thread.start()

    def wait(self) -> None:
        """Return once Ray has started.

        Raises:
            SweeperError: it cannot be started or joined.
        """
        self.begin()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> "RaySession":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop Ray, also while it starts."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _live(self) -> None:
        with _ALONE:
            try:
                if self._over.is_set():
                    return
                with _kept_handler(signal.SIGTERM):
                    start_ray(self._address, preload=self._preloads())
            except Exception as error:  # noqa: BLE001 - raised where Ray is needed
                self._failure = error
                return
            finally:
                self._started.set()
            self._over.wait()
            ray.shutdown()

    def _preloads(self) -> bool:
        return self.is_local and fills(this_machine(), self._compute, self._paths)


@contextmanager
def _kept_handler(number: int) -> Iterator[None]:
    """Put back what handled a signal before: Ray's core sets a handler that aborts the process.

    From any thread; Python's own `signal.signal` works in the main one only.
    """
    libc = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(1024)  # `struct sigaction` is smaller.
    known = libc.sigaction(number, None, before) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaction(number, before, None)


def fills(machine: Machine, compute: ComputeSettings, paths: int) -> bool:
    """Whether the workers of a sweep take every CPU of a machine without GPUs.

    Ray starts a process for each CPU at once. Where not all are used, they import nothing; nor where
    there are GPUs: bitsandbytes looks at them when imported, before Ray has said which the worker has.
    """
    limit = compute.max_concurrent_trials
    most = paths if limit is None else min(paths, limit)
    return not machine.gpus and compute.cpus_per_trial == 1 and most >= machine.cpus


def start_ray(address: str, preload: bool = False) -> None:
    """Start Ray, or join a cluster.

    Args:
        address: Of the cluster; `local` starts one on this machine.
        preload: Let the workers of a local one import PRELOADED at once.

    Raises:
        SweeperError: it cannot be started or joined.
    """
    local = address == "local"
    if local:
        check_socket_path()
    os.environ.update(_ENVIRONMENT)
    os.environ.pop(_PRELOAD, None)
    if preload:
        os.environ[_PRELOAD] = PRELOADED
    try:
        ray.init(
            address=address,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # A local Ray inherits it; with an environment of its own a worker starts, and imports, twice.
            runtime_env=None if local else {"env_vars": _ENVIRONMENT},
        )
    except AuthenticationError as error:
        raise ClusterTokenError(address, str(error)) from None
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "a local cluster" if local else address
        first = str(error).strip().splitlines()[0]
        raise SweeperError(
            f"cannot connect Ray to {where}: {first}; check compute.ray_address, or stop a leftover "
            "cluster with `ray stop`"
        ) from None


def cluster_resources(address: str) -> dict[str, float]:
    """The resources of a running cluster, which is joined briefly.

    Raises:
        SweeperError: the cluster cannot be joined.
    """
    with RaySession(ComputeSettings(ray_address=address)) as session:
        session.wait()
        return dict(ray.cluster_resources())
