"""A storage that is temporarily unavailable is retried for a bounded while; a full one is not."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.factories import small_record as record
from support.small_disk import fill, small_disk

from sweeper.errors import DiskFullError, RecordError, UnreachableError
from sweeper.store.folder import write_with_retry
from sweeper.store.records import RecordWriter, read_records
from sweeper.store.retry import (
    DISK_FULL_ERRORS,
    RETRY_POLICY,
    TEMPORARY_ERRORS,
    RetryPolicy,
    storage_refused,
    with_retry,
)

SHORT = RetryPolicy(first_seconds=1.0, longest_seconds=4.0, total_seconds=12.0)


def failing(times: int, code: int) -> Callable[[], str]:
    left = [times]

    def action() -> str:
        if left[0]:
            left[0] -= 1
            raise OSError(code, os.strerror(code))
        return "done"

    return action


def test_pauses_double_up_to_a_longest_and_add_up_to_the_total() -> None:
    for policy in (SHORT, RETRY_POLICY):
        slept: list[float] = []
        with pytest.raises(UnreachableError):
            with_retry(failing(99, errno.EIO), Path("x"), policy=policy, sleep=slept.append)
        assert sum(slept) == policy.total_seconds
        assert slept[:3] == [policy.first_seconds * 2**n for n in range(3)]
        assert max(slept) == policy.longest_seconds
        assert slept[-1] <= policy.longest_seconds
    assert (RETRY_POLICY.total_seconds, RETRY_POLICY.longest_seconds) == (300.0, 30.0)


@pytest.mark.parametrize("code", sorted(TEMPORARY_ERRORS), ids=errno.errorcode.get)
def test_a_storage_that_comes_back_is_waited_for(code: int) -> None:
    slept: list[float] = []
    action = failing(3, code)
    assert with_retry(action, Path("x"), policy=SHORT, sleep=slept.append) == "done"
    assert slept == [1.0, 2.0, 4.0]


def test_a_storage_that_stays_away_ends_with_what_where_and_how_long() -> None:
    slept: list[float] = []
    with pytest.raises(
        UnreachableError, match=r"of run/x is .*unavailable \(Stale file hand.* 12 s"
    ):
        with_retry(failing(99, errno.ESTALE), Path("run/x"), policy=SHORT, sleep=slept.append)
    assert sum(slept) == 12.0


@pytest.mark.parametrize("code", sorted(DISK_FULL_ERRORS), ids=errno.errorcode.get)
def test_a_full_storage_is_not_waited_for(code: int, tmp_path: Path) -> None:
    slept: list[float] = []
    with pytest.raises(DiskFullError, match=r"\(7 bytes\); free there: [\d,]+ bytes, or a quota"):
        with_retry(failing(1, code), tmp_path / "x", 7, policy=SHORT, sleep=slept.append)
    assert slept == []


def test_any_other_refusal_is_raised_at_once_and_names_the_file() -> None:
    slept: list[float] = []
    with pytest.raises(PermissionError) as caught:
        with_retry(failing(1, errno.EACCES), Path("run/x"), policy=SHORT, sleep=slept.append)
    assert (caught.value.filename, slept) == ("run/x", [])


def test_a_storage_that_has_become_read_only_is_named_and_not_waited_for() -> None:
    slept: list[float] = []
    with pytest.raises(UnreachableError) as caught:
        with_retry(failing(1, errno.EROFS), Path("run/x"), policy=SHORT, sleep=slept.append)
    assert (caught.value.path, caught.value.seconds, slept) == ("run/x", 0.0, [])
    assert isinstance(storage_refused(OSError(errno.EROFS, "read-only", "a")), UnreachableError)


def test_what_an_error_says_about_a_storage() -> None:
    assert isinstance(storage_refused(OSError(errno.EIO, "io", "a")), UnreachableError)
    assert isinstance(storage_refused(OSError(errno.EDQUOT, "quota", "a")), DiskFullError)
    assert storage_refused(FileNotFoundError(errno.ENOENT, "no", "a")) is None
    assert storage_refused(ValueError("no")) is None


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries as many as ever, without their pauses."""
    monkeypatch.setattr(
        "sweeper.store.retry.RETRY_POLICY", replace(RETRY_POLICY, first_seconds=60.0)
    )
    monkeypatch.setattr("sweeper.store.retry.time.sleep", lambda seconds: None)
    monkeypatch.setattr(with_retry, "__kwdefaults__", {"policy": None, "sleep": lambda s: None})


