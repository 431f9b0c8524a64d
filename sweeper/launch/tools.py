"""The command-line tools of clusters, asked for a moment."""

import shutil
import subprocess

_SECONDS = 30


def answer(tool: str, *words: str) -> str | None:
    """What a tool prints, without space around it; None if there is no such tool here, or it fails."""
    if shutil.which(tool) is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, no shell
            [tool, *words], capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
