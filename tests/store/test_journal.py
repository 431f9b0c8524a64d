"""An append-only file of lines: torn ends are cut, one writer at a time, nothing is written twice."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from sweeper.errors import JudgeError, RecordError, RunFolderError
from sweeper.store import journal as journals
from sweeper.store.journal import Journal, read_json_lines, read_lines


def test_entries_are_lines_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.jsonl"
    with Journal(path) as journal:
        journal.append(b"one")
        journal.append_json({"b": 1, "a": [None, "é"]})
    assert path.read_bytes() == b'one\n{"a": [null, "\\u00e9"], "b": 1}\n'
    with Journal(path) as journal:
        journal.append_json(3)
    assert read_lines(path).lines == (b"one", b'{"a": [null, "\\u00e9"], "b": 1}', b"3")


def test_each_entry_is_one_write_and_one_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("write", "fsync"):
        real = getattr(os, name)

        def counted(*given: object, name: str = name, real: object = real) -> object:
            calls.append(name)
            return real(*given)  # type: ignore[operator]

        monkeypatch.setattr(os, name, counted)
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.append(b"x" * 100_000)
        journal.append(b"y")
    assert calls == ["write", "fsync"] * 2


@pytest.mark.parametrize("whole", [b"", b"1\n", b"1\n2\n", b"1" * 70_000 + b"\n2\n"])
@pytest.mark.parametrize("torn", [b"", b"3", b'{"a": ', b"4" * 200_000])
def test_a_torn_last_line_is_skipped_then_cut_and_reported(
    tmp_path: Path, whole: bytes, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(whole + torn)
    found = read_lines(path)
    assert b"".join(line + b"\n" for line in found.lines) == whole
    assert found.torn == torn
    assert path.read_bytes() == whole + torn  # Reading changes nothing.
    with caplog.at_level(logging.WARNING), Journal(path) as journal:
        assert journal.torn == len(torn)
        assert path.read_bytes() == whole
        journal.append(b"5")
    assert path.read_bytes() == whole + b"5\n"
    reports = [record.getMessage() for record in caplog.records]
    assert len(reports) == bool(torn) and all(f"{len(torn)} bytes" in text for text in reports)


def test_an_entry_with_a_line_end_or_without_a_number_is_refused(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl") as journal:
        with pytest.raises(ValueError, match="must not contain a line end"):
            journal.append(b"a\nb")
        with pytest.raises(ValueError, match="JSON compliant"):
            journal.append_json(float("nan"))
    assert (tmp_path / "a.jsonl").read_bytes() == b""


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path) as first:
        with pytest.raises(JudgeError, match="another process is writing to"):
            Journal(path, JudgeError)
        first.append(b"1")
    with Journal(path) as second:
        second.append(b"2")
    assert read_lines(path).lines == (b"1", b"2")


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [*sorted(journals.NO_LOCKS), errno.EIO]

    def flock(descriptor: int, operation: int) -> None:
        code = codes.pop(0)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in journals.NO_LOCKS:
        with Journal(tmp_path / "a.jsonl") as journal:
            journal.append(b"1")
    assert len(read_lines(tmp_path / "a.jsonl").lines) == len(journals.NO_LOCKS)
    with pytest.raises(OSError, match="Input/output"):
        Journal(tmp_path / "a.jsonl")


def test_json_that_is_none_is_an_error_with_file_line_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert read_json_lines(path, remedy="x") == []
    path.write_bytes(b'{"a": 1}\nnonsense\n[')
    with pytest.raises(RunFolderError, match=r"a\.jsonl:2: not JSON; start over"):
        read_json_lines(path, remedy="start over")
    with pytest.raises(RecordError, match="start over"):
        read_json_lines(path, damaged=RecordError, remedy="start over")
    path.write_bytes(b"[1]\n2\n[")
    assert read_json_lines(path, remedy="x") == [[1], 2]
    with pytest.raises(RunFolderError, match="cannot read"):
        read_json_lines(tmp_path, remedy="x")