class Flaky:
    """A system call that fails `times` times, after doing its work or before."""

    def __init__(self, real: Callable[..., object], code: int, times: int, after: bool) -> None:
        self.real, self.code, self.times, self.after = real, code, times, after

    def __call__(self, *args: object) -> object:
        if self.times:
            self.times -= 1
            if self.after:
                self.real(*args)
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*args)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_record_whose_storage_was_away_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool, code: int
) -> None:
    impatient(monkeypatch)
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.append(record("c1"))
    flaky = Flaky(getattr(os, call), code, 3, after)
    monkeypatch.setattr(f"sweeper.store.journal.os.{call}", flaky)
    writer.append(record("c2"))
    writer.append(record("c3"))
    writer.close()
    assert flaky.times == 0
    found = read_records(path)
    assert [item.config_id for item in found.records] == ["c1", "c2", "c3"]
    assert found.torn == b""


def test_a_mount_that_vanishes_for_a_while_loses_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is gone (ENOENT) when the file has to be opened anew, and comes back."""
    folder = tmp_path / "mount"
    folder.mkdir()
    writer = RecordWriter(folder / "records.jsonl")
    writer.append(record("c1"))
    away = tmp_path / "away"
    pauses = []

    def back_after_three(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            folder.rename(away)
        if len(pauses) == 3:
            away.rename(folder)

    monkeypatch.setattr(with_retry, "__kwdefaults__", {"policy": SHORT, "sleep": back_after_three})
    monkeypatch.setattr("sweeper.store.journal.os.fsync", Flaky(os.fsync, errno.EIO, 1, True))
    writer.append(record("c2"))
    writer.close()
    assert pauses == [1.0, 2.0, 4.0]
    assert len(read_records(folder / "records.jsonl").records) == 2


def test_records_that_a_storage_forgot_are_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient(monkeypatch)
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.append(record("c1"))
    writer.append(record("c2"))

    def forgets(descriptor: int) -> None:
        os.truncate(path, len(record("c1").to_json()) + 1)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sweeper.store.journal.os.fsync", forgets)
    monkeypatch.setattr("sweeper.store.journal.os.ftruncate", lambda *a: None)
    with pytest.raises(RecordError, match="its storage has lost lines; run the same command again"):
        writer.append(record("c3"))
    assert [item.config_id for item in read_records(path).records] == ["c1"]


def test_a_full_disk_takes_back_the_record_it_cut_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk / "records.jsonl"
        writer = RecordWriter(path)
        ballast = fill(disk, but=4096)
        count = 0
        with pytest.raises(DiskFullError, match=r"free there: 0 bytes.*the same command continues"):
            for count in range(100):
                writer.append(record(f"c{count}"))
        assert 5 < count < 99
        found = read_records(path)
        assert (len(found.records), found.torn) == (count, b"")
        ballast.unlink()
        writer.append(record(f"c{count}"))
        writer.close()
        assert [item.config_id for item in read_records(path).records] == [
            f"c{i}" for i in range(count + 1)
        ]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk / "a.jsonl"
        write_with_retry(path, "old")
        fill(disk)
        with pytest.raises(DiskFullError, match=r"a\.jsonl \(50,000 bytes\); free there: 0 bytes"):
            write_with_retry(path, "n" * 50_000)
        assert path.read_text() == "old"
        assert sorted(item.name for item in disk.iterdir()) == ["a.jsonl", "ballast"]
