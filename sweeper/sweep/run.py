"""One sweep from spec to records: check everything, prepare the run folder, drive the trials.

To have something called with every record of a sweep, add a line to `observers` in `run_sweep`: a function
of one `TrialRecord`, or what a context manager yields that has something to begin and to end. Observers are
called in the driver's process, in order, once the record is on disk; one that raises ends the run.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.estimate import DiskNeed
from sweeper.estimate.inputs import this_machine
from sweeper.estimate.measured_rates import count_tokens
from sweeper.estimate.preflight import check_memory
from sweeper.model.load import model_folder
from sweeper.planning import Plan, make_plan, make_tasks
from sweeper.scoring.inputs import preflight
from sweeper.search.live_study import LiveStudy
from sweeper.search.rounds import already_suggested
from sweeper.spec import SweepSpec, spec_hash
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.mirror import Mirror
from sweeper.store.records import RecordObserver, RecordsRead, TrialRecord, read_records
from sweeper.sweep.disk import check_disk, quota_check
from sweeper.sweep.driver import PackFunction, drive
from sweeper.sweep.prepare import check_inputs, check_same_run, clear, describe_run, disk_need
from sweeper.sweep.retention import WeightRetention
from sweeper.sweep.rounds import keys_so_far, plan_so_far, search_rounds, tasks_of
from sweeper.trackers import Trackers
from sweeper.trial.run import run_pack


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What of a sweep is run, and what is checked before.

    `overwrite` deletes an earlier run in the folder first. `only` names the configurations to run, by id;
    None is all of them. Of an adaptive search they are among the rounds that the folder holds, and no
    further round is suggested. `part_of` is a run that must have been begun with the same input files.
    `memory_check` and `disk_check` refuse what does not fit this machine's GPUs (`preflight.check_memory`),
    its disk or the quota (`disk.check_disk`).
    """

    overwrite: bool = False
    only: Collection[str] | None = None
    part_of: RunFolder | None = None
    memory_check: bool = True
    disk_check: bool = True


def _ignore(*values: object) -> None:
    """The default callback; does nothing."""


@dataclass(frozen=True, slots=True)
class SweepCallbacks:
    """What is called while a sweep runs; a field that is left out does nothing.

    Once all checks have passed: `on_rows` how many rows are trained on, held out and left out;
    `on_disk_need` how much disk the run needs, where that is known; `on_plan` the plan, and what
    records.jsonl holds already. Then `on_record` every new record, after it is on disk.
    """

    on_rows: Callable[[Mapping[str, int]], None] = _ignore
    on_disk_need: Callable[[DiskNeed], None] = _ignore
    on_plan: Callable[[Plan, RecordsRead], None] = _ignore
    on_record: RecordObserver = _ignore


class SweepOutcome(NamedTuple):
    """The final plan, and whether all of it was completed (False after an interruption).

    `keys` are the (config_id, seed) pairs that a finished run has records of, further seeds included.
    """

    plan: Plan
    keys: frozenset[tuple[str, int]]
    completed: bool


def run_sweep(
    spec: SweepSpec,
    out: Path,
    options: SweepOptions = SweepOptions(),
    callbacks: SweepCallbacks = SweepCallbacks(),
    run: PackFunction = run_pack,
) -> SweepOutcome:
    """Run a sweep, or what is left of it, into a folder.

    Args:
        spec: The validated sweep.
        out: The run folder. A run of the same spec in it is continued.
        options: What to run, and what to check before.
        callbacks: Called while the sweep runs.
        run: Runs one pack of trajectories.

    Raises:
        RunFolderError: unwritable, in use, or a run of another spec or of other input files.
        DiskFullError, UnreachableError: what was measured cannot be written; all records so far are kept.
        DataError, ModelError, DeviceError: found by the preflight, before anything is launched.
        DiskQuotaError: too little disk, or the quota was reached; the same command continues.
        MirrorError: `compute.mirror` does not answer, or holds another run.
        MissingExtraError: `compute.trackers` names one whose package is not installed.
        SweeperError: the grid is too large, or Ray cannot be used.
    """
    folder = RunFolder(out.resolve())
    trackers = Trackers(spec, folder)
    points = None if options.only is None else already_suggested(folder) or None
    plan = make_plan(spec, points, options.only)
    folder.create()
    with DriverLock(folder) as lock:
        mirror = None
        if spec.compute.mirror is not None and options.part_of is None:
            mirror = Mirror(folder, spec.compute.mirror)
            mirror.pull(spec_hash(spec), options.overwrite)
        _check(spec, folder, plan, options, callbacks)
        partial = options.only is not None
        rounds = [tasks_of(plan, spec)] if partial else search_rounds(spec, folder, plan)
        with ExitStack() as stack:
            weights = WeightRetention(spec, folder)
            weights.start()
            found = read_records(folder.records).records
            observers: list[RecordObserver] = [
                stack.enter_context(LiveStudy(spec, folder.study, found)).on_record,
                callbacks.on_record,
                stack.enter_context(trackers.observing()),
                *([] if mirror is None else [stack.enter_context(mirror.observing())]),
                weights.on_record,
                quota_check(spec, folder),
            ]

            def on_record(record: TrialRecord) -> None:
                for observer in observers:
                    observer(record)

            completed = drive(rounds, spec, folder, run, on_record, lock.check)
            weights.finish(completed)
    if options.only is not None:
        return SweepOutcome(plan, plan.keys(), completed)
    return SweepOutcome(plan_so_far(spec, folder), keys_so_far(spec, folder), completed)


def _check(
    spec: SweepSpec,
    folder: RunFolder,
    plan: Plan,
    options: SweepOptions,
    callbacks: SweepCallbacks,
) -> None:
    """Check everything that can be checked before a trial starts, then write the run's description."""
    task = pin_revisions(make_tasks(plan, spec, resolve)[0])
    rows = preflight(task)
    if options.memory_check and (machine := this_machine()).gpus:
        check_memory(plan, spec, str(model_folder(task.model)), count_tokens(task), machine)
    need = disk_need(plan, spec, task)
    if need is not None and options.disk_check:
        check_disk(need, spec, folder)
    if options.part_of is not None:
        check_inputs(options.part_of, task, "restore them, or run the whole sweep again")
    if options.overwrite:  # Only now: a sweep that cannot start must not delete an earlier one.
        clear(folder)
    check_same_run(folder, spec, task, options.only)
    describe_run(folder, spec, plan, task, options.only)
    found = read_records(folder.records)
    callbacks.on_rows(rows)
    if need is not None:
        callbacks.on_disk_need(need)
    callbacks.on_plan(plan, found)
