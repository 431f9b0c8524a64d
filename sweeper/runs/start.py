"""`sweeper.run`: a sweep from Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.estimate.epochs import count_epoch_rows
from sweeper.runs.measure import run_to_end
from sweeper.runs.plans import as_spec
from sweeper.runs.progress import SweepProgress
from sweeper.runs.run import Run
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder


def run(
    sweep: SweepSpec | str | Path | Mapping[str, Any],
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    memory_check: bool = True,
    disk_check: bool = True,
    quiet: bool = False,
) -> Run:
    """Run a sweep on Ray, or continue it after any interruption with the same call.

    Args:
        sweep: A loaded spec, or what `load_spec` takes.
        out: The run folder; `runs/NAME` where not given. A run of the same sweep in it is continued.
        overwrite: Delete an earlier run in the folder first.
        memory_check: Reject a sweep that does not fit this machine's GPUs by the estimate.
        disk_check: Reject a sweep that does not fit the disk by the estimate.
        quiet: Show no progress.

    Returns:
        The finished run. Its records include failed ones, with the reason.

    Raises:
        SpecError: the sweep is not valid.
        RunFolderError: unwritable, in use, or a run of another sweep or of other input files.
        DataError, ModelError, DeviceError, DiskQuotaError: found before anything is trained.
        SweeperError: the grid is too large, or Ray cannot be used.
        KeyboardInterrupt: stopped before its end; all finished results are saved.
    """
    spec = count_epoch_rows(as_spec(sweep))
    folder = RunFolder(Path(out) if out is not None else Path("runs") / spec.name)
    with SweepProgress(spec, quiet=quiet) as progress:
        run_to_end(
            spec,
            folder.root,
            progress,
            overwrite=overwrite,
            memory_check=memory_check,
            disk_check=disk_check,
        )
    return Run(folder.root)
