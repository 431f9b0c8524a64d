"""Reads uninterpreted rows of a data file or a hub data set, and selects which of them are used."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sweeper.data.files import read_column, read_file
from sweeper.data.folders import open_folder
from sweeper.data.hub import fetch, is_hub_id
from sweeper.errors import DataError
from sweeper.store.provenance import source_hash
from sweeper.task import DataSource

Item = TypeVar("Item")


class Row(NamedTuple):
    """One row. `number` counts all rows of the file or split from 1, whichever rows are selected."""

    number: int
    cells: dict[str, Any]


def read_rows(source: DataSource, *, every: bool = False) -> list[Row]:
    """Read the rows of a source that match `where`, limited by `rows` and `sample_seed`.

    Args:
        source: A local .json, .jsonl, .ndjson, .csv, .tsv or .parquet file, a folder, or a hub id.
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
        return open_folder(fetch(source.path, source.revision), source).rows()
    if source.revision is not None:
        raise DataError(
            f"{path}: `revision` applies to hub data sets, but this is a local path; remove it",
            code="data.setting",
            path=path,
            key="revision",
        )
    if path.is_dir():
        return open_folder(path, source).rows()
    for name in ("subset", "split"):
        if getattr(source, name) is not None:
            raise DataError(
                f"{path}: `{name}` applies to hub data sets and folders, but this is a file; remove it",
                code="data.setting",
                path=path,
                key=name,
            )
    return read_file(path)


def unread_files(source: DataSource) -> str | None:
    """Which files of a folder or hub data set are read and which are not; None if none is left out.

    Raises:
        DataError, MissingExtraError: see `read_rows`; or a hub data set is not in the cache.
    """
    if is_hub_id(source.path):
        return open_folder(fetch(source.path, source.revision, download=False), source).unread
    path = Path(source.path)
    return open_folder(path, source).unread if path.is_dir() else None


def headerless_rows(paths: Sequence[Path], column: str) -> list[Row]:
    """The rows of .csv files with one column and no header, one file after the other.

    Raises:
        DataError: see `read_rows`.
    """
    cells = [row for path in paths for row in read_column(path, column)]
    return [Row(number, row) for number, row in enumerate(cells, start=1)]


def _where(table: Any, source: DataSource) -> list[int]:
    """The indices of the rows whose columns have the values of `where`.

    Raises:
        DataError: a missing column, or no row is left; the message has values of the column.
    """
    kept = list(range(len(table)))
    for column, value in source.where.items():
        if isinstance(table, list):
            for index, row in enumerate(table):
                require_column(source, Row(index + 1, row), column)
            cells = [row[column] for row in table]
        else:
            require_column(source, Row(1, table[0]), column)
            cells = list(table[column])
        matching = [index for index in kept if _equals(cells[index], value)]
        if not matching:
            values = dict.fromkeys(_as_text(cells[index])[:20] for index in kept)
            shown = ", ".join([*map(repr, list(values)[:5]), *["..."] * (len(values) > 5)])
            raise DataError(
                f"{source.path}: none of the {len(table)} rows matches `where` {source.where}; expected a "
                f"value of `{column}`, which has {shown}",
                code="data.empty",
                path=source.path,
                where=source.where,
            )
        kept = matching
    return kept


def _equals(cell: Any, value: str) -> bool:
    """Whether a cell has a value that is written as text: `true`, `null`, and 0 and 0.0 alike."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        try:
            return cell == float(value)
        except ValueError:
            pass
    return value in (str(cell), _as_text(cell))


def _as_text(cell: Any) -> str:
    """A cell as JSON writes it, a text without quotation marks."""
    if cell is None or isinstance(cell, bool):
        return json.dumps(cell)
    return str(cell)


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
