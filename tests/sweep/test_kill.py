"""SIGKILL to the driver at three moments: the same command ends with the same records."""

import os
import signal
import time
from pathlib import Path

import pytest
from support.driver_process import PATIENCE_SECONDS, lines, start, write_spec
from support.run_folders import records_of
from support.world import World

from sweeper.runs.run import open_run

MOMENTS = (1, 9, 17)
"""The driver is killed as soon as this many records are on disk."""


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
