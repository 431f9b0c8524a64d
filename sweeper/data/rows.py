"""Rows of a data file or a data set of the hub, not interpreted, and which of them are used."""

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
    """One row. `number` is its place in the file or the split, from 1, whichever rows are used."""

    number: int
    cells: dict[str, Any]


def read_rows(source: DataSource, *, every: bool = False) -> list[Row]:
    """The rows of a source that match `where`, and of these the ones `rows` and `sample_seed` choose.

    Args:
        source: A local .json (a list), .jsonl, .csv or .parquet file, a folder, or a hub id.
        every: Return all that match `where`.

    Raises:
        DataError: missing, empty, not UTF-8, malformed (with the line), or a missing column; or see
            `hub.fetch`.
        MissingExtraError: the extra `data` is not installed, and needed.
    """
    table = _opened(source)
    if not len(table):
        raise DataError(f"{source.path}: the file has no rows", code="data.empty", path=source.path)
    kept = _where(table, source)
    if not kept:
        raise DataError(
            f"{source.path}: none of {len(table)} rows has {source.where}",
            code="data.empty",
            path=source.path,
            where=source.where,
        )
    kept = kept if every else select_rows(kept, source)
    cells = [table[i] for i in kept] if isinstance(table, list) else table.select(kept).to_list()
    return [Row(place + 1, row) for place, row in zip(kept, cells, strict=True)]


def select_rows(items: Sequence[Item], source: DataSource) -> list[Item]:
    """The first `rows` items, or with `sample_seed` a random sample of that size, in their order.

    The sample has the smallest hashes of seed and index: the same on every machine, and a smaller sample is
    part of a larger one.
    """
    if source.rows is None or source.sample_seed is None:
        return list(items[: source.rows])

    def lot(place: int) -> str:
        return hashlib.sha256(f"{source.sample_seed}:{place}".encode()).hexdigest()

    drawn = sorted(range(len(items)), key=lot)[: source.rows]
    return [items[place] for place in sorted(drawn)]


def rows_hash(source: DataSource) -> str | None:
    """What identifies the rows of a source: `ID@COMMIT` on the hub, else the hash of file or folder.

    Raises:
        DataError: see `hub.fetch`.
    """
    if is_hub_id(source.path):
        return f"{source.path}@{fetch(source.path, source.revision).name}"
    return source_hash(source.path)


def _opened(source: DataSource) -> Any:
    """A list of rows, or a `datasets.Dataset`, of which only the rows used become objects."""
    path = Path(source.path)
    if is_hub_id(source.path):
        return read_folder(fetch(source.path, source.revision), source)
    if source.revision is not None:
        raise DataError(
            f"{path}: `revision` belongs to data sets of the hub, this is a local path",
            code="data.setting",
            path=path,
            key="revision",
        )
    if path.is_dir():
        return read_folder(path, source)
    for name in ("subset", "split"):
        if getattr(source, name) is not None:
            raise DataError(
                f"{path}: `{name}` belongs to hub data sets and folders, not to a file",
                code="data.setting",
                path=path,
                key=name,
            )
    return _file_rows(path)


def headerless_rows(paths: Sequence[Path], column: str) -> list[Row]:
    """The rows of .csv files of one column and no header, one file after the other.

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
            f"{path}: not UTF-8 at byte {error.start}; convert the file",
            code="data.unreadable",
            path=path,
            byte=error.start,
        ) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror or error}", code="data.unreadable", path=path
        ) from None


def _where(table: Any, source: DataSource) -> list[int]:
    """The places, from 0, of the rows whose columns have the values of `where`."""
    kept = list(range(len(table)))
    for column, value in source.where.items():
        if isinstance(table, list):
            for place, row in enumerate(table):
                require_column(source, Row(place + 1, row), column)
            cells = [row[column] for row in table]
        else:
            require_column(source, Row(1, table[0]), column)
            cells = list(table[column])
        kept = [place for place in kept if str(cells[place]) == value]
    return kept


def require_column(source: DataSource, row: Row, column: str) -> None:
    """Refuse a row without a column.

    Raises:
        DataError: the column is missing; it names those that are there.
    """
    if column not in row.cells:
        raise DataError(
            f"{source.path}: no column `{column}` in row {row.number}; it has "
            f"{', '.join(row.cells)}; map names with `columns`",
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
            f"{path}: malformed JSON: nested too deep", code="data.malformed", path=path
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
    try:  # Imported here: the other kinds of file do without it.
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
            f"{path}: row {number} is not an object but {type(row).__name__}",
            code="data.malformed",
            path=path,
            row=number,
        )
    return row
