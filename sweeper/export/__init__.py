"""One configuration as the files of another trainer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from sweeper.analysis import Candidate
from sweeper.errors import DataError, ExportError, MissingExtraError, ModelError, SweeperError
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
from sweeper.export.header import details
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
"""Formats whose files name the rows of the sweep."""

TAKES_ROWS = frozenset({"trl", "accelerate"})
"""Formats whose command names them."""

__all__ = [
    "FORMATS",
    "READS_ROWS",
    "Origin",
    "export",
    "export_formats",
    "export_texts",
    "formats_of",
    "make_job",
]


class Options(TypedDict, total=False):
    """The further arguments of `export`."""

    world_size: int
    micro_batch: int | None
    origin: Origin
    allow_unaveraged: bool


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
    return write_files(folder, export_texts(job, fmt), "the export")


def export_texts(job: ExportJob, fmt: str) -> dict[str, str]:
    """The files of a format by name, the one to start from first, without writing them.

    Raises:
        ExportError: a setting that the target does not support.
    """
    contents = FORMATS[fmt](job)
    if job.averaging is not None and fmt != "card":
        contents[CALLBACK_NAME] = callback_source(job)
    ending = f"\n{details(job)}"
    return {
        name: text + ending if text.startswith("# For ") else text
        for name, text in contents.items()
    }


def export_formats(
    candidate: Candidate,
    spec: SweepSpec,
    formats: Sequence[str],
    folder: Path,
    *,
    rows: bool | None = None,
    skip: bool = False,
    **options: Unpack[Options],
) -> tuple[list[Path], dict[str, str]]:
    """Write a configuration in several formats, each with the rows that it or its command names.

    Args:
        candidate: See `export`.
        spec: See `export`.
        formats: Keys of `FORMATS`.
        folder: See `export`.
        rows: Whether the rows are written; None: where a format or its command names them.
        skip: Leave out formats that the configuration or missing data do not allow.
        options: See `export`.

    Returns:
        The files, rows last, and what is left out with the reason: formats, and as `rows` those that a
        command names and that cannot be made.

    Raises:
        ExportError, DataError, ModelError, MissingExtraError: a format cannot be written, unless `skip`.
        SweeperError, RunFolderError: see `export`.
    """
    written: list[Path] = []
    row_files: list[Path] = []
    left_out: dict[str, str] = {}
    for name in formats:
        try:
            if name in READS_ROWS and (rows is not False or name == "llamafactory"):
                row_files += _rows(candidate, spec, folder, name, write=rows is not False)
            written += export(candidate, spec, name, folder, **options)
        except (ExportError, DataError, ModelError, MissingExtraError) as error:
            if not skip:
                raise
            left_out[name] = str(error)
    if not row_files and (rows or (rows is None and TAKES_ROWS & set(formats))):
        try:
            row_files += _rows(candidate, spec, folder)
        except (DataError, ModelError, MissingExtraError) as error:
            if rows:
                raise
            left_out["rows"] = str(error)
    return [*written, *row_files], left_out


def _rows(
    candidate: Candidate, spec: SweepSpec, folder: Path, *formats: str, write: bool = True
) -> tuple[Path, ...]:
    from sweeper.export.rows import export_rows  # It needs the tokenizer.

    return export_rows(candidate, spec, folder, formats, write=write)
