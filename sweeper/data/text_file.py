"""The text of a data file, and errors that name a line of it."""

from pathlib import Path

from sweeper.errors import DataError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file without its byte order mark.

    Raises:
        DataError: not UTF-8, or a NUL character, which UTF-16 without a byte order mark is full of.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        utf_16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "UTF-16" if utf_16 else f"not UTF-8 at byte {error.start}"
        raise DataError(
            f"{path}: {found}; convert the file to UTF-8",
            code="data.unreadable",
            path=path,
            byte=error.start,
        ) from None
    if "\0" in text:
        line = line_at(text, text.index("\0"))
        raise DataError(
            f"{path}:{line}: a NUL character; remove it, or convert the file to UTF-8 if it is UTF-16",
            code="data.unreadable",
            path=path,
            line=line,
        )
    return text


def line_at(text: str, position: int) -> int:
    """The number, from 1, of the line that holds a position of the text."""
    return text.count("\n", 0, position) + 1


def malformed(path: Path, line: int, problem: str, **values: object) -> DataError:
    """An error about one line of a file, to be raised."""
    return DataError(
        f"{path}:{line}: {problem}", code="data.malformed", path=path, line=line, **values
    )
