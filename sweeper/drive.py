"""The Ray Tune driver: one trial per pack of trajectories, one writer of records.jsonl.

The only file importing ray. The trial function comes in as an argument; a test drives a fake through the
same code. Records travel to the driver as plain fields of a Tune result and never as Tune's metric. Ray's
own files under `ray/` are scratch: resuming looks at records.jsonl and at each trial's checkpoint alone.
"""

import itertools
import logging
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.exceptions import AuthenticationError
from ray.tune.search import Searcher

from sweeper.errors import ClusterTokenError, SweeperError
from sweeper.folder import RunFolder, TrialStorage
from sweeper.placement import trial_resources, worker_count
from sweeper.plan import Pack, make_packs
from sweeper.records import RecordWriter, TrialRecord, lost_records
from sweeper.spec import SweepSpec
from sweeper.task import TrajectoryTask

Keys = frozenset[tuple[str, int]]
TrialFunction = Callable[
    [Sequence[TrajectoryTask], Callable[[str], TrialStorage], Keys], Iterator[Sequence[TrialRecord]]
]
Listener = Callable[[TrialRecord], None]

WORKER_RESTARTS = 2
"""How often a trial whose worker process died is started again before it counts as failed."""

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
}


class PackSearcher(Searcher):
    """Hands out packs in order, each with the configurations it may skip; knows nothing of metrics.

    The packs come in rounds. The next round is asked for when nothing of the one before is running, so
    that it can build on all its records.
    """

    def __init__(self, rounds: Iterator[Sequence[Pack]], keys: Set[tuple[str, int]]) -> None:
        super().__init__()
        self._rounds = rounds
        self._keys = keys
        self._waiting: deque[Pack] = deque()
        self._running: set[str] = set()
        self.failure: SweeperError | None = None

    def suggest(self, trial_id: str) -> Any:
        """The next pack, None while a round has to end first, or that there are no more."""
        if not self._waiting and self._running:
            return None
        try:
            while not self._waiting:
                self._waiting.extend(next(self._rounds))
        except StopIteration:
            return Searcher.FINISHED
        except SweeperError as error:  # Tune would wrap it beyond recognition.
            self.failure = error
            return Searcher.FINISHED
        pack = self._waiting.popleft()
        self._running.add(trial_id)
        return {"tasks": [task.to_json() for task in pack], "done": _done(pack, self._keys)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """One trial less to wait for. Nothing to learn: records are the source of truth."""
        self._running.discard(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles searchers for its own restoring, which is never used."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: a driver that starts again works out what is left from the records."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def _done(pack: Pack, keys: Set[tuple[str, int]]) -> list[tuple[str, int]]:
    own = ((readout.config_id, task.seed) for task in pack for readout in task.readouts)
    return [key for key in own if key in keys]


def _read(config: Mapping[str, Any]) -> list[TrajectoryTask]:
    return [TrajectoryTask.from_json(text) for text in config["tasks"]]


class PackTrainable(tune.Trainable):
    """One Tune trial: every step carries some records back; the actor is reused by the next trial."""

    def setup(  # type: ignore[override]  # `with_parameters` fills in the last two
        self, config: dict[str, Any], run: TrialFunction, root: RunFolder
    ) -> None:
        """Start on the pack in `config`."""
        self._run = run
        self._root = root
        self._start(config)

    def _start(self, config: dict[str, Any]) -> None:
        done = frozenset((config_id, seed) for config_id, seed in config["done"])
        self._records = self._run(_read(config), self._root.trial, done)

    def step(self) -> dict[str, Any]:
        """The next records, as JSON; after the last ones, `done`."""
        records = next(self._records, None)
        if records is None:
            return {"done": True}
        return {"records": [record.to_json() for record in records]}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next pack in the same process."""
        self.cleanup()
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """Let the trial function release what it holds."""
        close = getattr(self._records, "close", None)
        if close is not None:
            close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Trials write their own checkpoints; Tune keeps none."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""


class _Recorder(tune.Callback):
    """Appends what comes back, and writes `failed` records for trials whose worker is lost for good."""

    def __init__(self, folder: RunFolder, writer: RecordWriter, listener: Listener) -> None:
        self._folder = folder
        self._writer = writer
        self._listener = listener
        self.failure: OSError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles callbacks for its own restoring, which is never used."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep what came back."""
        for text in result.get("records", ()):
            self._keep(TrialRecord.from_json(text))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Delete what a finished trajectory no longer needs."""
        for task in _read(trial.config):
            _tidy(self._folder, task)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died more often than it may: every readout it still owed is `failed`."""
        message = str(trial.get_error() or "the worker process died").strip().splitlines()[-1]
        for task in _read(trial.config):
            for path in sorted(self._folder.trial(task.trajectory_id).outbox.glob("*.json")):
                self._keep(TrialRecord.from_json(path.read_text(encoding="utf-8")))
            for record in lost_records(task, message):
                self._keep(record)

    def _keep(self, record: TrialRecord) -> None:
        if record.key in self._writer.keys:
            return
        try:
            self._writer.append(record)
        except OSError as error:  # Tune would wrap it beyond recognition.
            self.failure = error
            raise
        self._listener(record)


def drive(
    tasks: Sequence[TrajectoryTask],
    spec: SweepSpec,
    folder: RunFolder,
    run: TrialFunction,
    listener: Listener = lambda record: None,
    later: Iterable[Sequence[TrajectoryTask]] = (),
) -> None:
    """Run the tasks whose records are not all there, and append every new record.

    Args:
        tasks: All trajectories of the sweep, in the order they should start.
        spec: Its `compute` block says what one trial may use and which cluster to join.
        folder: The run folder; the caller holds its lock.
        run: What does one pack.
        listener: Called in this process after each record is on disk.
        later: Further tasks, round by round. Each round is asked for when every record of the ones before
            is on disk.

    Raises:
        SweeperError: Ray cannot be started or joined.
        RecordError: records.jsonl cannot be trusted.
    """
    writer = RecordWriter(folder.records)
    try:
        rounds = _unfinished(itertools.chain([tasks], later), writer, folder)
        first = next(rounds, None)
        if first is None:
            return
        _start_ray(spec.compute.ray_address)
        try:
            recorder = _Recorder(folder, writer, listener)
            _tune(itertools.chain([first], rounds), spec, folder, run, recorder, writer.keys)
        finally:
            ray.shutdown()
    finally:
        writer.close()


def _unfinished(
    rounds: Iterable[Sequence[TrajectoryTask]], writer: RecordWriter, folder: RunFolder
) -> Iterator[list[TrajectoryTask]]:
    """What is left to do of each round; rounds of which nothing is left are passed over."""
    for tasks in rounds:
        left = []
        for task in tasks:
            if _finished(task, writer):
                _tidy(folder, task)
            else:
                left.append(task)
        if left:
            yield left


def _finished(task: TrajectoryTask, writer: RecordWriter) -> bool:
    return all((item.config_id, task.seed) in writer.keys for item in task.readouts)


def _tidy(folder: RunFolder, task: TrajectoryTask) -> None:
    """Delete what a finished trajectory no longer needs."""
    storage = folder.trial(task.trajectory_id)
    storage.drop_checkpoints()
    shutil.rmtree(storage.outbox, ignore_errors=True)


def _start_ray(asked: str | None) -> None:
    # Without a word Ray would join whatever `ray start` last noted down, be it long dead.
    address = asked or os.environ.get("RAY_ADDRESS") or "local"
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # What fails becomes a record.
    ours = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _ENVIRONMENT},
        )
    except AuthenticationError as error:
        raise ClusterTokenError(address, str(error)) from None
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "a local cluster" if address == "local" else address
        first = str(error).strip().splitlines()[0]
        raise SweeperError(
            f"Ray cannot use {where}: {first}; check compute.ray_address, or stop a leftover "
            "cluster with `ray stop`"
        ) from None
    if ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)  # Ray has put its own in its place.


