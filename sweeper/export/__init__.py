"""One configuration as the files of another trainer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweeper.analysis import Candidate
from sweeper.errors import SweeperError
from sweeper.export import (
    accelerate,
    axolotl,
    card,
    hyperparameters,
    llamafactory,
    transformers,
    trl,
)
from sweeper.export.averaging import CALLBACK_NAME, callback_source
from sweeper.export.job import UNKNOWN, ExportJob, Origin, make_job, write_files
from sweeper.spec import SweepSpec

FORMATS: Mapping[str, Callable[[ExportJob], dict[str, str]]] = {
    "trl": trl.files,
    "transformers": transformers.files,
    "accelerate": accelerate.files,
    "llamafactory": llamafactory.files,
    "axolotl": axolotl.files,
    "yaml": hyperparameters.files,
    "card": card.files,
}
"""The writer of each format: returns file name -> content."""

READS_ROWS = frozenset({"llamafactory", "axolotl"})
"""Formats whose files name the rows of the sweep, so that these are always written beside them."""

__all__ = ["FORMATS", "READS_ROWS", "Origin", "export", "formats_of"]


def formats_of(asked: Sequence[str]) -> tuple[str, ...]:
    """The requested formats, each once; `all` is every one.

    Raises: SweeperError: an unknown format.
    """
    for name in asked:
        if name not in FORMATS and name != "all":
            raise SweeperError(f"no export format `{name}`; formats: {', '.join(FORMATS)}, or all")
    return tuple(FORMATS) if "all" in asked else tuple(dict.fromkeys(asked))


def export(
    candidate: Candidate,
    spec: SweepSpec,
    fmt: str,
    folder: Path,
    world_size: int = 1,
    micro_batch: int | None = None,
    origin: Origin = UNKNOWN,
    allow_unaveraged: bool = False,
) -> tuple[Path, ...]:
    """Write a configuration for another trainer; the file to start from comes first.

    For a configuration with averaging, the required callback is included.

    Args:
        candidate: A trained configuration, usually the recommended one.
        spec: The sweep it comes from.
        fmt: A key of `FORMATS`.
        folder: Where to write; it is created, and files of the same name are replaced.
        world_size: Devices the training will use.
        micro_batch: Rows per device and forward pass; by default what the sweep used, or at most 8.
        origin: Which run it comes from, and what it was compared with.
        allow_unaveraged: Leave the averaging out, for trainers without callbacks; the files say so.

    Raises:
        SweeperError: an unknown format, the untouched base model, or an effective batch that is not
            per-device batch times accumulation times devices.
        ExportError: a setting that the target does not support.
        RunFolderError: a file cannot be written.
    """
    (fmt,) = formats_of([fmt])
    job = make_job(candidate, spec, world_size, micro_batch, origin, allow_unaveraged)
    contents = FORMATS[fmt](job)
    if job.averaging is not None and fmt != "card":
        contents[CALLBACK_NAME] = callback_source(job)
    return write_files(folder, contents, "the export")
