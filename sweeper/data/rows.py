"""Reads uninterpreted rows of a data file or a hub data set, and selects which of them are used."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sweeper.data.hub import fetch, is_hub_id, read_folder
from sweeper.errors import DataError, MissingExtraError
from sweeper.store.provenance import source_hash
from sweeper.task import DataSource

Item = TypeVar("Item")
Reader = Callable[[Path], Iterator[dict[str, Any]]]


class Row(NamedTuple):
    """One row. `number` counts all rows of the file or split from 1, whichever rows are selected."""

    number: int
    cells: dict[str, Any]


def read_rows(source: DataSource, *, every: bool = False) -> list[Row]:
    """Read the rows of a source that match `where`, limited by `rows` and `sample_seed`.

    Args:
        source: A local .json (a list), .jsonl, .csv or .parquet file, a folder, or a hub id.
        every: Return all rows that match `where`, without the limit.

    Raises:
        DataError: missing, empty, not UTF-8, malformed (with the line), or a missing column; or see
            `hub.fetch`.
        MissingExtraError: a package that the source needs is not installed.
    """
    table = _opened(source)
    if not len(table):
        raise DataError(
            f"{source.path}: the source has no rows", code="data.empty", path=source.path
        )
    kept = _where(table, source)
    if not kept:
        raise DataError(
            f"{source.path}: none of the {len(table)} rows matches `where` {source.where}",
            code="data.empty",
            path=source.path,
            where=source.where,
        )
    kept = kept if every else select_rows(kept, source)
    cells = [table[i] for i in kept] if isinstance(table, list) else table.select(kept).to_list()
    return [Row(index + 1, row) for index, row in zip(kept, cells, strict=True)]


def select_rows(items: Sequence[Item], source: DataSource) -> list[Item]:
    """The first `rows` items, or with `sample_seed` a random sample of that size, in the original order.

    The sample consists of the items with the smallest hashes of seed and index, so it is the same on every
    machine, and a smaller sample is a subset of a larger one.
    """
    if source.rows is None or source.sample_seed is None:
        return list(items[: source.rows])

    def seeded_hash(index: int) -> str:
        return hashlib.sha256(f"{source.sample_seed}:{index}".encode()).hexdigest()

    sample = sorted(range(len(items)), key=seeded_hash)[: source.rows]
    return [items[index] for index in sorted(sample)]


def rows_hash(source: DataSource) -> str | None:
    """Identifies the contents of a source: `ID@COMMIT` on the hub, else the hash of the file or folder.

    Raises:
        DataError: see `hub.fetch`.
    """
    if is_hub_id(source.path):
        return f"{source.path}@{fetch(source.path, source.revision).name}"
    return source_hash(source.path)


def _opened(source: DataSource) -> Any:
    """All rows as a list, or as a `datasets.Dataset`, which only materializes the rows that are used."""
    path = Path(source.path)
    if is_hub_id(source.path):
        return read_folder(fetch(source.path, source.revision), source)
    if source.revision is not None:
        raise DataError(
            f"{path}: `revision` applies to hub data sets, but this is a local path; remove it",
            code="data.setting",
            path=path,
            key="revision",
        )
    if path.is_dir():
        return read_folder(path, source)
    for name in ("subset", "split"):
        if getattr(source, name) is not None:
            raise DataError(
                f"{path}: `{name}` applies to hub data sets and folders, but this is a file; remove it",
                code="data.setting",
                path=path,
                key=name,
            )
    return _file_rows(path)


def headerless_rows(paths: Sequence[Path], column: str) -> list[Row]:
    """The rows of .csv files with one column and no header, one file after the other.

    Raises:
        DataError: see `read_rows`.
    """
    cells = [row for path in paths for row in _read(path, partial(_csv_rows, columns=[column]))]
    return [Row(number, row) for number, row in enumerate(cells, start=1)]


def _file_rows(path: Path) -> list[dict[str, Any]]:
    readers: dict[str, Reader] = {
        ".json": _json_rows,
        ".jsonl": _jsonl_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(
            f"{path}: expected a .json, .jsonl, .csv or .parquet file, or a hub id",
            code="data.unknown_format",
            path=path,
        )
    return _read(path, reader)


def _read(path: Path, reader: Reader) -> list[dict[str, Any]]:
    try:
        return list(reader(path))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such data file; check the path in the sweep file",
            code="data.not_found",
            path=path,
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8",
            code="data.unreadable",
            path=path,
            byte=error.start,
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}", code="data.unreadable", path=path
        ) from None


def _where(table: Any, source: DataSource) -> list[int]:
    """The indices of the rows whose columns have the values of `where`."""
    kept = list(range(len(table)))
    for column, value in source.where.items():
        if isinstance(table, list):
            for index, row in enumerate(table):
                require_column(source, Row(index + 1, row), column)
            cells = [row[column] for row in table]
        else:
            require_column(source, Row(1, table[0]), column)
            cells = list(table[column])
        kept = [index for index in kept if str(cells[index]) == value]
    return kept


def require_column(source: DataSource, row: Row, column: str) -> None:
    """Reject a row that lacks a column.

    Raises:
        DataError: the column is missing; the message lists the columns of the row.
    """
    if column not in row.cells:
        raise DataError(
            f"{source.path}: row {row.number} has no column `{column}`; it has "
            f"{', '.join(row.cells)}; use `columns` to map column names",
            code="data.missing_column",
            path=source.path,
            row=row.number,
            column=column,
        )


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: malformed JSON: {error.msg}",
            code="data.malformed",
            path=path,
            line=error.lineno,
        ) from None
    except RecursionError:
        raise DataError(
            f"{path}: malformed JSON: nested too deeply", code="data.malformed", path=path
        ) from None
    except ValueError as error:  # A number of 5,000 digits.
        if isinstance(error, UnicodeDecodeError):
            raise
        raise DataError(
            f"{path}: malformed JSON: {error}", code="data.malformed", path=path
        ) from None
    if not isinstance(raw, list):
        raise DataError(
            f"{path}: expected a list of rows, found {type(raw).__name__}",
            code="data.malformed",
            path=path,
        )
    for number, row in enumerate(raw, start=1):
        yield _mapping(path, number, row)


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                problem = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise DataError(
                    f"{path}:{number}: malformed JSON: {problem}",
                    code="data.malformed",
                    path=path,
                    line=number,
                ) from None
            yield _mapping(path, number, row)


def _csv_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, columns)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns",
                        code="data.malformed",
                        path=path,
                        line=reader.line_num,
                    )
                yield dict(row)
        except csv.Error as error:
            line = reader.line_num + 1
            raise DataError(
                f"{path}:{line}: malformed CSV: {error}",
                code="data.malformed",
                path=path,
                line=line,
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
        yield from parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        first = str(error).split("\n")[0]
        raise DataError(
            f"{path}: not a readable parquet file: {first}", code="data.malformed", path=path
        ) from None


def _mapping(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f"{path}: row {number}: expected an object, found {type(row).__name__}",
            code="data.malformed",
            path=path,
            row=number,
        )
    return row
