"""`run_pack`: runs the unfinished readouts of some trajectories; failures become records."""

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence

from sweeper.errors import DiskFullError, UnreachableError
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.gpu_memory import release_cached
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.store.retry import storage_refused
from sweeper.store.trial_log import TrialLog
from sweeper.task import TrajectoryTask
from sweeper.trial.attempt import Attempt
from sweeper.trial.failure import Failure, Limits
from sweeper.trial.pending import PendingReadouts
from sweeper.trial.ranks import run_on_ranks
from sweeper.trial.watchdog import Watchdog

Keys = frozenset[tuple[str, int]]

StorageOf = Callable[[str], TrialStorage]


def run_trajectory(
    task: TrajectoryTask, storage: TrialStorage, done: Keys = frozenset()
) -> Iterator[TrialRecord]:
    """Run the unfinished readouts of one task; see `run_pack`."""
    for records in run_pack([task], lambda trajectory_id: storage, done):
        yield from records


def run_pack(
    tasks: Sequence[TrajectoryTask], storage_of: StorageOf, done: Keys = frozenset()
) -> Iterator[list[TrialRecord]]:
    """Run the unfinished readouts of some tasks, and yield their records, recovered or new.

    Records are yielded in lists, as they were measured; each is durable before it is yielded.

    Errors within a trial are not raised: the remaining readouts become `failed`. Paths are independent: if
    one diverges, the others continue. Out of memory, the micro-batch (or the number of readouts scored
    together) is halved and work continues from the last checkpoint; if a pack still fails, each of its
    paths continues alone.

    Args:
        tasks: Complete descriptions of trajectories of one sweep. Several LoRA trajectories with the same
            batch size are trained through one forward and backward pass.
        storage_of: The part of the run folder that belongs to a trajectory, by its id; interrupted work
            is continued from what lies there.
        done: The (config_id, seed) pairs that already have a record; they are skipped.

    Raises:
        RankLostError: a process of a trial on several GPUs was lost; called again, it is started again.
        DiskFullError, UnreachableError: responses or records cannot be written, or files not be read.
    """
    yield from _run_within(Limits(), tasks, storage_of, set(done))


def _run_within(
    start: Limits,
    tasks: Sequence[TrajectoryTask],
    storage_of: StorageOf,
    known: set[tuple[str, int]],
) -> Iterator[list[TrialRecord]]:
    limits: Limits | None = start
    failure: Failure | None = None
    while limits is not None:
        if tasks[0].compute.processes > 1:
            failure = yield from run_on_ranks(tasks, storage_of, known, limits)
        else:
            failure = yield from run_here(tasks, storage_of, known, limits)
        if failure is None:
            return
        limits = limits.after(failure)
        if limits is not None:
            _log_retry(tasks, storage_of, failure, limits)
    assert failure is not None
    if len(tasks) > 1:
        alone = Limits(pack_failure=f"{failure.reason['class']}: {failure.reason['message']}")
        for task in tasks:
            yield from _run_within(alone, [task], storage_of, known)
        return
    pending = PendingReadouts(tasks[0], storage_of(tasks[0].trajectory_id), known)
    yield pending.fail(pending.waiting, failure)


def _log_retry(
    tasks: Sequence[TrajectoryTask], storage_of: StorageOf, failure: Failure, limits: Limits
) -> None:
    for task in tasks:
        TrialLog(storage_of(task.trajectory_id)).write(
            "out_of_memory",
            stage=failure.reason["stage"],
            message=failure.reason["message"],
            micro_batch_rows=failure.micro_rows,
            readouts=failure.readouts,
            halvings=limits.halvings,
        )


def run_here(
    tasks: Sequence[TrajectoryTask],
    storage_of: StorageOf,
    known: set[tuple[str, int]],
    limits: Limits,
    world: World = SINGLE_PROCESS,
) -> Generator[list[TrialRecord], None, Failure | None]:
    """One attempt in this process; returns why it ended early, if it did.

    Args:
        tasks: See `run_pack`.
        storage_of: See `run_pack`.
        known: The readouts that have their record; those that are yielded are added.
        limits: What the attempt may take on.
        world: The processes that make this attempt together; each calls this.
    """
    pack = [PendingReadouts(task, storage_of(task.trajectory_id), known, world) for task in tasks]
    for pending in pack:
        if pending.recovered:
            known.update(record.key for record in pending.recovered)
            yield pending.recovered
    pack = [pending for pending in pack if pending.waiting]
    if not pack:
        return None
    note = pack[0].storage.stalled(world.rank)
    with Watchdog(tasks[0].compute.stall_timeout_seconds, note) as watchdog:
        return (yield from _attempt(Attempt(pack, limits, watchdog.beat), known, watchdog))


def _attempt(
    attempt: Attempt, known: set[tuple[str, int]], watchdog: Watchdog
) -> Generator[list[TrialRecord], None, Failure | None]:
    try:
        for records in attempt.records():
            known.update(record.key for record in records)
            watchdog.rest()
            yield records
            watchdog.beat()
    except (DiskFullError, UnreachableError):
        raise  # No property of a configuration: what is left is measured by the next run.
    except Exception as error:  # Whatever else a trial dies of becomes a record.
        if (refused := storage_refused(error)) is not None:
            raise refused from error
        failure = attempt.failure(error)
        traceback.clear_frames(error.__traceback__)  # They hold the model.
        return failure
    finally:
        release_cached()
    return None
