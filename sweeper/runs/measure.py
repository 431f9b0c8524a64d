"""Runs a sweep or a decision to its end, for the Python API and the command line."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sweeper.analysis import Policy
from sweeper.analysis.decision import Decision
from sweeper.errors import SweeperError
from sweeper.estimate import DiskNeed
from sweeper.planning import Plan, make_plan
from sweeper.runs.progress import SweepProgress
from sweeper.runs.time_left import work_of
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordsRead, read_records


def run_to_end(
    spec: SweepSpec,
    root: Path,
    progress: SweepProgress,
    *,
    overwrite: bool = False,
    memory_check: bool = True,
    disk_check: bool = True,
    on_rows: Callable[[Mapping[str, int]], None] = lambda counts: None,
    on_disk_need: Callable[[DiskNeed], None] = lambda need: None,
    on_plan: Callable[[Plan, RecordsRead], None] | None = None,
) -> Decision | str | None:
    """Run a sweep to its end, its decision included; see `sweeper.sweep.run.run_sweep`.

    Returns:
        The decision, or why there was nothing to decide; None where the sweep leaves it out. Where a
        budget ended it, `progress.budget` says what is left.

    Raises:
        KeyboardInterrupt: stopped early; all finished results are saved.
    """
    from sweeper.sweep.session import RaySession  # It needs Ray.

    def begin(plan: Plan, found: RecordsRead) -> None:
        progress.expect(work_of(spec, RunFolder(root), plan))
        (on_plan or progress.begin)(plan, found)

    with RaySession(spec.compute, len(make_plan(spec).trajectories)) as session:
        if overwrite or not RunFolder(root).records.exists():
            session.begin()  # Not for a run that may be finished, or of another sweep.
        from sweeper.sweep.run import SweepCallbacks, SweepOptions, run_sweep  # They need torch.

        options = SweepOptions(
            overwrite=overwrite, memory_check=memory_check, disk_check=disk_check
        )
        callbacks = SweepCallbacks(
            on_rows=on_rows,
            on_disk_need=on_disk_need,
            on_plan=begin,
            on_record=progress.record,
            on_round=progress.begin_round,
        )
        ended = run_sweep(spec, root, options, callbacks, session=session)
    if ended.budget is not None:
        progress.end_by_budget(ended.budget)
        return ended.decision
    records = read_records(RunFolder(root).records).records
    if not ended.completed or ended.keys - {record.key for record in records}:
        raise KeyboardInterrupt
    return ended.decision


def decide_to_end(
    spec: SweepSpec,
    root: Path,
    progress: SweepProgress,
    policy: Policy,
    seeds: int | None,
    candidates: int | None,
) -> Decision:
    """Run the decision of a finished search to its end; see `sweeper.sweep.run.run_decision_of`.

    Raises:
        SweeperError: there is nothing to decide.
        KeyboardInterrupt: stopped early; all finished results are saved.
    """
    from sweeper.sweep.run import DecisionRequest, SweepCallbacks, run_decision_of  # As above.

    callbacks = SweepCallbacks(on_record=progress.record, on_round=progress.begin_round)
    asked = DecisionRequest(policy, seeds, candidates)
    decision, completed = run_decision_of(spec, root, asked, callbacks=callbacks)
    if isinstance(decision, str):
        raise SweeperError(decision)
    if not completed:
        raise KeyboardInterrupt
    return decision
