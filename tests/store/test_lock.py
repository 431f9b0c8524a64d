"""One driver at a time: on one machine, on several, and where the storage knows no locks."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.locks import Passing, line_of, lock_file
from support.raising import raises

from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock, Holder, this_machine

HOLD = """
import sys
from pathlib import Path
from sweeper.store.folder import RunFolder
from sweeper.store.lock import DriverLock
from sweeper.errors import RunFolderError
try:
    with DriverLock(RunFolder(Path(sys.argv[1]))):
        print("held", flush=True)
        sys.stdin.readline()
except RunFolderError as error:
    print(error, flush=True)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with DriverLock(RunFolder(tmp_path)):
        refused = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert "another driver (process " in refused.stdout
    assert "choose another folder with --out" in refused.stdout
    freed = subprocess.run(command, input="", capture_output=True, text=True, check=True)
    assert freed.stdout == "held\n"


def test_the_lock_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            raises("run.in_use", process=holder.pid),
            DriverLock(RunFolder(tmp_path)),
        ):
            pass
        holder.kill()
        holder.wait()
    with DriverLock(RunFolder(tmp_path)) as lock:
        assert isinstance(lock, DriverLock)


def test_the_line_of_a_live_driver_on_another_machine_is_respected(tmp_path: Path) -> None:
    path = lock_file(tmp_path)
    path.write_bytes(line_of("node-7", 3).line())
    sleep = Passing(lambda n: void(path.write_bytes(line_of("node-7", 3 + n // 3).line())))
    lock = DriverLock(RunFolder(tmp_path), sleep=sleep)
    with (
        raises("run.in_use", process=4711, path=tmp_path),
        lock,
    ):
        pass
    assert sleep.slept == [2.0] * 3
    assert Holder.read(path) == line_of("node-7", 4), "the line of the holder was touched"


def void(anything: object) -> None:
    """Nothing."""


def test_the_folder_of_a_machine_that_is_gone_is_taken_over_after_a_while(tmp_path: Path) -> None:
    path = lock_file(tmp_path)
    path.write_bytes(line_of("node-7", 3).line())
    sleep = Passing()
    with DriverLock(RunFolder(tmp_path), sleep=sleep) as lock:
        lock.check()
        found = Holder.read(path)
        assert found is not None
        assert (found.host, found.boot) == this_machine()
        assert found.process == os.getpid()
    assert sum(sleep.slept) == 15.0
    assert path.read_bytes() == b""


def test_a_driver_that_ends_in_time_is_not_waited_for_longer(tmp_path: Path) -> None:
    path = lock_file(tmp_path)
    path.write_bytes(line_of("node-7", 3).line())
    sleep = Passing(lambda n: void(path.write_bytes(b"")) if n == 2 else None)
    with DriverLock(RunFolder(tmp_path), sleep=sleep):
        pass
    assert sleep.slept == [2.0, 2.0]


def test_after_a_crash_on_this_machine_nothing_is_waited_for(tmp_path: Path) -> None:
    host, boot = this_machine()
    lock_file(tmp_path).write_bytes(Holder(host, boot, 1, "old", 9).line())
    sleep = Passing()
    with DriverLock(RunFolder(tmp_path), sleep=sleep):
        pass
    assert sleep.slept == []


def test_a_holder_that_was_taken_for_dead_writes_no_more(tmp_path: Path) -> None:
    path = lock_file(tmp_path)
    with DriverLock(RunFolder(tmp_path), beat_seconds=0.01) as lock:
        lock.check()
        thread = next(t for t in threading.enumerate() if t.name == "driver-lock")
        os.write(descriptor := os.open(path, os.O_WRONLY), line_of("node-7", 0).line())
        os.close(descriptor)
        thread.join()
        with raises("run.taken_over", process=4711):
            lock.check()
    assert Holder.read(path) == line_of("node-7", 0)


def test_a_holder_shows_that_it_lives(tmp_path: Path) -> None:
    with DriverLock(RunFolder(tmp_path), beat_seconds=0.005):
        seen: set[int] = set()
        while len(seen) < 4:
            found = Holder.read(lock_file(tmp_path))
            seen.add(found.beat if found is not None else -1)
    assert len(seen) >= 4


def test_where_the_storage_knows_no_locks_the_line_alone_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    path = lock_file(tmp_path)
    sleep = Passing()
    with DriverLock(RunFolder(tmp_path), sleep=sleep, beat_seconds=0.01) as first:
        second = DriverLock(RunFolder(tmp_path), beat_seconds=0.05, watch_seconds=60)
        with raises("run.in_use", process=os.getpid()), second:
            pass
        first.check()
    assert path.read_bytes() == b""

    def other_came_too(number: int) -> None:
        path.write_bytes(line_of("node-7", 0).line())

    late = DriverLock(RunFolder(tmp_path), sleep=Passing(other_came_too))
    with raises("run.taken_over", process=4711), late:
        pass


def test_a_torn_or_old_line_names_nobody(tmp_path: Path) -> None:
    for content in (b"", b"123", b'{"host": "a"', json.dumps({"host": "a"}).encode()):
        lock_file(tmp_path).write_bytes(content)
        assert Holder.read(lock_file(tmp_path)) is None
        with DriverLock(RunFolder(tmp_path), sleep=Passing()):
            pass
