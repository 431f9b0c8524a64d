"""Where a study can be kept: a journal beside the records, or a storage that others use, too."""

import json
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from sweeper.errors import StorageError

JOURNAL = "journal:"


class _UnsyncedJournal(JournalFileBackend):
    """A journal that is not waited for: it can be made again, and its one writer needs no lock.

    Optuna's own writer makes a lock file that a crash leaves behind, and waits for the disk for each line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole lines in one write."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("ab") as file:
            file.write(lines.encode("utf-8"))


def open_journal(path: Path) -> JournalStorage:
    """Open a journal that this process alone adds trials to.

    Raises:
        OSError, ValueError, LookupError, TypeError: it cannot be read, or is no journal.
    """
    return JournalStorage(_UnsyncedJournal(path))


def open_storage(url: str) -> BaseStorage:
    """Open a storage that several programs may share.

    Args:
        url: `journal:PATH`, or a database URL of SQLAlchemy, such as `sqlite:///PATH` or
            `postgresql+psycopg://USER@HOST/NAME`. A password is best left to PGPASSWORD or ~/.pgpass.

    Raises:
        StorageError: no such kind, no driver, or nothing that answers there. A password is not repeated.
    """
    shown = shown_url(url)
    try:
        if url.startswith(JOURNAL):
            return JournalStorage(JournalFileBackend(url.removeprefix(JOURNAL)))
        return RDBStorage(url)
    except ImportError as error:
        raise StorageError(
            f"{shown} needs a driver that is not installed ({error.name}); for PostgreSQL: "
            "pip install 'psycopg[binary]' and a URL that begins with postgresql+psycopg://",
            code="study_storage.missing_driver",
            storage=shown,
        ) from None
    except (
        OSError,
        ValueError,
        LookupError,
        sqlalchemy.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
    ) as error:
        raise unusable(url, error) from None


def unusable(url: str, error: Exception) -> StorageError:
    """What a user reads where a storage refuses: its own words, and no password."""
    cause = error.__cause__ or error
    words = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return StorageError(
        f"{shown_url(url)} cannot be used: {words[0] if words else cause!r}",
        code="study_storage.unusable",
        storage=shown_url(url),
    )


def shown_url(url: str) -> str:
    """A storage as it may be printed: without its password.

    Raises:
        StorageError: not a URL.
    """
    if url.startswith(JOURNAL):
        return url
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise StorageError(
            "this is no storage; give journal:PATH, sqlite:///PATH or "
            "postgresql+psycopg://USER@HOST/NAME",
            code="study_storage.not_a_url",
        ) from None
