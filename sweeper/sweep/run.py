"""One sweep from spec to records: check everything, prepare the run folder, drive the trials.

To have something called with every record of a sweep, add a line to `observers` in `_search`: a function
of one `TrialRecord`, or what a context manager yields that has something to begin and to end. Observers are
called in the driver's process, in order, once the record is on disk; one that raises ends the run.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import SAFEST_USEFUL, Policy, find_front
from sweeper.analysis.decision import Decision
from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.errors import SweeperError
from sweeper.estimate import DiskNeed
from sweeper.estimate.inputs import plan_estimate, this_machine
from sweeper.estimate.measured_rates import count_tokens
from sweeper.estimate.preflight import check_memory
from sweeper.model.load import model_folder
from sweeper.planning import Plan, make_plan, make_tasks
from sweeper.scoring.inputs import preflight
from sweeper.search.live_study import LiveStudy
from sweeper.spec import SweepSpec, spec_hash
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.mirror import Mirror
from sweeper.store.records import RecordObserver, RecordsRead, TrialRecord, read_records
from sweeper.sweep.budget import BudgetEnd, planned_costs
from sweeper.sweep.budget_schedule import Phase, decision_phase, search_phase
from sweeper.sweep.decide import run_decision
from sweeper.sweep.decision import RoundObserver, lay_out, note_search_records
from sweeper.sweep.disk import check_disk, quota_check
from sweeper.sweep.driver import PackFunction, drive
from sweeper.sweep.prepare import (
    check_packages,
    check_same_run,
    clear,
    describe_run,
    disk_need,
)
from sweeper.sweep.retention import WeightRetention
from sweeper.sweep.rounds import keys_so_far, plan_so_far, search_rounds
from sweeper.sweep.session import RaySession
from sweeper.trackers import Trackers
from sweeper.trial.run import run_pack


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What is checked before a sweep runs.

    `overwrite` deletes an earlier run in the folder first. `memory_check` and `disk_check` refuse what
    does not fit this machine's GPUs (`preflight.check_memory`), its disk or the quota
    (`disk.check_disk`).
    """

    overwrite: bool = False
    memory_check: bool = True
    disk_check: bool = True


def _ignore(*values: object) -> None:
    """The default callback; does nothing."""


@dataclass(frozen=True, slots=True)
class SweepCallbacks:
    """What is called while a sweep runs; a field that is left out does nothing.

    Once all checks have passed: `on_rows` how many rows are trained on, held out and left out;
    `on_disk_need` how much disk the run needs, where that is known; `on_plan` the plan, and what
    records.jsonl holds already. Then `on_record` every new record, after it is on disk. At the end
    `on_round` each round of the decision before it begins, its records through `on_record` too.
    """

    on_rows: Callable[[Mapping[str, int]], None] = _ignore
    on_disk_need: Callable[[DiskNeed], None] = _ignore
    on_plan: Callable[[Plan, RecordsRead], None] = _ignore
    on_record: RecordObserver = _ignore
    on_round: RoundObserver = _ignore


class DecisionRequest(NamedTuple):
    """Whose ranking is walked down, under how many new seeds, and at most how far.

    By default as the decision was begun, else as the sweep says.
    """

    policy: Policy = SAFEST_USEFUL
    seeds: int | None = None
    candidates: int | None = None


DEFAULT_DECISION = DecisionRequest()


class SweepOutcome(NamedTuple):
    """The final plan, and whether all of it was completed (False after an interruption).

    `keys` are the (config_id, seed) pairs that a finished search has records of, further seeds included.
    `decision` is None where the sweep has none, or its search is not finished; a text says why there was
    nothing to decide. `budget` is what a budget left undone that ended the search or the decision.
    """

    plan: Plan
    keys: frozenset[tuple[str, int]]
    completed: bool
    decision: Decision | str | None = None
    budget: BudgetEnd | None = None