def cluster_resources(address: str) -> dict[str, float]:
    """What a running cluster has, by joining it for a moment.

    Raises:
        SweeperError: it cannot be joined.
    """
    _start_ray(address)
    try:
        return dict(ray.cluster_resources())
    finally:
        ray.shutdown()


def _tune(
    rounds: Iterator[Sequence[TrajectoryTask]],
    spec: SweepSpec,
    folder: RunFolder,
    run: TrialFunction,
    recorder: _Recorder,
    keys: Set[tuple[str, int]],
) -> None:
    cluster = ray.cluster_resources()
    resources = trial_resources(spec, cluster)
    device = "cuda" if resources["GPU"] else "cpu"
    workers = worker_count(resources, cluster, spec.compute.max_concurrent_trials)

    def packed(tasks: Sequence[TrajectoryTask]) -> list[Pack]:
        placed = [replace(task, compute=replace(task.compute, device=device)) for task in tasks]
        return make_packs(placed, spec.compute.pack, workers)

    searcher = PackSearcher(map(packed, rounds), keys)
    trainable = tune.with_parameters(PackTrainable, run=run, root=folder)
    shutil.rmtree(folder.ray, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # Until the searcher says that there are no more.
            max_concurrent_trials=spec.compute.max_concurrent_trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.ray.name,
            storage_path=str(folder.root.resolve()),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=WORKER_RESTARTS),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
        if searcher.failure is not None:
            raise searcher.failure
    except tune.TuneError as error:
        if recorder.failure is not None:
            raise recorder.failure from None
        last = str(error).strip().splitlines()[-1]
        raise SweeperError(f"Ray Tune stopped: {last}; the same command continues") from None
