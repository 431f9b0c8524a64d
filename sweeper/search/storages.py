"""Optuna storages: the journal in the run folder, or a storage shared with other programs."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from sweeper.errors import StorageError

JOURNAL = "journal:"


class _UnsyncedJournal(JournalFileBackend):
    """A journal without lock and fsync: it has one writer and can be rebuilt.

    Optuna's own writer creates a lock file, which a crash leaves behind, and syncs after each line.
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
        StorageError: unknown kind, missing driver, or unavailable. The message never contains a password.
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


def read_only_url(path: Path) -> str:
    """The URL of a SQLite file that is never written to or made, whatever characters are in its name."""
    database = f"file:{quote(str(path.absolute()))}"
    url = sqlalchemy.URL.create("sqlite", database=database, query={"mode": "ro", "uri": "true"})
    return url.render_as_string()


def unusable(url: str, error: Exception) -> StorageError:
    """An error with the message of the storage, without its password."""
    cause = error.__cause__ or error
    words = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    problem = words[0] if words else repr(cause)
    return StorageError(
        f"{shown_url(url)} cannot be used: {problem}",
        code="study_storage.unusable",
        storage=shown_url(url),
        problem=problem,
    )


def shown_url(url: str) -> str:
    """The URL of a storage without its password, for messages.

    Raises:
        StorageError: not a URL.
    """
    if url.startswith(JOURNAL):
        return url
    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        raise StorageError(
            "invalid storage URL; expected journal:PATH, sqlite:///PATH or "
            "postgresql+psycopg://USER@HOST/NAME",
            code="study_storage.not_a_url",
        ) from None
