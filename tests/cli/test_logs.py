"""`sweeper logs`: which trials, which lines, and in which form."""

import json
from pathlib import Path

import pytest
from support.command import Command, in_process, refused

from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.trial_log import TrialLog

TRIALS = ("aaa111", "aab222")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return in_process(monkeypatch, capsys, "logs")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two trials that log in turn; `aab222` is the latest."""
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.info.write_text(json.dumps({"version": RUN_VERSION}), encoding="utf-8")
    now = iter(range(1_700_000_000, 1_700_001_000))
    logs = {}
    for name in TRIALS:
        storage = folder.trial(name)
        storage.create()
        logs[name] = TrialLog(storage, clock=lambda: float(next(now)))
    for step in (10, 20):
        for name in TRIALS:
            logs[name].write("train", step=step, loss=1.23456, mfu=None)
    return folder


def steps(out: str) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in out.splitlines()]
    return [(row["trial"], row["step"]) for row in rows]


def test_the_latest_trial_is_shown_or_the_named_one_or_all_by_time(
    command: Command, run: RunFolder
) -> None:
    assert steps(command(run.root, "--json").out) == [("aab222", 10), ("aab222", 20)]
    assert steps(command(run.root, "aaa", "--json").out) == [("aaa111", 10), ("aaa111", 20)]
    every = steps(command(run.root, "--all", "--json").out)
    assert every == [(name, step) for step in (10, 20) for name in TRIALS]
    assert steps(command(run.root, "--follow", "--json").out) == every  # No driver: it ends.


@pytest.mark.parametrize(("tail", "kept"), [(0, []), (1, [20]), (2, [10, 20]), (9, [10, 20])])
def test_the_last_lines_alone(command: Command, run: RunFolder, tail: int, kept: list[int]) -> None:
    answer = command(run.root, "--tail", str(tail), "--json")
    assert answer.code == 0
    assert [step for _, step in steps(answer.out)] == kept


def test_a_line_for_people_has_time_trial_event_and_values(
    command: Command, run: RunFolder
) -> None:
    answer = command(run.root, "--tail", "1")
    assert answer.out == "2023-11-14 22:13:23 aab222 train step=20 loss=1.235\n"


def test_what_lies_in_the_file_is_not_trusted(command: Command, run: RunFolder) -> None:
    log = run.trial("aab222").log
    with log.open("a", encoding="utf-8") as file:
        file.write('nonsense\n[1]\n{"time": "x", "event": "e"}\n{"time": 1e99, "event": "e"}\n')
        file.write(json.dumps({"time": 1.7e9, "event": "warning", "message": "a\x1b[2J\nb"}) + "\n")
        file.write('{"time": 1.7e9, "event": "half')
    out = command(run.root, "--tail", "1").out
    assert out.count("\n") == 1 and "\x1b" not in out and "a\\x1b[2J\\nb" in out
    assert len(command(run.root, "--json").out.splitlines()) == 3


def test_unknown_runs_and_trials_are_refused(
    command: Command, run: RunFolder, tmp_path: Path
) -> None:
    refused(command(tmp_path / "none"), "is not a run folder")
    refused(command(run.root, "zzz"), "no trial .* begins with `zzz`", "aab222")
    refused(command(run.root, "aa"), "2 trials .* begin with `aa`")
    refused(command(run.root, ""), "2 trials")
    for name in TRIALS:
        run.trial(name).log.unlink()
    refused(command(run.root), "no trial of .* has a log: none has started yet")
