"""CSV, JSON, JSON lines and Parquet with one row per run, and folders of JSON files with one run each."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeper.data.csv_file import csv_records
from sweeper.data.files import read_file, read_with
from sweeper.data.json_file import json_object
from sweeper.errors import DataError
from sweeper.importing.files import Source, problem_of
from sweeper.importing.table import (
    ForeignRow,
    ForeignTable,
    flat,
    is_number,
    printable,
    value_of_text,
)


def read_csv(source: Source) -> ForeignTable:
    """The rows of a .csv or .tsv file: the run tables that W&B and MLflow export are such.

    A column without a name, such as the index that pandas writes, is left out.

    Raises:
        DataError: see `sweeper.data.csv_file`.
    """
    rows = _csv_file(source.path, printable(source.path.name), source.texts)
    return ForeignTable("csv", source.path, rows)


def read_csv_folder(source: Source) -> ForeignTable:
    """The rows of all .csv and .tsv files of a folder, the column `file` first: the name without ending.

    Malformed files, and a second one of the same name, are refused.
    """
    rows: list[ForeignRow] = []
    refused = list(source.refused)
    stems: dict[str, str] = {}
    for name in source.names:
        path, shown = source.path / name, printable(name)
        if path.suffix.lower() not in (".csv", ".tsv"):
            continue
        stem = shown[: -len(path.suffix)]
        problem = problem_of(path)
        if problem is None and stem in stems:
            problem = f"has the name of {stems[stem]}; rename one of them"
        try:
            found = () if problem else _csv_file(path, shown, source.texts)
        except DataError as error:
            found, problem = (), _without_path(error, path)
        if problem:
            refused.append((shown, problem))
            continue
        stems[stem] = shown
        rows += [ForeignRow(row.where, {"file": stem, **row.values}) for row in found]
    return ForeignTable("csv_folder", source.path, tuple(rows), tuple(refused))


def _csv_file(path: Path, name: str, texts: Collection[str]) -> tuple[ForeignRow, ...]:
    def rows(path: Path) -> Iterator[ForeignRow]:
        known: dict[str, object] = {}
        columns: dict[str, str] = {}
        for line, cells in csv_records(path):
            columns = columns or {cell: printable(cell) for cell in cells if cell}
            if len(known) > 100_000:
                known.clear()
            values: dict[str, object] = {}
            for column, shown in columns.items():
                text = cells[column]
                if shown in texts:
                    values[shown] = text
                    continue
                if text not in known:
                    known[text] = value_of_text(text)
                values[shown] = known[text]
            yield ForeignRow(f"{name}:{line}", values)

    return tuple(read_with(path, rows))


def read_json(source: Source) -> ForeignTable:
    """The rows of a .json, .jsonl or .ndjson file: a list of objects, one per line, or a single one.

    Raises:
        DataError: malformed, columns instead of rows, or no object.
    """
    rows, refused = _json_file(source.path, printable(source.path.name), source.texts)
    return ForeignTable("json", source.path, rows, refused)


def read_parquet(source: Source) -> ForeignTable:
    """The rows of a .parquet file.

    Raises:
        DataError: malformed, or equal columns.
        MissingExtraError: the package pyarrow is not installed.
    """
    rows, refused = _rows(read_file(source.path), printable(source.path.name), source.texts)
    return ForeignTable("parquet", source.path, rows, refused)


def read_json_folder(source: Source) -> ForeignTable:
    """The rows of all .json files of a folder, the column `file` first; others are refused."""
    rows: list[ForeignRow] = []
    refused = list(source.refused)
    for name in source.names:
        path, shown = source.path / name, printable(name)
        if path.suffix.lower() != ".json":
            continue
        problem = problem_of(path)
        try:
            found, bad = (
                ((), ((shown, problem),)) if problem else _json_file(path, shown, source.texts)
            )
        except DataError as error:
            found, bad = (), ((shown, _without_path(error, path)),)
        rows += [ForeignRow(row.where, {"file": shown, **row.values}) for row in found]
        refused += bad
    return ForeignTable("json_folder", source.path, tuple(rows), tuple(refused))


def _without_path(error: DataError, path: Path) -> str:
    return printable(str(error).removeprefix(str(path)).lstrip(":").strip())


Found = tuple[tuple[ForeignRow, ...], tuple[tuple[str, str], ...]]


def _json_file(path: Path, shown: str, texts: Collection[str]) -> Found:
    single = [] if path.suffix.lower() != ".json" else read_with(path, _objects)
    if not single:
        return _rows(read_file(path), shown, texts)
    _refuse_columns(path, single[0])
    rows, refused = _rows(single, shown, texts)
    if rows and not any(is_number(value) for value in rows[0].values.values()):
        raise DataError(
            f"{path}: one object without numbers; expected the results of one run, or a list of objects "
            "with one run each",
            code="data.malformed",
            path=path,
        )
    return tuple(ForeignRow(shown, row.values) for row in rows), refused


def object_in(path: Path) -> dict[str, Any]:
    """The single JSON object of a file.

    Raises:
        ValueError: missing, too large, malformed, or something else; without the path.
    """
    problem = problem_of(path)
    try:
        found = [] if problem else read_with(path, _objects)
    except DataError as error:
        found, problem = [], _without_path(error, path)
    if not found:
        raise ValueError(problem or "expected one JSON object")
    return found[0]


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    found = json_object(path)
    if found is not None:
        yield found


def _refuse_columns(path: Path, tree: Mapping[str, Any]) -> None:
    """Reject what pandas writes by default: for each column, its cells by row."""
    lists = [cells for cells in tree.values() if isinstance(cells, list) and cells]
    by_row = [
        cells for cells in tree.values() if isinstance(cells, dict) and "".join(cells).isdigit()
    ]
    scalars = not any(isinstance(cell, dict) for cells in lists for cell in cells)
    if tree and ((len(lists) == len(tree) and scalars) or len(by_row) == len(tree)):
        raise DataError(
            f'{path}: columns instead of rows; write one object per run, in pandas with `orient="records"`',
            code="data.malformed",
            path=path,
        )


def _rows(trees: list[dict[str, Any]], shown: str, texts: Collection[str]) -> Found:
    """A list in a column of `texts` stays one: turns of a dialogue are no response."""
    rows: list[ForeignRow] = []
    refused: list[tuple[str, str]] = []
    for number, tree in enumerate(trees, start=1):
        where = f"{shown}: row {number}"
        try:
            lists = {name: tree[name] for name in texts if isinstance(tree.get(name), list)}
            rows.append(ForeignRow(where, {**flat(tree), **lists}))
        except ValueError as error:
            refused.append((where, str(error)))
    return tuple(rows), tuple(refused)
