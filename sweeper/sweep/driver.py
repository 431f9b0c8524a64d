"""The Ray Tune driver: one trial per pack of trajectories, one writer of records.jsonl.

The trial function comes in as an argument; a test drives a
fake through the same code. Ray's own files under `ray/` are scratch: resuming looks at records.jsonl and
at each trial's checkpoint alone.
"""

import itertools
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray import tune
from ray.tune.execution.class_cache import DEFAULT_ENV_VARS, ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import FIFOScheduler

from sweeper.errors import SweeperError
from sweeper.planning import Pack, make_packs
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordObserver, RecordWriter, TrialRecord, lost_records
from sweeper.store.retry import with_retry
from sweeper.sweep.budget_schedule import Phase
from sweeper.sweep.gpu_fit import TooSmall, gpu_memory, needed_bytes, too_small
from sweeper.sweep.placement import machines, trial_resources, without_gpu, worker_count
from sweeper.sweep.rounds import is_adaptive
from sweeper.sweep.schedule import RoundSchedule, Schedule
from sweeper.sweep.session import RaySession
from sweeper.sweep.trials import (
    RECORDS,
    REFUSED,
    Keys,
    PackFunction,
    PackSearcher,
    PackTrainable,
    ScheduleStopper,
    tasks_of,
)
from sweeper.sweep.waiting import WaitingNotice
from sweeper.task import TrajectoryTask

__all__ = ["Keys", "PackFunction", "drive"]

_log = logging.getLogger("sweeper.sweep.driver")

Guard = Callable[[], None]

WORKER_RESTARTS = 2
"""How often a trial whose worker process died is started again before it counts as failed."""


