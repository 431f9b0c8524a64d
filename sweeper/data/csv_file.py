"""Reads CSV strictly: a quotation mark at the wrong place would silently change what the rows are."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.data.text_file import malformed, read_text

_HOW_TO_QUOTE = (
    "a cell with a quotation mark is written between quotation marks, and each one inside it twice "
    '("")'
)


_STATED = re.compile(r"""["']?sep=([^\w"'\s]|\t)["']?[ ]*(\r?\n)""", re.IGNORECASE)
"""The line by which a spreadsheet is told what separates the cells."""


class Record(NamedTuple):
    """One record of a CSV file, and the line on which it begins."""

    line: int
    cells: dict[str, str]


def csv_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file; see `csv_records`."""
    return (record.cells for record in csv_records(path, columns))


def csv_records(path: Path, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """The records of a file as RFC 4180 defines them; blank lines between them are skipped.

    Cells are separated by what a first line `sep=;` says; else by a comma if the header has one, or by the
    only semicolon, tab or `|` in it; in a .tsv file, by a tab. What is quoted does not count.

    Args:
        path: The file, in UTF-8 with or without a byte order mark.
        columns: The names of the columns if the file has no header.

    Raises:
        DataError: no comma and several such marks in the header; equal column names; a row with too few or
            too many cells; a quotation mark that is not closed, or inside a cell and not doubled; or a cell
            over several lines, each of which is a whole row: a stray quotation mark has swallowed them.
        OSError: the file cannot be read.
    """
    text = read_text(path)
    delimiter = ","
    if columns is None:
        stated = _STATED.match(text)
        delimiter = stated[1] if stated else _delimiter(path, text)
        text = _STATED.sub(
            r"\2", text, count=1
        )  # The line stays, so that others keep their numbers.
    names = columns
    for line, cells, lines in _records(path, text, delimiter):
        if len(cells) < 2 and not any(cell.strip() for cell in cells) and len(names or "..") > 1:
            continue  # A blank line.
        _refuse_stray_quotes(path, line, lines, delimiter)
        if len(lines) > 1:
            _refuse_swallowed_rows(path, line, delimiter, cells)
        if names is None:
            names = cells
            _refuse_equal_names(path, line, names)
            continue
        if len(cells) != len(names):
            raise malformed(
                path, line, f"expected {len(names)} columns as in the header, found {len(cells)}"
            )
        yield Record(line, dict(zip(names, cells, strict=True)))


def _delimiter(path: Path, text: str) -> str:
    header = text.lstrip().partition("\n")[0]
    unquoted = re.sub(r'"[^"]*"', "", header)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    marks = [usual] if usual in unquoted else [mark for mark in ",;\t|" if mark in unquoted]
    if len(marks) > 1:
        shown = " or ".join(f"`{mark}`" if mark.strip() else "a tab" for mark in marks)
        raise malformed(
            path,
            1 + text[: text.index(header)].count("\n"),
            f"the cells of the header could be separated by {shown}; say which by a first line such as "
            f"`sep={marks[0]}`, or separate them by commas",
        )
    return marks[0] if marks else ","


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str], list[str]]]:
    """For each record that is no empty line: its first line's number, its cells, and its lines.

    Raises:
        DataError: a quotation mark that is not closed, or text after a closing one.
    """
    lines: list[str] = []

    def following() -> Iterator[str]:
        for line in io.StringIO(text, newline=""):
            lines.append(line)
            yield line

    csv.field_size_limit(max(len(text), csv.field_size_limit()))  # A cell may be a long document.
    reader = csv.reader(following(), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        lines.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise malformed(path, first, f"malformed CSV: {_explained(error)}") from None
        if cells is None:
            return
        if cells:
            yield first, cells, lines


def _explained(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return f"a quotation mark in this row is never closed; {_HOW_TO_QUOTE}"
    if "expected after" in str(error):
        return (
            "text follows the closing quotation mark of a cell that begins in this row; "
            f"{_HOW_TO_QUOTE}"
        )
    return str(error)


def _refuse_stray_quotes(path: Path, line: int, lines: Sequence[str], delimiter: str) -> None:
    record = "".join(lines)
    if '"' not in record:
        return
    mark = re.escape(delimiter)
    quoted = rf'(?:^|(?<={mark}))"(?:[^"]|"")*"(?={mark}|[\r\n]|$)'
    if '"' in re.sub(quoted, "", record):
        raise malformed(
            path, line, f"malformed CSV: a quotation mark inside a cell; {_HOW_TO_QUOTE}"
        )


def _refuse_swallowed_rows(path: Path, line: int, delimiter: str, cells: Sequence[str]) -> None:
    """Reject a cell over several lines that are the end of a row, whole rows, and the beginning of one.

    In prose a space follows most commas, or they group digits, and hardly any text has as many others on
    each of its lines as that; a table has equally many on all of them.
    """
    columns = len(cells)
    mark = re.escape(delimiter)
    between = re.compile(rf"{mark}(?![ \t]|(?<=\d{mark})\d{{3}}\b)")
    for column, cell in enumerate(cells):
        first, *inner = (between.split(part) for part in re.split(r"\r\n|\r|\n", cell))
        fewest = 2 if column == 0 and columns < 4 else 1
        if columns == 1 or len(inner) < fewest or len(first) != columns - column:
            continue
        # Lists in code have commas at the ends of lines.
        whole = all(len(row) == columns and (row[-1].strip() or columns > 2) for row in inner[:-1])
        if whole and len(inner[-1]) == column + 1 and all(row[0].strip() for row in inner):
            raise malformed(
                path,
                line,
                f"malformed CSV: a cell of this row goes on for {len(inner)} more line(s), each of which "
                "looks like a row: close the quotation mark that begins it, or, if all this is its text, "
                "use a .jsonl file",
            )


def _refuse_equal_names(path: Path, line: int, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if name and count > 1:
            raise malformed(
                path, line, f"duplicate column `{name}`; rename or remove one of them", column=name
            )