def run_sweep(
    spec: SweepSpec,
    out: Path,
    options: SweepOptions = SweepOptions(),
    callbacks: SweepCallbacks = SweepCallbacks(),
    run: PackFunction = run_pack,
    session: RaySession | None = None,
) -> SweepOutcome:
    """Run a sweep, or what is left of it, into a folder.

    Args:
        spec: The validated sweep.
        out: The run folder. A run of the same spec in it is continued.
        options: What to run, and what to check before.
        callbacks: Called while the sweep runs.
        run: Runs one pack of trajectories.
        session: The Ray to use, which the caller closes. None: one for this call alone.

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
    Trackers(spec, folder)  # Raises where a package is missing.
    plan = make_plan(spec)
    with (
        _driving(spec, folder, options.overwrite) as driving,
        RaySession(spec.compute) if session is None else nullcontext(session) as used,
    ):
        _check(spec, folder, plan, options, callbacks)
        phase = _search_phase(spec, folder, plan)
        completed = _search(spec, folder, plan, callbacks, run, driving, phase, used)
        later: Phase | None = None
        decision: Decision | str | None = None
        decided = True
        if (completed or _budget_ended(phase)) and spec.decide:
            note_search_records(folder, finished=completed)
            later = None if phase is None else decision_phase(phase, spec, folder)
            asked = DEFAULT_DECISION
            decision, decided = _decide(
                spec, folder, asked, options, callbacks, run, driving, later, used
            )
        over = decided or _budget_ended(later)
        if over and phase is not None and phase.end is not None and phase.account.take_rest():
            phase.end = None
            completed = _search(spec, folder, plan, callbacks, run, driving, phase, used)
        ends = [one.end for one in (phase, later) if one is not None and one.end is not None]
    planned, keys = plan_so_far(spec, folder), keys_so_far(spec, folder)
    end = ends[0] if ends else None
    return SweepOutcome(planned, keys, completed and decided, decision, end)


def _budget_ended(phase: Phase | None) -> bool:
    return phase is not None and phase.end is not None


def _search(
    spec: SweepSpec,
    folder: RunFolder,
    plan: Plan,
    callbacks: SweepCallbacks,
    run: PackFunction,
    driving: "_Driving",
    phase: Phase | None,
    session: RaySession,
) -> bool:
    """Drive what is left of the search; whether all of it was completed."""
    with ExitStack() as stack:
        weights = WeightRetention(spec, folder)
        weights.start()
        found = read_records(folder.records).records
        observers: list[RecordObserver] = [
            stack.enter_context(LiveStudy(spec, folder.study, found)).on_record,
            callbacks.on_record,
            stack.enter_context(Trackers(spec, folder).observing()),
            stack.enter_context(driving.mirroring()),
            weights.on_record,
            quota_check(spec, folder),
        ]

        def on_record(record: TrialRecord) -> None:
            for observer in observers:
                observer(record)

        rounds = search_rounds(spec, folder, plan)
        completed = drive(rounds, spec, folder, run, on_record, driving.guard, phase, session)
        weights.finish(completed)
    return completed


def _search_phase(spec: SweepSpec, folder: RunFolder, plan: Plan) -> Phase | None:
    """The search under the budget of a sweep; None where it has none.

    Raises:
        SweeperError: there is no estimate, so that no budget can be kept.
    """
    if spec.compute.budget is None:
        return None
    tokens = count_tokens(pin_revisions(make_tasks(plan, spec, resolve)[0]))
    try:
        cost = plan_estimate(plan, spec, tokens=tokens)
    except SweeperError as error:
        raise SweeperError(
            f"compute.budget needs an estimate, and there is none: {error}; remove compute.budget"
        ) from None
    return search_phase(spec, folder, planned_costs(plan, spec, cost))


def run_decision_of(
    spec: SweepSpec,
    out: Path,
    asked: DecisionRequest = DEFAULT_DECISION,
    options: SweepOptions = SweepOptions(),
    callbacks: SweepCallbacks = SweepCallbacks(),
    run: PackFunction = run_pack,
) -> tuple[Decision | str, bool]:
    """Run the decision of a finished search for a policy, or what is left of it; see `decision.lay_out`.

    Args:
        spec: The sweep's.
        out: Its run folder.
        asked: The policy, and how much is tested.
        options: What to check before.
        callbacks: Called while it runs.
        run: Runs one pack of trajectories.

    Returns:
        The decision, or why there is nothing to decide; and whether it was completed.

    Raises:
        SweeperError: see `lay_out` and `run_decision`; the folder and the mirror as of `run_sweep`.
    """
    folder = RunFolder(out.resolve())
    with _driving(spec, folder, overwrite=False) as driving:
        return _decide(spec, folder, asked, options, callbacks, run, driving)


class _Driving(NamedTuple):
    """A locked run folder: `guard` raises once another driver has taken it over."""

    guard: Callable[[], None]
    mirror: Mirror | None

    def mirroring(self) -> AbstractContextManager[RecordObserver]:
        """An observer that updates the mirror, where there is one."""
        return nullcontext(_ignore) if self.mirror is None else self.mirror.observing()


@contextmanager
def _driving(spec: SweepSpec, folder: RunFolder, overwrite: bool) -> Iterator[_Driving]:
    """The run folder, locked and up to date with its mirror."""
    folder.create()
    with DriverLock(folder) as lock:
        mirror = None
        compute = spec.compute
        if compute.mirror is not None:
            mirror = Mirror(folder, compute.mirror, checkpoints=compute.mirror_checkpoints)
            mirror.pull(spec_hash(spec), overwrite)
        yield _Driving(lock.check, mirror)


def _decide(
    spec: SweepSpec,
    folder: RunFolder,
    asked: DecisionRequest,
    options: SweepOptions,
    callbacks: SweepCallbacks,
    run: PackFunction,
    driving: _Driving,
    phase: Phase | None = None,
    session: RaySession | None = None,
) -> tuple[Decision | str, bool]:
    front = find_front(read_records(folder.records).records, spec)
    stage = lay_out(folder, spec, front, *asked, one_at_a_time=phase is not None)
    if isinstance(stage, str):
        return stage, True
    with driving.mirroring() as mirrored:
        return run_decision(
            stage,
            folder,
            run,
            guard=driving.guard,
            observers=(callbacks.on_record, mirrored, quota_check(spec, folder)),
            on_round=callbacks.on_round,
            disk_check=options.disk_check,
            phase=phase,
            session=session,
        )


def _check(
    spec: SweepSpec,
    folder: RunFolder,
    plan: Plan,
    options: SweepOptions,
    callbacks: SweepCallbacks,
) -> None:
    """Check everything that can be checked before a trial starts, then write the run's description."""
    check_packages(spec)
    tasks = make_tasks(plan, spec, resolve)
    task = pin_revisions(tasks[0])
    rows = preflight(task, tasks)
    if options.memory_check and (machine := this_machine()).gpus:
        check_memory(plan, spec, str(model_folder(task.model)), count_tokens(task), machine)
    need = disk_need(plan, spec, task)
    if need is not None and options.disk_check:
        check_disk(need, spec, folder)
    if options.overwrite:  # Only now: a sweep that cannot start must not delete an earlier one.
        clear(folder)
    check_same_run(folder, spec, task)
    describe_run(folder, spec, plan, task)
    found = read_records(folder.records)
    callbacks.on_rows(rows)
    if need is not None:
        callbacks.on_disk_need(need)
    callbacks.on_plan(plan, found)
