"""From a name in a spec to a local path: `builtin:` names are built on demand, others stay as they are."""

from pathlib import Path

from sweeper.errors import DataError
from sweeper.miniature import ensure_miniature
from sweeper.store.folder import cache_root

BUILTIN = "builtin:"

__all__ = ["BUILTIN", "cache_root", "resolve"]


def resolve(path: str) -> str:
    """The path to open. The miniature is built at its first use, which takes about a minute.

    Raises:
        DataError: a `builtin:` name that does not exist, or a cache folder that cannot be written.
    """
    if not path.startswith(BUILTIN):  # Absolute: a worker's working folder may be another one.
        return str(Path(path).resolve()) if Path(path).exists() else path
    world, _, inner = path.removeprefix(BUILTIN).partition("/")
    if world != "miniature":
        raise DataError(
            f"{path}: the only builtin world is `builtin:miniature/...`",
            code="data.builtin",
            path=path,
        )
    try:
        found = ensure_miniature(cache_root()) / inner
    except OSError as error:
        raise DataError(
            f"cannot build the miniature in {cache_root()}: {error.strerror}; set SWEEPER_CACHE to a "
            "folder that can be written",
            code="data.builtin",
            path=cache_root(),
        ) from None
    if not inner or not found.exists():
        raise DataError(
            f"{path}: the miniature has no `{inner}`; see docs/tutorials/miniature.ipynb",
            code="data.builtin",
            path=path,
        )
    return str(found)
