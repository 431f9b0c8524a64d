"""A snapshot is compared as a whole, but for what differs between two honest runs."""

from pathlib import Path

import pytest
from support.snapshot import UPDATE, Snapshot, masked


def test_only_paths_and_times_are_masked() -> None:
    text = "at /runs/a/b.jsonl, 2026-01-02T03:04:05+00:00: 3 of 4  \n/tmp/x-1/y is gone\n\n"
    assert masked(text, {Path("/runs/a"): "RUN", " 3 of": " N of"}) == (
        "at RUN/b.jsonl, TIME: N of 4\nPATH is gone\n"
    )


def test_a_changed_word_or_an_absent_file_fails_and_an_update_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Snapshot(tmp_path / "snapshots")
    monkeypatch.delenv(UPDATE, raising=False)
    with pytest.raises(AssertionError, match="no snapshot"):
        snapshot("front", "three are safe")
    monkeypatch.setenv(UPDATE, "1")
    snapshot("front", "three are safe")
    monkeypatch.delenv(UPDATE)
    snapshot("front", "three are safe\n")
    with pytest.raises(AssertionError, match="differs from"):
        snapshot("front", "four are safe")
