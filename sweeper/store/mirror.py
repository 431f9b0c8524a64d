"""Mirrors a run to an object store, for machines that may be preempted: `compute.mirror: s3://BUCKET/PREFIX`.

Records are appended, synced and locked in the local run folder, because an object store supports none of
these. All files that records depend on are copied while the sweep runs, and restored first on an empty
disk. Objects are replaced as a whole. Responses are uploaded before the records that refer to them, so the
copy is a valid run folder at any time. Checkpoints, which only save time, are copied where asked for, after
the records that they follow; those of finished paths are the only objects ever deleted. The parts of a path
on several GPUs are sent one by one: where they are of different steps, it starts again. Weights are not
copied.
"""

import io
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

from pyarrow import fs
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
)

from sweeper.errors import MirrorError
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.journal import read_lines
from sweeper.store.object_store import (
    CREDENTIALS,
    UNAVAILABLE,
    fetch,
    first_line,
    is_worth_a_retry,
    open_store,
    put,
)
from sweeper.store.records import RecordObserver, TrialRecord
from sweeper.store.retry import RetryPolicy

PUSH_SECONDS = 30.0
"""The minimum interval between two updates of the mirror."""

RETRY_POLICY = RetryPolicy(first_seconds=0.5, longest_seconds=15.0, total_seconds=60.0)
"""How long an unavailable store is retried at the start and at the end of a run."""

_MIRRORED_NAMES = re.compile(
    r"(confirm/\w[\w.-]*/)?((run|plan|budget|search)\.json|spec\.yaml|report\.html|"
    r"(records|rounds|refinements|judgements)\.jsonl|generations/[\w-]+\.jsonl|"
    r"trajectories/[\w-]+/(progress\.json|outbox/[\w-]+\.json))"
)

_CHECKPOINTS = re.compile(
    r"(confirm/\w[\w.-]*/)?trajectories/[\w-]+/checkpoint(-\d+-of-\d+)?\.safetensors"
)
"""The newest whole checkpoints, not those before them nor what is being written."""

_log = logging.getLogger("sweeper.store.mirror")

Result = TypeVar("Result")


class _Checkpoint(NamedTuple):
    """A checkpoint as it was when it was opened, even if another has taken its name since."""

    file: BinaryIO
    state: tuple[int, int]


