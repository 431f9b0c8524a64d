"""Running a sweep, or measuring a few of its configurations again: what Python and command line share."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sweeper.analysis import Front, Policy, Recommendation, asked
from sweeper.estimate import DiskNeed
from sweeper.planning import Plan
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordsRead, TrialRecord, read_records
from sweeper.sweep.confirm import Confirmation, Shrinkage, confirmation, prepare, shrinkages


def run_to_end(
    spec: SweepSpec,
    root: Path,
    *,
    overwrite: bool = False,
    memory_check: bool = True,
    disk_check: bool = True,
    only: Collection[str] | None = None,
    part_of: RunFolder | None = None,
    on_rows: Callable[[Mapping[str, int]], None] = lambda counts: None,
    on_disk_need: Callable[[DiskNeed], None] = lambda need: None,
    on_plan: Callable[[Plan, RecordsRead], None] = lambda plan, found: None,
    on_record: Callable[[TrialRecord], None] = lambda record: None,
) -> None:
    """Run a sweep to its end; see `sweeper.sweep.run.run_sweep`.

    Raises:
        KeyboardInterrupt: it was stopped before; all finished results are saved.
    """
    from sweeper.sweep.run import (
        SweepCallbacks,
        SweepOptions,
        run_sweep,
    )  # They need Ray and torch.

    options = SweepOptions(
        overwrite=overwrite,
        only=only,
        part_of=part_of,
        memory_check=memory_check,
        disk_check=disk_check,
    )
    callbacks = SweepCallbacks(
        on_rows=on_rows, on_disk_need=on_disk_need, on_plan=on_plan, on_record=on_record
    )
    ended = run_sweep(spec, root, options, callbacks)
    records = read_records(RunFolder(root).records).records
    if not ended.completed or ended.keys - {record.key for record in records}:
        raise KeyboardInterrupt


def lay_out(
    folder: RunFolder,
    spec: SweepSpec,
    front: Front,
    found: Recommendation,
    seeds: int,
    top: int,
) -> Confirmation:
    """Make the folder in which the best configurations are measured again; see `sweeper.sweep.confirm`.

    Raises:
        SweeperError: nothing qualifies, or nothing would be new.
        RunFolderError: the folder cannot be written to.
    """
    laid_out = confirmation(folder, spec, front, found, seeds, top)
    prepare(laid_out, folder)
    return laid_out


def confirmed(
    laid_out: Confirmation, front: Front, spec: SweepSpec, policy: Policy
) -> tuple[Shrinkage, ...]:
    """What the search said of each configuration beside what the confirmation says by now."""
    _, under = asked(front, spec, policy)
    return shrinkages(front, under, read_records(laid_out.folder.records).records, laid_out)
