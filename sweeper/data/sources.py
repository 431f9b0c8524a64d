"""Resolves paths in a sweep file: `builtin:` names are built on demand, others are left unchanged."""

from pathlib import Path

from sweeper.errors import DataError
from sweeper.miniature import ensure_miniature
from sweeper.store.folder import cache_root

BUILTIN = "builtin:"

__all__ = ["BUILTIN", "cache_root", "resolve"]


def resolve(path: str) -> str:
    """The path to open. The miniature is built on first use, which takes about a minute.

    Raises:
        DataError: an unknown `builtin:` name, or the cache folder is not writable.
    """
    if not path.startswith(BUILTIN):  # Absolute, because a worker's working directory may differ.
        return str(Path(path).resolve()) if Path(path).exists() else path
    world, _, inner = path.removeprefix(BUILTIN).partition("/")
    if world != "miniature":
        raise DataError(
            f"{path}: unknown builtin name; expected `builtin:miniature/...`",
            code="data.builtin",
            path=path,
        )
    try:
        resolved = ensure_miniature(cache_root()) / inner
    except OSError as error:
        raise DataError(
            f"cannot build the miniature in {cache_root()}: {error.strerror}; set SWEEPER_CACHE to a "
            "writable folder",
            code="data.builtin",
            path=cache_root(),
        ) from None
    if not inner or not resolved.exists():
        raise DataError(
            f"{path}: the miniature has no `{inner}`; see docs/tutorials/miniature.ipynb",
            code="data.builtin",
            path=path,
        )
    return str(resolved)
