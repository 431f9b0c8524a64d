"""Runs a sweep to its end, for the Python API and the command line."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from sweeper.estimate import DiskNeed
from sweeper.planning import Plan
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordsRead, TrialRecord, read_records


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
        KeyboardInterrupt: stopped early; all finished results are saved.
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
