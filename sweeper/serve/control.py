"""Stops and resumes runs from a page, by the functions and the command of the command line."""

import subprocess
import sys
import threading

from sweeper.errors import RunFolderError
from sweeper.launch import last_job
from sweeper.runs.stopping import stop_driver, stop_path, stopped_path_text
from sweeper.store.folder import RunFolder

LAST_LINES = 3

INTERRUPTED = 130
"""The exit code of a sweep that was stopped."""


class Control:
    """The sweeps that pages have resumed; they go on when the server ends.

    Args:
        beside: The server lasts as long as the driver of its run, which nothing here may precede.
    """

    def __init__(self, beside: bool = False) -> None:
        self._beside = beside
        self._resumed: dict[str, subprocess.Popen[bytes]] = {}
        self._drove: set[int] = set()
        self._lock = threading.Lock()

    def stop(self, folder: RunFolder) -> str:
        """Stop a run as `sweeper stop` does, without waiting for it; returns what to say.

        Raises:
            RunFolderError: it does not run here.
        """
        if (job := last_job(folder.launch)) is not None:
            job.cancel(only_waiting=True)
        return f"stopping process {stop_driver(folder)}; finished results are saved"

    def stop_path(self, trajectory_id: str, folder: RunFolder) -> str:
        """Stop one path as `sweeper stop --path` does; returns what to say.

        Raises:
            RunFolderError: it has ended, or is not of this run.
        """
        return stopped_path_text(stop_path(folder, trajectory_id))

    def resume(self, folder: RunFolder) -> str:
        """Start `sweeper resume` in a session of its own; returns what to say.

        Raises:
            RunFolderError: it runs already.
        """
        with self._lock:
            before = self._resumed.get(str(folder.root))
            if (
                self._beside
                or folder.has_driver()
                or (before is not None and before.poll() is None)
            ):
                raise RunFolderError(
                    f"{folder.root} runs already, so there is nothing to resume",
                    code="run.in_use",
                    path=folder.root,
                )
            command = [sys.executable, "-m", "sweeper", "resume", str(folder.root)]
            with folder.resume_log.open("wb") as log:
                process = subprocess.Popen(  # noqa: S603 - the folder is one of the listed runs
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._resumed[str(folder.root)] = process
        threading.Thread(target=process.wait, daemon=True).start()
        return f"resuming as process {process.pid}; its output is in {folder.resume_log.name}"

    def note(self, folder: RunFolder) -> str:
        """What became of the last resumption: empty where there was none, and once it drives the run."""
        process = self._resumed.get(str(folder.root))
        if process is None:
            return ""
        if folder.has_driver():
            self._drove.add(process.pid)
            if process.poll() is not None:  # Somebody else has resumed it.
                self._resumed.pop(str(folder.root), None)
            return ""
        code = process.poll()
        if code is None:
            return "" if process.pid in self._drove else "resuming: the driver is starting"
        if code in (0, INTERRUPTED):
            return ""
        try:
            text = folder.resume_log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        last = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
        return f"the resumed sweep ended with exit code {code}: {' '.join(last)}"
