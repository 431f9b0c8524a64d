"""The live page beside a sweep: a server in a process of its own, which ends with the sweep."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import SweeperError
from sweeper.serve.server import DEFAULT_PORT, Started, serve

NICENESS = 10
END_SECONDS = 10.0


class Beside(NamedTuple):
    """A server that has been started."""

    process: "subprocess.Popen[str]"

    def address(self) -> str:
        """Waits for its address; empty where it ended instead."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Beside]:
    """Serve a run folder while the context lasts, even if this process is killed before its end.

    Args:
        root: The run folder, which is made if it is missing.
    """
    root.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(  # noqa: S603 - this module, on the run's own folder
        [sys.executable, "-m", __name__, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Beside(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_input() -> None:
    """End this process as soon as the one that started it is gone or closes the pipe."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main(root: Path) -> None:
    """Serve until standard input ends; the address is the only line of standard output."""

    def begin(started: Started) -> None:
        print(started.url, flush=True)

    os.nice(NICENESS)
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        serve(root, port=DEFAULT_PORT, beside=True, begin=begin)
    except SweeperError:  # The port is taken.
        serve(root, port=0, beside=True, begin=begin)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
