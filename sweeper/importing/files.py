"""The files of a source: listed without following links out of it, and bounded in number and size."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import DataError
from sweeper.importing.table import printable

MAX_BYTES = 2 * 2**30
"""A larger file is refused unread."""

MAX_FILES = 100_000
"""A folder with more files is refused."""

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".bin")
"""Endings of files that Python pickles: loading one can run code."""


class Source(NamedTuple):
    """A file or folder to read.

    `names` are the files, relative and with `/`, sorted; of a single file, its name. `refused` are those
    that are not used. `study` is the study or experiment that is wanted of several. `texts` are columns
    whose cells are kept as they are written: a response `123` or `None` is a text.
    """

    path: Path
    names: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    study: str | None = None
    texts: frozenset[str] = frozenset()

    @property
    def shown(self) -> str:
        """The path for messages."""
        return printable(str(self.path))

    @property
    def folder(self) -> Path:
        """What `names` are relative to."""
        return self.path.parent if self.path.is_file() else self.path


def open_source(path: Path, study: str | None = None) -> Source:
    """List a file or a folder. Hidden files, and links to folders inside it, are left out.

    Raises:
        DataError: it does not exist, is neither a file nor a folder, is too large, cannot be listed, or is
            a pickle.
    """
    shown = printable(str(path))
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{shown}: cannot be read ({reason}); check the path", code="data.not_found", path=path
        ) from None
    if stat.S_ISDIR(mode):
        return _listed(path, study)
    problem = problem_of(path)
    if problem:
        raise DataError(f"{shown}: {problem}", code="data.unreadable", path=path)
    return Source(path, (path.name,), study=study)


def named_files(source: Source, fits: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    """The files of a source whose base name fits, with their relative names for messages."""
    for name in source.names:
        if fits(name.rpartition("/")[2]):
            yield printable(name), source.folder / name


def problem_of(path: Path) -> str | None:
    """Why a file is not read; None if it may be."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return "neither a regular file nor a folder; give the file itself"
        if found.st_size > MAX_BYTES:
            return (
                f"{found.st_size / 2**30:.1f} GiB; at most {MAX_BYTES // 2**30} GiB are read, so export "
                "the columns that matter"
            )
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        return f"cannot be read ({error.strerror or error}); check its permissions"
    if path.suffix.lower() in PICKLES or (start[:1] == b"\x80" and start[1:2] <= b"\x05"):
        return "a pickle, which can run code, is never loaded; write it as CSV or JSON"
    return None


def _listed(folder: Path, study: str | None) -> Source:
    names: list[str] = []
    refused: list[tuple[str, str]] = []
    root = folder.resolve()
    for name, path in _walk(folder):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            refused.append((printable(name), "a link out of the folder is not followed"))
        elif path.is_symlink() and path.is_dir():
            continue
        else:
            names.append(name)
        if len(names) > MAX_FILES:
            raise DataError(
                f"{printable(str(folder))}: more than {MAX_FILES:,} files; give the folder of one study",
                code="data.unreadable",
                path=folder,
            )
    return Source(folder, tuple(sorted(names)), tuple(refused), study)


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files and links below a folder that are not hidden, with their relative names."""

    def failed(error: OSError) -> None:
        raise DataError(
            f"cannot read {printable(str(error.filename))}: {error.strerror}; check its permissions",
            code="data.unreadable",
            path=folder,
        )

    for place, folders, files in os.walk(folder, onerror=failed):
        here = Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*files, *links]:
            if not name.startswith("."):
                path = here / name
                yield path.relative_to(folder).as_posix(), path