class Mirror:
    """The mirror of one run folder: `pull` at the start, then `observing` while the sweep runs.

    Args:
        folder: The run folder.
        url: See `open_store`.
        checkpoints: Mirror checkpoints, too.
        open_store: What opens the store.
        policy: How long an unavailable store is retried where something waits for it.
        push_seconds: The minimum interval between two updates.
        sleep: How to wait between attempts.
    """

    def __init__(
        self,
        folder: RunFolder,
        url: str,
        *,
        checkpoints: bool = False,
        open_store: Callable[[str], tuple[fs.FileSystem, str]] = open_store,
        policy: RetryPolicy = RETRY_POLICY,
        push_seconds: float = PUSH_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._url = url
        self._policy = policy
        self._push_seconds = push_seconds
        self._sleep = sleep
        self._open_store = open_store
        self._checkpoints = checkpoints
        self._checkpoints_there: set[str] = set()
        self._sent: dict[str, tuple[int, int]] = {}
        self._records_there = 0
        self._failed: MirrorError | None = None

    @cached_property
    def _opened(self) -> tuple[fs.FileSystem, str]:
        return self._open_store(self._url)

    def pull(self, spec_hash: str, fresh: bool = False) -> int:
        """Download the files that the run folder lacks; returns their number.

        Args:
            spec_hash: The hash of the sweep's spec, as in run.json.
            fresh: The run starts over, so the mirror must not contain an earlier one.

        Raises:
            MirrorError: the store is unavailable, or contains records that conflict with this folder's.
        """
        there = self._retried(self._listing)
        theirs = (
            self._retried(lambda: self._read("records.jsonl")) if "records.jsonl" in there else b""
        )
        self._records_there = len(theirs)
        self._checkpoints_there = {name for name in there if _CHECKPOINTS.fullmatch(name)}
        if fresh:
            if there:
                raise MirrorError(
                    f"{self._url} already contains a run, and --overwrite never deletes files in a mirror; "
                    "set compute.mirror to another prefix",
                    code="mirror.holds_run",
                    url=self._url,
                )
            return 0
        self._check_spec(there, spec_hash)
        ours = _whole_lines(self._folder.records)
        if not theirs.startswith(ours) and not ours.startswith(theirs):
            raise MirrorError(
                f"the records in {self._url} and in {self._folder.records} belong to different runs; set "
                "compute.mirror to another prefix, or choose another folder with --out",
                code="mirror.other_run",
                url=self._url,
            )
        fetched = sum(self._fetch_checkpoint(there[name]) for name in self._checkpoints_there)
        if len(theirs) > len(ours) or not self._folder.info.exists():
            names = sorted(there, key=lambda name: name in ("records.jsonl", "run.json"))
            others = (name for name in names if name not in self._checkpoints_there)
            fetched += sum(self._fetch(name, there[name].size) for name in others)
        self._sent |= {
            name: _state(self._folder.root / name)
            for name, found in there.items()
            if _state(self._folder.root / name)[0] == found.size and _is_final(name)
        }
        return fetched

    def _check_spec(self, there: Container[str], spec_hash: str) -> None:
        """Reject a mirror of another sweep."""
        if self._folder.info.name not in there:
            return
        raw = self._retried(lambda: self._read(self._folder.info.name))
        try:
            found = json.loads(raw)["spec_hash"]
        except (ValueError, TypeError, KeyError):
            found = "damaged"
        if found != spec_hash:
            raise MirrorError(
                f"{self._url} contains a run of another spec ({found}, expected {spec_hash}); set "
                "compute.mirror to another prefix",
                code="mirror.other_spec",
                url=self._url,
                found=found,
                expected=spec_hash,
            )

    def _fetch(self, name: str, size: int) -> bool:
        """Download one file, unless it already exists."""
        path = self._folder.root / name
        if _state(path)[0] == size:
            return False
        data = self._retried(lambda: self._read(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
        return True

    def _fetch_checkpoint(self, found: fs.FileInfo) -> bool:
        """Download a checkpoint, unless one that is as new is here: all of a path have the same size."""
        store, place = self._opened
        path = self._folder.root / found.path.removeprefix(f"{place}/")
        if path.exists() and path.stat().st_mtime_ns >= (found.mtime_ns or 0):
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._retried(lambda: fetch(store, found.path, path))
        return True

    @contextmanager
    def observing(self) -> Iterator[RecordObserver]:
        """An observer that updates the mirror after new records, in a background thread.

        An unavailable store does not block the sweep: uploads are retried, at the end for a limited time.
        Files that are still missing then are reported, and uploaded by the next run of the same command.

        Raises:
            MirrorError: from the observer, if another driver has written records to the mirror.
        """
        changed, ended = threading.Event(), threading.Event()
        thread = threading.Thread(target=self._follow, args=(changed, ended), daemon=True)

        def on_record(record: TrialRecord) -> None:
            changed.set()
            if self._failed is not None:
                raise self._failed

        thread.start()
        try:
            yield on_record
        finally:
            ended.set()
            changed.set()
            thread.join()
            if self._failed is None:
                self._finish()

    def _follow(self, changed: threading.Event, ended: threading.Event) -> None:
        lost = False

        def warn(state: RetryCallState) -> None:
            nonlocal lost
            if not lost and state.outcome is not None:
                _log.warning(
                    "cannot upload records to %s; the sweep continues and the upload is retried: %s",
                    self._url,
                    first_line(state.outcome.exception()),
                )
            lost = True

        pushing = Retrying(
            retry=retry_if_exception_type(UNAVAILABLE),
            wait=wait_exponential(self._policy.first_seconds, self._policy.longest_seconds),
            stop=stop_when_event_set(ended),
            sleep=sleep_using_event(ended),
            before_sleep=warn,
            reraise=True,
        )
        while not ended.is_set():
            changed.wait(self._push_seconds if self._checkpoints else None)
            changed.clear()
            if ended.is_set():
                return
            try:
                pushing(self.push)
            except MirrorError as error:
                self._failed = error
                return
            except UNAVAILABLE:  # The sweep has ended; `_finish` tries again.
                return
            if lost:
                _log.warning("%s is up to date again", self._url)
            lost = False
            ended.wait(self._push_seconds)

    def _finish(self) -> None:
        try:
            self._retried(self.push)
        except MirrorError as error:
            _log.warning(
                "the mirror is not up to date: %s. Run the same command again to upload the rest",
                error,
            )

    def push(self) -> int:
        """Upload what has changed, the records last, then checkpoints; returns the number of files.

        Raises:
            OSError: the store is unavailable.
            MirrorError: another driver has written records there meanwhile.
        """
        with ExitStack() as opened:
            # Opened first, sent last: no checkpoint there is ahead of the records there.
            changed = self._open_checkpoints(opened) if self._checkpoints else {}
            sent = self._push_results()
            for name, checkpoint in changed.items():
                checkpoint.file.seek(0)
                self._checkpoints_there.add(name)
                self._write(name, checkpoint.file)
                self._sent[name] = checkpoint.state
        if self._checkpoints:
            self._delete_finished()
        return sent + len(changed)

    def _push_results(self) -> int:
        records = _whole_lines(self._folder.records)
        store, place = self._opened
        there = store.get_file_info(f"{place}/records.jsonl")
        if (there.size or 0) != self._records_there:
            raise MirrorError(
                f"{self._url} contains records that this run did not upload: another driver uses the same "
                "prefix; stop one of the two and set its compute.mirror to another prefix",
                code="mirror.other_driver",
                url=self._url,
            )
        sent = 0
        for path in _mirrored(self._folder):
            name = path.relative_to(self._folder.root).as_posix()
            state = _state(path)
            if self._sent.get(name) == state:
                continue
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # Its trajectory has finished meanwhile.
                continue
            self._write(name, io.BytesIO(data))
            self._sent[name] = state
            sent += 1
        if len(records) > self._records_there:
            self._write("records.jsonl", io.BytesIO(records))
            self._records_there = len(records)
            sent += 1
        return sent

    def _open_checkpoints(self, opened: ExitStack) -> Mapping[str, _Checkpoint]:
        """Those that have changed since they were sent."""
        found = {}
        places = "trajectories/*/checkpoint*.safetensors"
        root = self._folder.root
        for path in sorted([*root.glob(places), *root.glob(f"confirm/*/{places}")]):
            name = path.relative_to(root).as_posix()
            if _CHECKPOINTS.fullmatch(name) and self._sent.get(name) != _state(path):
                with suppress(FileNotFoundError):  # Its trajectory has finished meanwhile.
                    file = opened.enter_context(path.open("rb"))
                    status = os.fstat(file.fileno())
                    found[name] = _Checkpoint(file, (status.st_size, status.st_mtime_ns))
        return found

    def _delete_finished(self) -> None:
        """Delete the checkpoints of paths that have none left here."""
        store, place = self._opened
        for name in sorted(self._checkpoints_there):
            # One that is being replaced has no file of its name for a moment.
            if not any((self._folder.root / name).parent.glob("checkpoint*")):
                with suppress(FileNotFoundError):
                    store.delete_file(f"{place}/{name}")
                self._checkpoints_there.discard(name)

    def _listing(self) -> dict[str, fs.FileInfo]:
        """The run's objects below the prefix, by name. Other objects are never downloaded."""
        store, place = self._opened
        bucket = place.partition("/")[0]
        if bucket and store.get_file_info(bucket).type == fs.FileType.NotFound:
            raise MirrorError(
                f"{self._url}: bucket {bucket} does not exist; create it, or use another one",
                code="mirror.no_bucket",
                url=self._url,
                bucket=bucket,
            )
        selector = fs.FileSelector(place, allow_not_found=True, recursive=True)
        found = {
            item.path.removeprefix(f"{place}/"): item
            for item in store.get_file_info(selector)
            if item.type == fs.FileType.File
        }
        return {name: item for name, item in found.items() if self._is_mirrored(name)}

    def _is_mirrored(self, name: str) -> bool:
        checkpoint = self._checkpoints and _CHECKPOINTS.fullmatch(name)
        return bool(checkpoint or _MIRRORED_NAMES.fullmatch(name))

    def _read(self, name: str) -> bytes:
        store, place = self._opened
        with store.open_input_stream(f"{place}/{name}") as file:
            return bytes(file.read())

    def _write(self, name: str, source: BinaryIO) -> None:
        store, place = self._opened
        put(store, f"{place}/{name}", source)

    def _retried(self, action: Callable[[], Result]) -> Result:
        try:
            return self._policy.retrying(is_worth_a_retry, self._sleep)(action)
        except UNAVAILABLE as error:
            problem = first_line(error)
            credentials = CREDENTIALS[self._url.partition("://")[0]]
            if not is_worth_a_retry(error):
                raise MirrorError(
                    f"{self._url} rejects the credentials: {problem}; set {credentials}",
                    code="mirror.credentials",
                    url=self._url,
                    variables=credentials,
                ) from None
            raise MirrorError(
                f"{self._url} has been unavailable for {self._policy.total_seconds:g} s: {problem}; "
                f"check the network, AWS_ENDPOINT_URL if it is set, and the credentials "
                f"({credentials}), or remove compute.mirror",
                code="mirror.unreachable",
                url=self._url,
                variables=credentials,
            ) from None


def _mirrored(folder: RunFolder) -> Iterator[Path]:
    """The files to copy besides the records, those of decisions included; what describes the run first."""
    yield from _described(folder)
    for path in sorted(folder.confirm.glob("[!.]*")):
        decision = RunFolder(path)
        yield from _described(decision)
        if decision.records.is_file():
            yield decision.records


def _described(folder: RunFolder) -> Iterator[Path]:
    named = (folder.spec, folder.plan, folder.info, folder.rounds, folder.refinements)
    later = (folder.budget, folder.search, folder.judgements, folder.report)
    yield from (path for path in (*named, *later) if path.is_file())
    yield from sorted(folder.generations.glob("[!.]*.jsonl"))
    yield from sorted(folder.trajectories.glob("*/outbox/[!.]*.json"))
    yield from sorted(folder.trajectories.glob("*/progress.json"))


def _is_final(name: str) -> bool:
    """Whether equal size implies equal contents, as for responses and outgoing records."""
    return "generations/" in name or "/outbox/" in name


def _state(path: Path) -> tuple[int, int]:
    """Size and modification time; (-1, 0) if the file does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _whole_lines(path: Path) -> bytes:
    """The complete lines of a file, without an incomplete last one."""
    return b"".join(line + b"\n" for line in read_lines(path).lines)
