"""A driver in a process of its own, on a sweep that is long enough to be interrupted."""

import subprocess
import sys
from pathlib import Path

import yaml

from support.world import World, spec_text

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
