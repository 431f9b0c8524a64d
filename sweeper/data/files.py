"""Reads the uninterpreted rows of one data file, by its suffix."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sweeper.data.csv_file import Record, csv_records, csv_rows
from sweeper.data.json_file import json_rows
from sweeper.errors import DataError, MissingExtraError

Item = TypeVar("Item")

_LFS = b"version https://git-lfs"


def read_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a .json, .jsonl, .ndjson, .csv, .tsv or .parquet file.

    Raises:
        DataError: missing, unreadable, of another format, or malformed; see `json_rows`, `csv_records`.
        MissingExtraError: a .parquet file, and the package pyarrow is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path}: expected a .json, .jsonl, .ndjson, .csv, .tsv or .parquet file, or a hub id",
            code="data.unknown_format",
            path=path,
        )
    return read_with(path, reader)


def read_column(path: Path, column: str) -> list[dict[str, Any]]:
    """The rows of a .csv file that has one column and no header.

    Raises:
        DataError: see `read_file`.
    """
    return read_with(path, lambda path: csv_rows(path, [column]))


def read_csv(path: Path) -> list[Record]:
    """The records of a CSV file of any name.

    Raises:
        DataError: see `read_file`.
    """
    return read_with(path, csv_records)


def read_with(path: Path, reader: Callable[[Path], Iterable[Item]]) -> list[Item]:
    """What a reader yields of a data file.

    Raises:
        DataError: missing, unreadable, or a Git LFS pointer; or what the reader raises.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise DataError(
                    f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder",
                    code="data.unreadable",
                    path=path,
                )
        return list(reader(path))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such data file; check the path", code="data.not_found", path=path
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}", code="data.unreadable", path=path
        ) from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:  # Imported here because the other file formats do not need it.
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            f"{path}: .parquet files need the package pyarrow; install `sweeper-llm[train]`"
        ) from None
    try:
        table = parquet.read_table(path)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError, KeyError) as error:
        first = str(error).split("\n")[0]
        raise DataError(
            f"{path}: not a readable parquet file: {first}", code="data.malformed", path=path
        ) from None
    names = table.column_names
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"{path}: duplicate column `{name}`; rename or remove one of them",
                code="data.malformed",
                path=path,
                column=name,
            )
    yield from rows


READERS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
    ".json": json_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": _parquet_rows,
}
"""The suffix of a data file -> what reads its rows."""
