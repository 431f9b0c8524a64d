"""The layout of a run folder. This is the only module that knows the file names."""

import fcntl
import json
import os
import shlex
import stat
from collections.abc import Container
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from sweeper.errors import RunFolderError
from sweeper.store.retry import with_retry

RUN_VERSION = 2


def write_atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Replace a file atomically: temporary sibling, fsync, rename.

    Without `durable` there is no fsync: readers still see the old file or the new one, but after a crash
    of the machine the file may be empty.

    Raises:
        OSError: the file cannot be written; the old file, if any, is unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def write_with_retry(path: Path, content: str | bytes) -> None:
    """`write_atomic`, retried while the storage is temporarily unavailable.

    Raises:
        DiskFullError, UnreachableError, OSError: it cannot be written; the old file is unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with_retry(partial(write_atomic, path, data), path, len(data))


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: the file is missing, a symbolic link, or not a regular file. A pipe does not block.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def cache_root() -> Path:
    """The folder of cached files: $SWEEPER_CACHE, or `sweeper` under the user's cache folder."""
    configured = os.environ.get("SWEEPER_CACHE")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweeper"


def _plain(name: str) -> str:
    """Check that a name is a single path component: ids come from files that other users may write.

    Raises:
        RunFolderError: the name is empty, too long, or contains a path separator.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > 255:
        raise RunFolderError(
            f"{name[:80]!r} is not a valid file name, so the id in it was not written by sweeper; remove "
            "the record or task file that contains it",
            code="run.invalid_name",
            name=name[:80],
        )
    return name


class TrialStorage:
    """The files that one trial may write: its trajectory's folder and the responses of its readouts."""

    def __init__(self, root: Path, trajectory_id: str) -> None:
        self.root = root
        self.trajectory = root / "trajectories" / _plain(trajectory_id)
        self.checkpoint = self.trajectory / "checkpoint.safetensors"
        self.outbox = self.trajectory / "outbox"
        self.progress = self.trajectory / "progress.json"
        self.log = self.trajectory / "log.jsonl"
        self.stop_mark = self.trajectory / "stop"
        self._generations = root / "generations"

    def create(self) -> None:
        """Create the folders. Existing ones are kept: a trial resumes from their contents."""
        for folder in (self.trajectory, self.outbox, self._generations):
            folder.mkdir(parents=True, exist_ok=True)

    def shard(self, rank: int, size: int) -> Path:
        """The checkpoint of process `rank` of `size`; `checkpoint` if there is only one."""
        name = "checkpoint.safetensors" if size == 1 else f"checkpoint-{rank}-of-{size}.safetensors"
        return self.trajectory / name

    def rank_log(self, rank: int) -> Path:
        """The standard output and error of one process of a multi-GPU trial."""
        return self.trajectory / f"rank-{rank}.log"

    def stalled(self, rank: int) -> Path:
        """The stack traces of a process that was stopped because it made no progress."""
        return self.trajectory / f"stalled-{rank}.txt"

    def stall_notes(self) -> list[str]:
        """The stack traces left by stalled processes of the last attempt."""
        texts = [path.read_text("utf-8", "replace") for path in self.trajectory.glob("stalled-*")]
        return [text for text in texts if text]

    def drop_checkpoints(self) -> None:
        """Delete all checkpoints; a finished trajectory no longer needs them."""
        for path in self.checkpoints():
            path.unlink(missing_ok=True)

    def generations(self, config_id: str, seed: int) -> Path:
        """The responses of one configuration under one seed."""
        return self._generations / _plain(f"{config_id}-{seed}.jsonl")

    def weights(self, config_id: str) -> Path:
        """The weights that a configuration was measured with, if the task keeps weights."""
        return self.trajectory / _plain(f"{config_id}.weights.safetensors")

    def weight_files(self) -> list[Path]:
        """All weights files kept for this trajectory."""
        return sorted(self.trajectory.glob("*.weights.safetensors"))

    def checkpoints(self) -> list[Path]:
        """All checkpoint files: current and previous ones of all processes, and partially written ones."""
        return sorted(self.trajectory.glob("checkpoint*.safetensors"))

    def outgoing(self, config_id: str) -> Path:
        """A finished record, kept until the driver has written it to records.jsonl."""
        return self.outbox / _plain(f"{config_id}.json")


