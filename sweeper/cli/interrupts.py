"""Messages and exit code of an interrupted sweep."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import typer

from sweeper.cli import show
from sweeper.store.folder import RunFolder

INTERRUPTED = 130
"""The shell's exit code after Ctrl-C; SIGTERM is handled the same way."""


@contextlib.contextmanager
def resumable(folder: RunFolder) -> Iterator[None]:
    """On Ctrl-C or SIGTERM, print where results are and how to continue, and exit with code 130."""
    before = signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        with _noted_at_once():
            yield
    except KeyboardInterrupt:
        interrupted(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _noted_at_once() -> Iterator[None]:
    """Print a notice as soon as a signal arrives, because stopping trials takes time.

    It uses the wakeup descriptor, which receives every signal: Tune and Ray install their own handlers.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_note, args=(reader,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()


def _note(reader: int) -> None:
    """Print it once: SIGTERM becomes Ctrl-C, so both arrive."""
    printed = False
    with os.fdopen(reader, "rb", buffering=0) as file:
        while number := file.read(1):
            if number[0] in (signal.SIGINT, signal.SIGTERM) and not printed:
                printed = True
                show.note(
                    "stopping the trials; press Ctrl-C again to stop without waiting for them"
                )


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """The current effect of Ctrl-C; background jobs of a shell ignore Ctrl-C itself, but not this."""
    if not callable(signal.getsignal(signal.SIGINT)):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def interrupted(folder: RunFolder) -> None:
    """Print on standard error what is saved and which command continues the run.

    Raises:
        typer.Exit: always, with INTERRUPTED.
    """
    again = shlex.join(["sweeper", *(word for word in sys.argv[1:] if word != "--overwrite")])
    show.note("")
    if folder.info.exists():
        show.note(f"interrupted: {_progress(folder)}; all finished results are saved")
        show.note("unfinished trajectories continue from their last checkpoint")
        show.note(f"show the results:   {shlex.join(['sweeper', 'front', str(folder.root)])}")
    else:
        show.note("interrupted before anything was trained")
    show.note(f"continue:           {again}")
    raise typer.Exit(INTERRUPTED)


def _progress(folder: RunFolder) -> str:
    """`37 of 140 records are in runs/x/records.jsonl`, and those of unfinished decisions likewise."""
    begun = [RunFolder(path) for path in sorted(folder.confirm.glob("[!.]*"))]
    counts = [(item, _written(item)) for item in begun if item.info.exists()]
    unfinished = [(item, count) for item, count in counts if count < item.planned_records()]
    return "; ".join(
        f"{count} of {item.planned_records()} records are in {item.records}"
        for item, count in ((folder, _written(folder)), *unfinished)
    )


def _written(folder: RunFolder) -> int:
    """The records on disk; an incomplete last line does not count."""
    return folder.records.read_bytes().count(b"\n") if folder.records.exists() else 0
