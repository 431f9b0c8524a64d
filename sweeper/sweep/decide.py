"""Runs the decision of a sweep, or what is left of it, round by round."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from sweeper.analysis.decision import Decision, Walk, decide, share
from sweeper.data.load import pin_revisions
from sweeper.data.sources import resolve
from sweeper.planning import Plan, make_tasks
from sweeper.scoring.inputs import Inputs, load_inputs, preflight
from sweeper.scoring.verdicts import HARMFUL, HARMLESS
from sweeper.spec import dump_spec
from sweeper.stats import largest_passing_count
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.lock import DriverLock
from sweeper.store.records import RecordObserver, TrialRecord, read_records
from sweeper.sweep.budget_schedule import Phase
from sweeper.sweep.decision import DecisionRound, RoundObserver, Stage
from sweeper.sweep.disk import check_disk
from sweeper.sweep.driver import PackFunction, drive
from sweeper.sweep.prepare import check_inputs, describe_run, disk_need
from sweeper.sweep.rounds import tasks_of
from sweeper.sweep.session import RaySession
from sweeper.task import TrajectoryTask
from sweeper.trackers import Trackers


def run_decision(
    stage: Stage,
    run: RunFolder,
    pack: PackFunction,
    *,
    guard: Callable[[], None],
    observers: Sequence[RecordObserver],
    on_round: RoundObserver,
    disk_check: bool = True,
    phase: Phase | None = None,
    session: RaySession | None = None,
) -> tuple[Decision | str, bool]:
    """Walk down the ranking until a configuration holds.

    Returns the decision, or why none is possible, and whether all of it was measured.

    Args:
        stage: As laid out.
        run: The folder of the sweep; the caller holds its lock.
        pack: Runs one pack of trajectories.
        guard: Raises if another driver has taken the run over.
        observers: Called with every new record.
        on_round: Called before each round.
        disk_check: Reject a first round that does not fit the disk or the quota by the estimate.
        phase: What is left of a budget; None: there is none.
        session: See `drive`.

    Raises:
        RunFolderError: other input files than the search had, or the folder cannot be written to.
        DataError, DiskQuotaError: found before anything is trained.
        SweeperError, RecordError, DiskFullError, UnreachableError: see `drive`.
    """
    folder, spec = stage.folder, stage.walk.spec
    folder.create()
    with DriverLock(folder), ExitStack() as stack:
        plan = stage.first_plans()[0]
        tasks = make_tasks(plan, spec, resolve)
        task = pin_revisions(tasks[0])
        check_inputs(run, task, "restore them, or run the whole sweep again")
        preflight(task, tasks)
        folder.undecidable.unlink(missing_ok=True)
        if (few := too_few_prompts(stage.walk, load_inputs(task))) is not None:
            write_atomic(folder.undecidable, few)
            return few, True
        need = disk_need(plan, spec, task)
        if need is not None and disk_check:
            check_disk(need, spec, folder)
        if run.rounds.is_file() and not folder.rounds.exists():
            write_atomic(folder.rounds, run.rounds.read_bytes())
        describe_run(folder, spec, plan, task)
        write_atomic(folder.spec, dump_spec(spec))  # Another number of candidates is allowed.
        each = [stack.enter_context(Trackers(spec, folder).observing()), *observers]

        def on_record(record: TrialRecord) -> None:
            for observer in each:
                observer(record)

        rounds = decision_rounds(stage, on_round)
        completed = drive(rounds, spec, folder, pack, on_record, guard, phase, session)
    return _so_far(stage), completed


def too_few_prompts(walk: Walk, inputs: Inputs) -> str | None:
    """Why no configuration can hold, not even without one unsafe answer; None where it can."""
    counts = {suite.name: len(suite.prompts) for suite in inputs.suites}
    of = {"unsafe_rate": HARMFUL, "over_refusal_rate": HARMLESS}
    for constraint in walk.spec.constraints:
        n, spent = counts[of[constraint.metric]], walk.level_of(1, constraint)
        if largest_passing_count(n, constraint.max, 1 - spent) is None:
            return (
                f"nothing to decide: with {n} prompts not even a count of 0 shows that "
                f"{constraint.metric} is at most {constraint.max:g} with the "
                f"{share(1 - spent)} that is demanded of the best one; use more prompts, a higher "
                "max, or a lower confidence"
            )
    return None


def decision_rounds(
    stage: Stage, on_round: RoundObserver = lambda begun: None
) -> Iterator[list[TrajectoryTask]]:
    """The tasks of a decision; those of earlier rounds come again.

    A round is the next configuration of the walk under the new seeds and, unless laid out one at a time,
    every later one that is read from the same optimizer path. It is decided on when the iterator is
    advanced, from the records on disk. The last round trains the survivor under the seeds of the search,
    for the claim about those weights.
    """
    walk, planned = stage.walk, set[tuple[str, int]]()
    seeds = ", ".join(map(str, walk.spec.seeds))
    ranking = [item.config_id for item in walk.ranked]
    for number, ids in enumerate(stage.rounds):
        plans = stage.first_plans() if number == 0 else (stage.plan(ids, walk.spec.seeds),)
        planned |= set().union(*(plan.keys() for plan in plans))
        place = ranking.index(ids[0]) + 1
        text = f"number {place} of at most {len(walk.ranked)} is trained again under seeds {seeds}"
        yield _begun(stage, plans, len(planned), text, on_round)
        survivor = _so_far(stage).survivor
        if survivor is not None:
            weights = stage.plan([survivor.config_id], walk.old_seeds)
            text = f"{survivor.config_id} holds; its weights of the search are measured too"
            yield _begun(stage, (weights,), len(planned | weights.keys()), text, on_round)
            return


def _begun(
    stage: Stage, plans: Sequence[Plan], planned: int, text: str, on_round: RoundObserver
) -> list[TrajectoryTask]:
    """The tasks of a round, once it is written down how many records there will be."""
    found = read_records(stage.folder.records)
    content = json.loads(stage.folder.plan.read_text(encoding="utf-8"))
    if content["accounting"]["readouts"] < planned:
        content["accounting"]["readouts"] = planned
        write_atomic(stage.folder.plan, json.dumps(content, indent=1))
    known = {record.key for record in found.records}
    if any(plan.keys() - known for plan in plans):
        on_round(DecisionRound(text, planned, found))
    return [task for plan in plans for task in tasks_of(plan, stage.walk.spec)]


def _so_far(stage: Stage) -> Decision:
    return decide(stage.walk, read_records(stage.folder.records).records)