class RunFolder:
    """The paths of a run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.info = root / "run.json"
        self.spec = root / "spec.yaml"
        self.plan = root / "plan.json"
        self.records = root / "records.jsonl"
        self.rounds = root / "rounds.jsonl"
        self.refinements = root / "refinements.jsonl"
        self.budget = root / "budget.json"
        self.search = root / "search.json"
        self.undecidable = root / "undecidable.txt"
        self.generations = root / "generations"
        self.judgements = root / "judgements.jsonl"
        self.trajectories = root / "trajectories"
        self.study = root / "study.journal"
        self.ray = root / "ray"
        self.report = root / "report.html"
        self.confirm = root / "confirm"
        self.launch = root / "launch"
        self.lock = root / ".lock"
        self.resume_log = root / "resume.log"

    def trial(self, trajectory_id: str) -> TrialStorage:
        """The part of the folder that one trial writes to."""
        return TrialStorage(self.root, trajectory_id)

    def trials_with_logs(self) -> list[str]:
        """The ids of the trajectories that have a log, most recently written last."""
        written = {}
        for path in self.trajectories.glob("*/log.jsonl"):
            try:
                written[path.parent.name] = path.stat().st_mtime
            except OSError:  # Deleted meanwhile.
                continue
        return sorted(written, key=lambda name: (written[name], name))

    def create(self) -> None:
        """Create the folder and check that it is writable.

        Raises:
            RunFolderError: it cannot be created or written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomic(self.root / ".writable", b"")
            (self.root / ".writable").unlink()
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {self.root}: {error.strerror}; "
                "choose another folder with --out",
                code="run.unwritable",
                path=self.root,
            ) from None

    def read_info(self, accepted: Container[int] = (RUN_VERSION,)) -> dict[str, Any] | None:
        """The contents of run.json, or None if no run has started here.

        Args:
            accepted: The format versions that the caller can read.

        Raises:
            RunFolderError: unreadable, or of a version that is not accepted.
        """
        try:
            info = json.loads(self.info.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise RunFolderError(
                f"{self.root} is a file, not a run folder; give the folder that `sweeper run` wrote",
                code="run.not_a_run",
                path=self.root,
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise RunFolderError(
                f"cannot read {self.info}: {error}", code="run.unreadable", path=self.info
            ) from None
        version = info.get("version") if isinstance(info, dict) else None
        if type(version) is not int or version not in accepted:
            older = type(version) is int and 0 < version < RUN_VERSION
            remedy = (
                f"upgrade it with `sweeper migrate {shlex.quote(str(self.root))} --write`"
                if older
                else "install the sweeper version that wrote it"
            )
            raise RunFolderError(
                f"{self.info} has version {version!r}; this sweeper reads {RUN_VERSION}; {remedy}",
                code="run.version",
                path=self.info,
                version=version,
            )
        return dict(info)

    def open(self) -> "RunFolder":
        """Check that the folder contains a run, for commands that only read.

        Raises:
            RunFolderError: the folder contains no run.
        """
        if self.read_info() is None:
            raise RunFolderError(
                f"{self.root} is not a run folder (no run.json); give the folder that "
                "`sweeper run` wrote",
                code="run.not_a_run",
                path=self.root,
            )
        return self

    def planned_records(self) -> int:
        """The number of records in the current plan: one for each configuration and seed.

        Raises:
            RunFolderError: plan.json is missing or damaged.
        """
        try:
            return int(json.loads(self.plan.read_text(encoding="utf-8"))["accounting"]["readouts"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunFolderError(
                f"{self.plan} is damaged ({type(error).__name__}); delete run.json and plan.json, then run "
                "the same sweep again: existing records are kept",
                code="run.damaged",
                path=self.plan,
            ) from None

    def has_driver(self) -> bool:
        """Whether a driver is using the folder, on any machine that shares its file locks."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
