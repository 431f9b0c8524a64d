"""A trial on several GPUs: one process each, started and watched from here.

The processes do the same attempt together (`trial.worker`). Each reports through a pipe of its own, in JSON
lines: the first one its records, any of them why it failed. When this process ends, for whatever reason,
their standard input closes, and they end too.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import DiskFullError, RankLostError, UnreachableError
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.failure import Failure, Limits

GRACE_SECONDS = 10.0
"""How long other processes may still report after one has: the first to fail is not always the cause."""


REFUSALS = {error.__name__: error for error in (DiskFullError, UnreachableError)}


class _Rank(NamedTuple):
    """One process, and the reading end of its pipe."""

    process: "subprocess.Popen[bytes]"
    pipe: int


def run_on_ranks(
    tasks: Sequence[TrajectoryTask],
    storage_of: Callable[[str], TrialStorage],
    known: set[tuple[str, int]],
    limits: Limits,
) -> Generator[list[TrialRecord], None, Failure | None]:
    """One attempt on as many processes as the tasks ask for; returns why it ended early, if it did.

    Args:
        tasks: See `run_pack`.
        storage_of: See `run_pack`.
        known: The readouts that have their record; those that are yielded are added.
        limits: What the attempt may take on.

    Raises:
        RankLostError: a process ended without a report.
        DiskFullError, UnreachableError: see `run_pack`.
    """
    storage = storage_of(tasks[0].trajectory_id)
    storage.create()
    with tempfile.TemporaryDirectory(prefix="sweeper-ranks-") as scratch:
        job = Path(scratch) / "job.json"
        job.write_text(
            json.dumps(
                {
                    "tasks": [task.to_json() for task in tasks],
                    "root": str(storage.root),
                    "known": sorted(known),
                    "limits": asdict(limits),
                    "rendezvous": f"file://{scratch}/rendezvous",
                }
            ),
            encoding="utf-8",
        )
        ranks = [_start(job, rank, storage) for rank in range(tasks[0].compute.processes)]
        try:
            return (yield from _listen(ranks, storage, known))
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.wait()
                os.close(rank.pipe)


def _start(job: Path, rank: int, storage: TrialStorage) -> _Rank:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "sweeper.trial.worker", str(job), str(rank), str(writing)]
    with storage.rank_log(rank).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(writing,),
        )
    os.close(writing)
    return _Rank(process, reading)


def _listen(
    ranks: Sequence[_Rank], storage: TrialStorage, known: set[tuple[str, int]]
) -> Generator[list[TrialRecord], None, Failure | None]:
    """Pass records on until all pipes are closed, or a while after the first failure."""
    failures: list[Failure] = []
    rests = dict.fromkeys((rank.pipe for rank in ranks), b"")
    with selectors.DefaultSelector() as selector:
        for rank in ranks:
            selector.register(rank.pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(GRACE_SECONDS if failures else None)
            if not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                    lost = _silent_end(ranks, key.fd, storage)
                    if lost is not None and not failures:
                        raise lost
                    continue
                *lines, rests[key.fd] = (rests[key.fd] + chunk).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "refused" in message:
                        kind, *args = message["refused"]
                        raise REFUSALS[kind](*args)
                    if "failure" in message:
                        failures.append(Failure(**message["failure"]))
                    else:
                        yield _records(message, known)
    exhausted = [failure for failure in failures if failure.out_of_memory]
    return next(iter(exhausted or failures), None)


def _records(message: dict[str, Any], known: set[tuple[str, int]]) -> list[TrialRecord]:
    records = [TrialRecord.from_json(text) for text in message["records"]]
    known.update(record.key for record in records)
    return records


def _silent_end(ranks: Sequence[_Rank], pipe: int, storage: TrialStorage) -> RankLostError | None:
    """The error of a process that has closed its pipe and did not end well."""
    number = next(i for i, rank in enumerate(ranks) if rank.pipe == pipe)
    code = ranks[number].process.wait()
    return None if code == 0 else RankLostError(number, code, str(storage.rank_log(number)))
