"""Reads JSON rows: a list of objects or one object per line, whatever the file is called."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweeper.data.text_file import line_at, malformed, read_text
from sweeper.errors import DataError

_BLANK = re.compile(r"[ \t\r\n]*")


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .json, .jsonl or .ndjson file; blank lines are skipped.

    Raises:
        DataError: malformed JSON, equal keys in an object, half a surrogate pair, or a value that is not an
            object; or a .json file that holds a single object, whose rows could be anywhere inside it: the
            message names the keys that hold some.
        OSError: the file cannot be read.
    """
    text = read_text(path)
    start = _skip_blank(text, 0)
    if text.startswith("[", start):
        values = _items(path, text, start)
    else:
        _refuse_single_value(path, text, start)
        values = _lines(path, text)
    for number, (line, row, raw) in enumerate(values, start=1):
        if not isinstance(row, dict):
            found = (
                json.dumps(row)[:20] if row is None or isinstance(row, bool) else type(row).__name__
            )
            raise malformed(
                path, line, f"row {number}: expected an object, found {found}", row=number
            )
        if "\\ud" in raw or "\\uD" in raw:
            _refuse_surrogates(path, line, number, row)
        yield row


def json_object(path: Path) -> dict[str, Any] | None:
    """The single object that a file holds; None if it holds a list, or several objects by line.

    Raises:
        DataError: malformed JSON, equal keys in an object, or half a surrogate pair.
        OSError: the file cannot be read.
    """
    text = read_text(path)
    start = _skip_blank(text, 0)
    if not text.startswith("{", start):
        return None
    found, end = _decoded(path, text, start)
    if _skip_blank(text, end) < len(text):
        return None
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(path, 1, 1, found)
    return dict(found)


def _items(path: Path, text: str, start: int) -> Iterator[tuple[int, Any, str]]:
    """The items of a list, each after the line on which it begins and before its text."""
    position = _skip_blank(text, start + 1)
    line, begin = 1, 0
    closed = text.startswith("]", position)
    while not closed:
        line += text.count("\n", begin, position)
        begin = position
        item, position = _decoded(path, text, position)
        yield line, item, text[begin:position]
        position = _skip_blank(text, position)
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            raise malformed(
                path, line_at(text, position), "malformed JSON: expected `,` or `]` after a row"
            )
        position += not closed
        position = _skip_blank(text, position)
    rest = _skip_blank(text, position + 1)
    if rest < len(text):
        raise malformed(path, line_at(text, rest), "malformed JSON: text after the list of rows")


def _lines(path: Path, text: str) -> Iterator[tuple[int, Any, str]]:
    """The value on each line that is not blank, after its number and before its text."""
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        start = _skip_blank(line, 0)
        if start == len(line):
            continue
        value, end = _decoded(path, line, start, number)
        if line[end:].strip():
            raise malformed(
                path, number, "malformed JSON: text after the object; expected one object per line"
            )
        yield number, value, line


def _decoded(path: Path, text: str, start: int, line: int | None = None) -> tuple[Any, int]:
    """The JSON value that begins at a position, and the position of its end.

    Raises:
        DataError: it is malformed; `line` is named, by default the line of the problem.
    """
    place = line_at(text, start) if line is None else line
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        place, problem = error.lineno if line is None else line, error.msg
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:  # Equal keys, or a number of 5,000 digits.
        problem = str(error)
    raise malformed(path, place, f"malformed JSON: {problem}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys all differ.

    Raises:
        ValueError: they do not.
    """
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"duplicate key {json.dumps(name)} in one object; keep one of them")
    return cells


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def _refuse_single_value(path: Path, text: str, start: int) -> None:
    if path.suffix.lower() != ".json" or start == len(text):
        return
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return  # Reading by lines names the line.
    if _skip_blank(text, end) == len(text):
        raise DataError(
            f"{path}: expected a list of rows or one object per line, found {_described(value)}",
            code="data.malformed",
            path=path,
        )


def _described(value: Any) -> str:
    """A single value, and how to make rows of what it holds."""
    if not isinstance(value, dict):
        return "a single value"
    lists = {key: cell for key, cell in value.items() if cell and isinstance(cell, list)}
    inner = [key for key, cell in lists.items() if all(isinstance(row, dict) for row in cell)]
    if inner:
        keys = ", ".join(f"`{key}` ({len(lists[key]):,} objects)" for key in inner)
        return (
            f"one object with rows in {keys}; write that list alone into the file, for example with `jq "
            f"'.[{json.dumps(inner[0])}]'`"
        )
    by_index = [
        cell for cell in value.values() if isinstance(cell, dict) and "".join(cell).isdigit()
    ]
    if value and len(value) in (len(lists), len(by_index)):
        return (
            'columns instead of rows; write one object per row, in pandas with `orient="records"`'
        )
    return "a single object; write it into a list if it is a row"


def _refuse_surrogates(path: Path, line: int, number: int, row: dict[str, Any]) -> None:
    for name, value in row.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            code = ord(error.object[error.start])
            column = name.encode("ascii", "backslashreplace").decode()
            raise malformed(
                path,
                line,
                f"row {number}: `{column}` holds half a character, the lone surrogate \\u{code:04x}, "
                "which is no text; remove it or restore the character",
                row=number,
                column=column,
            ) from None


def _skip_blank(text: str, start: int) -> int:
    """The first position from `start` on that is no JSON white space."""
    found = _BLANK.match(text, start)
    assert found is not None
    return found.end()
