"""SIGKILL to the driver at three moments: the same command ends with the same records."""

import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from support.driver_process import PATIENCE_SECONDS, lines, start, write_spec
from support.run_folders import records_of
from support.world import World

from sweeper.runs.run import open_run

MOMENTS = (1, 9, 17)
"""The driver is killed as soon as this many records are on disk."""


def kill_at(count: int, spec: Path, out: Path, records: str = "records.jsonl") -> int:
    """Start the run, kill it at `count` records, and return how many were there in the end."""
    process = start(spec, out)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while lines(out / records) < count:
        assert process.poll() is None, (out.parent / "log.txt").read_text()
        assert time.monotonic() < deadline, (out.parent / "log.txt").read_text()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return lines(out / records)


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


@pytest.mark.slow
def test_a_driver_killed_in_its_decision_ends_with_the_decision_of_an_undisturbed_run(
    tiny_world: World, tmp_path: Path
) -> None:
    """Every rate is allowed, so the best configuration of the search holds."""
    spec = write_spec(tiny_world, tmp_path / "spec.yaml")
    raw = yaml.safe_load(spec.read_text().replace("prompt_split: all", "prompt_split: search"))
    raw["space"] = {"learning_rate": 4e-3, "batch_size": 4, "max_steps": {"values": [4, 6]}}
    raw["evaluation"]["utility_metrics"] = ["heldout_loss"]
    raw |= {"objectives": ["heldout_loss", "unsafe_rate"], "decide": {"seeds": 2}}
    raw["constraints"] = [{"metric": "unsafe_rate", "max": 1.0}]
    spec.write_text(yaml.safe_dump(raw), encoding="utf-8")
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    for out in (whole, killed):
        out.parent.mkdir()
    assert start(spec, whole).wait(PATIENCE_SECONDS) == 0, (whole.parent / "log.txt").read_text()
    decision = "confirm/safest-useful"
    expected = records_of(whole / decision)
    assert len(expected) > 5
    for moment in (1, len(expected) - 1):
        assert moment <= kill_at(moment, spec, killed, f"{decision}/records.jsonl")
    assert start(spec, killed).wait(PATIENCE_SECONDS) == 0, (killed.parent / "log.txt").read_text()
    assert records_of(killed / decision) == expected
    found, other = open_run(whole).decision(), open_run(killed).decision()
    assert found is not None and other is not None and found.complete
    assert found.to_dict()["decision"] == other.to_dict()["decision"]
    assert "holds when it is trained again" in (killed.parent / "log.txt").read_text()
