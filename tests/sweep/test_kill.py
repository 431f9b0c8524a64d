"""SIGKILL to the driver at three moments: the same command ends with the same records."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.world import World, spec_text

from sweeper.runs.run import open_run
from sweeper.store.records import TrialRecord, read_records

MOMENTS = (1, 9, 17)
"""The driver is killed as soon as this many records are on disk."""

PATIENCE_SECONDS = 240.0


def write_spec(world: World, path: Path) -> Path:
    raw = yaml.safe_load(spec_text(world))
    raw["space"]["learning_rate"] = {"values": [1e-3, 2e-3, 4e-3]}
    raw["space"]["max_steps"] = {"values": [2, 4, 6]}
    raw["compute"] = {"checkpoint_every": 1, "max_concurrent_trials": 1}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def start(spec: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sweeper", "run", str(spec), "--out", str(out)]
    with (out.parent / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(count: int, spec: Path, out: Path) -> int:
    """Start the run, kill it at `count` records, and return how many were there in the end."""
    process = start(spec, out)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while lines(out / "records.jsonl") < count:
        assert process.poll() is None, (out.parent / "log.txt").read_text()
        assert time.monotonic() < deadline, (out.parent / "log.txt").read_text()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return lines(out / "records.jsonl")


def records_of(out: Path) -> dict[tuple[str, int], TrialRecord]:
    records = read_records(out / "records.jsonl").records
    assert len({record.key for record in records}) == len(records)
    return {record.key: record.comparable() for record in records}


@pytest.mark.slow
def test_a_driver_killed_three_times_ends_with_the_records_of_an_undisturbed_run(
    tiny_world: World, tmp_path: Path
) -> None:
    spec = write_spec(tiny_world, tmp_path / "spec.yaml")
    whole = tmp_path / "whole" / "run"
    killed = tmp_path / "killed" / "run"
    for out in (whole, killed):
        out.parent.mkdir()
    assert start(spec, whole).wait(PATIENCE_SECONDS) == 0, (whole.parent / "log.txt").read_text()
    expected = records_of(whole)
    assert len(expected) == open_run(whole).accounting["readouts"] > MOMENTS[-1] + 3
    for moment in MOMENTS:
        assert moment <= kill_at(moment, spec, killed) < len(expected)
    assert start(spec, killed).wait(PATIENCE_SECONDS) == 0, (killed.parent / "log.txt").read_text()
    assert records_of(killed) == expected
