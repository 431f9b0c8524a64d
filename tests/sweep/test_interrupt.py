"""Ctrl-C and SIGTERM to a real sweep: what it says, what it keeps, and that its own advice finishes it."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.driver_process import PATIENCE_SECONDS, lines, write_spec
from support.world import World

from sweeper.cli import interrupts
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records


def start(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sweeper", *words]
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)


def interrupt_after(new: int, number: signal.Signals, words: list[str], out: Path) -> str:
    """Start the command, send the signal at so many new records, and return what was printed."""
    log = out.parent / f"{number.name}.txt"
    process = start(words, log)
    before = lines(out / "records.jsonl")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while lines(out / "records.jsonl") < before + new:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.002)
    os.kill(process.pid, number)
    assert process.wait(PATIENCE_SECONDS) == interrupts.INTERRUPTED, log.read_text()
    return log.read_text()


@pytest.mark.slow
def test_an_interrupted_sweep_keeps_its_records_and_its_own_command_finishes_it(
    tiny_world: World, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "a run"
    out.parent.mkdir()
    spec = write_spec(tiny_world, tmp_path / "spec.yaml")
    words = ["run", str(spec), "--overwrite", "--out", str(out)]
    kept = 0
    for number in (signal.SIGINT, signal.SIGTERM):
        text = interrupt_after(1, number, words, out)
        records = read_records(out / "records.jsonl").records
        planned = RunFolder(out).planned_records()
        assert kept < len(records) < planned, text
        kept = len(records)
        assert f"interrupted: {kept} of {planned} records are in {out}/records.jsonl" in text
        assert text.count("stopping the trials; press Ctrl-C again") == 1
        assert "Traceback" not in text
        (found,) = re.findall("^continue: *sweeper (.*)$", text, re.MULTILINE)
        assert shlex.split(found) == [word for word in words if word != "--overwrite"]
        words = shlex.split(found)
    process = start(words, tmp_path / "last.txt")
    assert process.wait(PATIENCE_SECONDS) == 0, (tmp_path / "last.txt").read_text()
    after = read_records(out / "records.jsonl").records
    assert after[:kept] == records
    assert len(after) == planned
    assert f"resuming: {kept} of {planned} records" in (tmp_path / "last.txt").read_text()
