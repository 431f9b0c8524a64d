"""Where everything of a run lies, and who may write there. The only code that names its files."""

import fcntl
import json
import os
import stat
from collections.abc import Container
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from sweeper.errors import RunFolderError
from sweeper.store.retry import with_retry

RUN_VERSION = 2


def write_atomic(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a whole file or leave the old one: temporary sibling, fsync, rename.

    Without `durable` there is no fsync: readers still see the old file or the new one, but after the
    machine itself went down the file may be empty.

    Raises:
        OSError: the file system refused; the old file, if any, is untouched.
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
        DiskFullError, UnreachableError, OSError: it cannot be written; the old file is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with_retry(partial(write_atomic, path, data), path, len(data))


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: it is missing, a link, or no regular file. A pipe does not make anybody wait.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(f"{path.name} is no file")
    return os.fdopen(descriptor, "rb")


def cache_root() -> Path:
    """Where built things are kept: $SWEEPER_CACHE, else `sweeper` under the user's cache folder."""
    own = os.environ.get("SWEEPER_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sweeper"


def _plain(name: str) -> str:
    """The name of a file or folder that lies where it is put: ids come from files that others may write.

    Raises:
        RunFolderError: the name is a path, or none.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name) > 255:
        raise RunFolderError(
            f"{name[:80]!r} is no name of a file, so an id in it was not written by sweeper; remove its "
            "record, or the task file",
            code="run.invalid_name",
            name=name[:80],
        )
    return name


class TrialStorage:
    """What one trial may write: its own trajectory's folder and the generations of its readouts."""

    def __init__(self, root: Path, trajectory_id: str) -> None:
        self.root = root
        self.trajectory = root / "trajectories" / _plain(trajectory_id)
        self.checkpoint = self.trajectory / "checkpoint.safetensors"
        self.outbox = self.trajectory / "outbox"
        self.progress = self.trajectory / "progress.json"
        self.log = self.trajectory / "log.jsonl"
        self._generations = root / "generations"

    def create(self) -> None:
        """Make the folders. Existing ones are kept: a trial resumes from what it finds."""
        for folder in (self.trajectory, self.outbox, self._generations):
            folder.mkdir(parents=True, exist_ok=True)

    def shard(self, rank: int, size: int) -> Path:
        """The checkpoint of one of `size` processes; of a single one, `checkpoint`."""
        name = "checkpoint.safetensors" if size == 1 else f"checkpoint-{rank}-of-{size}.safetensors"
        return self.trajectory / name

    def rank_log(self, rank: int) -> Path:
        """What a process of a trial on several GPUs wrote to its standard streams."""
        return self.trajectory / f"rank-{rank}.log"

    def stalled(self, rank: int) -> Path:
        """Where the threads of a process stood when it was ended for making no progress."""
        return self.trajectory / f"stalled-{rank}.txt"

    def stall_notes(self) -> list[str]:
        """What processes of the last attempt that made no progress left behind."""
        texts = [path.read_text("utf-8", "replace") for path in self.trajectory.glob("stalled-*")]
        return [text for text in texts if text]

    def drop_checkpoints(self) -> None:
        """Delete what a finished trajectory no longer needs to go on."""
        for path in self.checkpoints():
            path.unlink(missing_ok=True)

    def generations(self, config_id: str, seed: int) -> Path:
        """The responses of one configuration under one seed."""
        return self._generations / _plain(f"{config_id}-{seed}.jsonl")

    def weights(self, config_id: str) -> Path:
        """The weights that a configuration was measured on, where the task asks to keep them."""
        return self.trajectory / _plain(f"{config_id}.weights.safetensors")

    def weight_files(self) -> list[Path]:
        """All weights that are kept of this trajectory."""
        return sorted(self.trajectory.glob("*.weights.safetensors"))

    def checkpoints(self) -> list[Path]:
        """All checkpoints: those of all processes, the ones before, and one that was being written."""
        return sorted(self.trajectory.glob("checkpoint*.safetensors"))

    def outgoing(self, config_id: str) -> Path:
        """A finished record, kept until the driver has it in records.jsonl."""
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
        self.generations = root / "generations"
        self.judgements = root / "judgements.jsonl"
        self.trajectories = root / "trajectories"
        self.study = root / "study.journal"
        self.ray = root / "ray"
        self.report = root / "report.html"
        self.confirm = root / "confirm"
        self.launch = root / "launch"
        self.lock = root / ".lock"

    def trial(self, trajectory_id: str) -> TrialStorage:
        """The part of the folder one trial writes to."""
        return TrialStorage(self.root, trajectory_id)

    def trials_with_logs(self) -> list[str]:
        """The ids of the trajectories that have a log, the one written to last at the end."""
        written = {}
        for path in self.trajectories.glob("*/log.jsonl"):
            try:
                written[path.parent.name] = path.stat().st_mtime
            except OSError:  # Deleted meanwhile.
                continue
        return sorted(written, key=lambda name: (written[name], name))

    def create(self) -> None:
        """Make the folder and prove that it can be written to.

        Raises:
            RunFolderError: it cannot.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomic(self.root / ".writable", b"")
            (self.root / ".writable").unlink()
        except OSError as error:
            raise RunFolderError(
                f"cannot write to the run folder {self.root}: {error.strerror}; "
                "choose another with --out",
                code="run.unwritable",
                path=self.root,
            ) from None

    def read_info(self, accepted: Container[int] = (RUN_VERSION,)) -> dict[str, Any] | None:
        """What run.json says, or None where no run has begun; `accepted` are the versions to read.

        Raises:
            RunFolderError: unreadable, or written by an unknown version.
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
        found = info.get("version") if isinstance(info, dict) else None
        if type(found) is not int or found not in accepted:
            older = type(found) is int and 0 < found < RUN_VERSION
            remedy = (
                f"upgrade it with `sweeper migrate {self.root} --write`"
                if older
                else "install the sweeper that wrote it"
            )
            raise RunFolderError(
                f"{self.info} has version {found!r}; this sweeper reads {RUN_VERSION}; {remedy}",
                code="run.version",
                path=self.info,
                version=found,
            )
        return dict(info)

    def open(self) -> "RunFolder":
        """Check that a run has begun here, for commands that only read.

        Raises:
            RunFolderError: the folder holds no run.
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
        """How many records the plan has, by now: one for each configuration and seed.

        Raises:
            RunFolderError: plan.json is missing or damaged.
        """
        try:
            return int(json.loads(self.plan.read_text(encoding="utf-8"))["accounting"]["readouts"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RunFolderError(
                f"{self.plan} is damaged ({type(error).__name__}); delete run.json and plan.json, and run "
                "the same sweep again: it keeps its records",
                code="run.damaged",
                path=self.plan,
            ) from None

    def has_driver(self) -> bool:
        """Whether a driver is at work here, on whatever machine its file locks reach."""
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
