"""Where a study can be kept besides a file of its own: SQLite, PostgreSQL, a journal."""

from pathlib import Path

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from sweeper.errors import StorageError

JOURNAL = "journal:"


def open_storage(url: str) -> BaseStorage:
    """Open a storage that several programs may share.

    Args:
        url: `journal:PATH`, or a database URL of SQLAlchemy, such as `sqlite:///PATH` or
            `postgresql+psycopg://USER@HOST/NAME`. A password is best left to PGPASSWORD or ~/.pgpass.

    Raises:
        StorageError: no such kind, no driver, or nothing that answers there. A password is not repeated.
    """
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL))
        try:
            return JournalStorage(JournalFileBackend(str(path)))
        except OSError as error:
            raise StorageError(f"cannot open the journal {path}: {error.strerror}") from None
    shown = shown_url(url)
    try:
        return RDBStorage(url)
    except ImportError as error:
        raise StorageError(
            f"{shown} needs a driver that is not installed ({error.name}); for PostgreSQL: "
            "pip install 'psycopg[binary]' and a URL that begins with postgresql+psycopg://"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        first = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StorageError(f"{shown} cannot be used: {first}") from None


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
            "postgresql+psycopg://USER@HOST/NAME"
        ) from None