class _Recorder(tune.Callback):
    """Appends the records of trials, and writes `failed` records for trials whose worker is lost."""

    def __init__(
        self,
        folder: RunFolder,
        writer: RecordWriter,
        on_record: RecordObserver,
        guard: Guard,
    ) -> None:
        self._folder = folder
        self._guard = guard
        self._writer = writer
        self._on_record = on_record
        self.schedule: Schedule | None = None
        self.failure: OSError | SweeperError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Empty: Tune pickles callbacks to restore runs, which we never do."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The clock of the pack begins to run."""
        if self.schedule is not None:
            self.schedule.started(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Write the records of a result; stop the run if the storage of a worker failed."""
        for text in result.get(RECORDS, ()):
            self._keep(TrialRecord.from_json(text))
        if REFUSED in result:
            self.failure = result[REFUSED]
            raise result[REFUSED]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Delete what a finished trajectory no longer needs."""
        for task in tasks_of(trial.config):
            _tidy(self._folder, task)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died too often: its remaining readouts are recorded as `failed`."""
        message = str(trial.get_error() or "the worker process died").strip().splitlines()[-1]
        tasks = tasks_of(trial.config)
        storages = [self._folder.trial(task.trajectory_id) for task in tasks]
        stalled = [note for storage in storages for note in storage.stall_notes()]
        for task in tasks:
            for path in sorted(self._folder.trial(task.trajectory_id).outbox.glob("*.json")):
                self._keep(TrialRecord.from_json(with_retry(partial(_text, path), path)))
            for record in lost_records(task, message, stalled):
                self._keep(record)

    def _keep(self, record: TrialRecord) -> None:
        if record.key in self._writer.keys:
            return
        try:
            self._guard()
            self._writer.append(record)
            self._on_record(record)
            if self.schedule is not None:
                self.schedule.on_record(record)
        except (OSError, SweeperError) as error:  # Tune would hide its class.
            self.failure = error
            raise


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def drive(
    rounds: Iterable[Sequence[TrajectoryTask]],
    spec: SweepSpec,
    folder: RunFolder,
    run: PackFunction,
    on_record: RecordObserver = lambda record: None,
    guard: Guard = lambda: None,
    phase: Phase | None = None,
    session: RaySession | None = None,
) -> bool:
    """Run the tasks that have missing records, and append every new record.

    Args:
        rounds: The trajectories of the sweep in the order they should start, round by round. A round is
            taken from the iterator when all records of the previous rounds are on disk, or, where the
            search is adaptive, when a worker has nothing else to do; an empty one means to wait.
        spec: Its `compute` block says what one trial may use and which cluster to join.
        folder: The run folder; the caller holds its lock.
        run: Runs one pack.
        on_record: Called in this process after each record is on disk; an error it raises ends the run.
        guard: Called before each record is written; raises if another driver has taken the folder over.
        phase: The budget; its `end` is set where it ended the run. None: there is none.
        session: The Ray to use, which the caller closes. None: one for this call alone.

    Returns:
        Whether all rounds were completed; False after an interruption, or at the end of the budget.

    Raises:
        SweeperError: Ray cannot be started or joined.
        RecordError: records.jsonl cannot be trusted.
        DiskFullError, UnreachableError: what was measured cannot be written, here or by a trial.
    """
    with ExitStack() as stack:
        writer = RecordWriter(folder.records)
        stack.callback(writer.close)
        unfinished = _unfinished(rounds, writer, folder)
        first = next(unfinished, None)
        if first is None:
            return True
        if session is None:
            session = stack.enter_context(RaySession(spec.compute))
        session.wait()
        recorder = _Recorder(folder, writer, on_record, guard)
        left = itertools.chain([first], unfinished)
        return _tune(left, spec, folder, run, recorder, writer.keys, phase, session.is_local)


def _unfinished(
    rounds: Iterable[Sequence[TrajectoryTask]], writer: RecordWriter, folder: RunFolder
) -> Iterator[list[TrajectoryTask]]:
    """The tasks of each round that are neither finished nor begun; no round becomes an empty one."""
    begun: dict[str, TrajectoryTask] = {}
    for tasks in rounds:
        left = []
        for task in tasks:
            if _finished(task, writer):
                _tidy(folder, task)
            elif _finished(begun.get(task.trajectory_id, task), writer) or (
                task.trajectory_id not in begun
            ):
                left.append(task)
                begun[task.trajectory_id] = task
        if left or not tasks:
            yield left


def _finished(task: TrajectoryTask, writer: RecordWriter) -> bool:
    return all((item.config_id, task.seed) in writer.keys for item in task.readouts)


def _tidy(folder: RunFolder, task: TrajectoryTask) -> None:
    """Delete what a finished trajectory no longer needs."""
    storage = folder.trial(task.trajectory_id)
    with suppress(OSError):  # The next run does it again.
        storage.drop_checkpoints()
        storage.stop_mark.unlink(missing_ok=True)
    shutil.rmtree(storage.outbox, ignore_errors=True)


class _NoReporter(tune.ProgressReporter):
    """In the place of Tune's own, which in a notebook first clears the output of the cell."""

    def should_report(self, trials: Sequence[Any], done: bool = False) -> bool:
        """See `ray.tune.ProgressReporter`."""
        return False


class _KeepActors(FIFOScheduler):
    """Workers that wait for the next round stay alive; Tune would keep one of them."""

    def __init__(self, workers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = workers

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune counts how many actors it may keep; a worker for each of the first trials."""
        if self._left:
            self._left -= 1
            tune_controller._actor_cache.increase_max(trial.placement_group_factory)


def _prepare_tune() -> None:
    # Tune hands cloud keys on to its workers, which need none, and Ray logs what it hands on. And a worker
    # with an environment of its own is none of those that Ray has started already.
    ENV_VARS_TO_PROPAGATE.clear()
    DEFAULT_ENV_VARS.clear()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # What fails becomes a record.


def _too_small(spec: SweepSpec, task: TrajectoryTask) -> TooSmall | None:
    """The nodes with GPUs that cannot hold a trial; a warning says which they are."""
    nodes = ray.nodes()
    share = spec.compute.gpu_share
    found = too_small(nodes, gpu_memory(nodes), needed_bytes(spec, task), share)
    if found is not None:
        _log.warning(found.warning)
    return found


class _Place(NamedTuple):
    """Where trials run: what one needs, the nodes left out, and how many run at once."""

    resources: dict[str, float]
    small: TooSmall | None
    workers: int

    @property
    def device(self) -> str:
        return "cuda" if self.resources["GPU"] else "cpu"

    @property
    def request(self) -> dict[str, float] | tune.PlacementGroupFactory:
        """What a trial asks Ray for: resources, and where some nodes are left out, any but those."""
        if self.small is None or not self.small.nodes:
            return self.resources
        bundle = {kind: amount for kind, amount in self.resources.items() if amount}
        return tune.PlacementGroupFactory([bundle], bundle_label_selector=[self.small.selector])


def _place(
    spec: SweepSpec, rounds: Iterator[Sequence[TrajectoryTask]], fixed: bool
) -> tuple[_Place, Iterator[Sequence[TrajectoryTask]]]:
    """Where trials run, and the rounds, the first of which may have been looked at."""
    resources = trial_resources(spec, machines(ray.nodes()))
    if not fixed and (warning := without_gpu(spec, resources)) is not None:
        _log.warning(warning)
    small = None
    if not fixed and resources["GPU"] and (first := next(rounds, None)) is not None:
        rounds = itertools.chain([first], rounds)
        small = _too_small(spec, first[0]) if first else None
    left_out = () if small is None else small.nodes
    usable = machines([node for node in ray.nodes() if node["NodeID"] not in left_out])
    workers = worker_count(resources, usable, spec.compute.max_concurrent_trials)
    return _Place(resources, small, workers), rounds


def _tune(
    rounds: Iterator[Sequence[TrajectoryTask]],
    spec: SweepSpec,
    folder: RunFolder,
    run: PackFunction,
    recorder: _Recorder,
    keys: Set[tuple[str, int]],
    phase: Phase | None,
    fixed: bool,
) -> bool:
    """`fixed`: the cluster is this run's alone; its workers start together and stay until the end."""
    place, rounds = _place(spec, rounds, fixed)
    resources, workers, device = place.resources, place.workers, place.device
    limit = spec.compute.max_concurrent_trials

    def placed(tasks: Sequence[TrajectoryTask]) -> list[TrajectoryTask]:
        return [replace(task, compute=replace(task.compute, device=device)) for task in tasks]

    def packed(tasks: Sequence[TrajectoryTask]) -> list[Pack]:
        return make_packs(tasks, spec.compute.adapters_per_trial, workers)

    on_device, ahead = map(placed, rounds), is_adaptive(spec)
    at_once = workers if spec.compute.adapters_per_trial == "auto" else 1  # A number is obeyed.
    schedule: Schedule = (
        RoundSchedule(on_device, packed, at_once, ahead)
        if phase is None
        else phase.schedule(on_device, packed, resources["GPU"], workers, ahead)
    )
    recorder.schedule = schedule
    _prepare_tune()
    trainable = tune.with_parameters(PackTrainable, run=run, root=folder)
    shutil.rmtree(folder.ray, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(trainable, place.request),
        tune_config=tune.TuneConfig(
            search_alg=PackSearcher(schedule, keys),
            num_samples=-1,  # Until the searcher says that there are no more.
            # Tune starts as many actors at once as it may have, and one where it is not told how many.
            max_concurrent_trials=workers if fixed else limit,
            scheduler=_KeepActors(workers if fixed else 0),  # What waits holds its GPU.
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=folder.ray.name,
            storage_path=str(folder.root.resolve()),
            callbacks=[recorder, WaitingNotice(resources)],
            stop=ScheduleStopper(schedule),
            failure_config=tune.FailureConfig(max_failures=WORKER_RESTARTS),
            progress_reporter=_NoReporter(),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
        if schedule.failure is not None:
            raise schedule.failure
        return schedule.exhausted
    except tune.TuneError as error:
        if recorder.failure is not None:
            raise recorder.failure from None
        last = str(error).strip().splitlines()[-1]
        raise SweeperError(f"Ray Tune stopped: {last}; the same command continues") from None
    finally:
        schedule.close()
