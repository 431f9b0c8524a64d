"""SQLite files of other programs: opened for reading only, and checked before anything trusts them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from sweeper.errors import DataError
from sweeper.importing.table import printable

_MAGIC = b"SQLite format 3\0"


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection for reading, which neither makes nor changes a file.

    Raises:
        DataError: damaged, locked, or not readable.
    """
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _damaged(path, str(error)) from None


def tables_of(path: Path) -> frozenset[str]:
    """The names of the tables of a SQLite file; none if it is another kind of file.

    Raises:
        DataError: a damaged database.
    """
    if not path.is_file():
        return frozenset()
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return frozenset()
    found = path.stat()
    return _tables_of(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _tables_of(path: Path, _changed: int, _size: int) -> frozenset[str]:
    with connected(path) as connection:
        (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise _damaged(path, str(state).splitlines()[0])
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        return frozenset(name for (name,) in rows)


def _damaged(path: Path, problem: str) -> DataError:
    return DataError(
        f"{printable(str(path))}: not a readable SQLite database ({problem}); copy it again while no "
        "program writes to it",
        code="data.malformed",
        path=path,
    )
