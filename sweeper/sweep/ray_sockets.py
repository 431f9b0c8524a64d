"""Whether a local Ray cluster can make its sockets, whose paths the system keeps short."""

import os
from pathlib import Path

from sweeper.errors import SweeperError

LIMIT_BYTES = 107
"""The longest path of a Unix socket on Linux (`sun_path` of `man 7 unix`, less its closing NUL)."""

_SESSION = "session_2000-01-01_00-00-00_000000"


def check_socket_path() -> None:
    """Reject a folder for temporary files below which the paths of Ray's sockets are too long.

    Raises:
        SweeperError: the folder of RAY_TMPDIR, or else of TMPDIR, is too long.
    """
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    folder = os.environ.get(name, str(Path(os.sep, "tmp")))  # As Ray does.
    below = f"/ray/{_SESSION}_{os.getpid()}/sockets/plasma_store"
    length, longest = len(os.fsencode(folder)), LIMIT_BYTES - len(below)
    if length > longest:
        raise SweeperError(
            f"{name} is {folder}, a path of {length} bytes, but Ray makes sockets below it, for which "
            f"it may have at most {longest}; set RAY_TMPDIR to a shorter local folder, such as /tmp"
        )
