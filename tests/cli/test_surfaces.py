"""The wording of the command line: help texts and typical outputs, each as one snapshot."""

from pathlib import Path

import pytest
from support.command import Command, in_process
from support.factories import make_sweep
from support.judged_run import standard_run
from support.run_folders import write_run
from support.snapshot import Snapshot

from sweeper.cli.commands import all_commands


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `sweeper ...` in this process."""
    return in_process(monkeypatch, capsys)


def test_help(command: Command, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    texts = [command("--help").out]
    for name in all_commands().commands:
        texts.append(command(name, "--help").out)
    snapshot("help", "\n".join(texts))


@pytest.mark.parametrize("name", ["front", "recommend"])
def test_results_of_a_run(command: Command, snapshot: Snapshot, tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", make_sweep(seed=3), readouts=139)
    answer = command(name, run.root)
    assert answer.code == 0
    snapshot(name, answer.out, {tmp_path: "FOLDER"})


def test_configurations_of_a_run(command: Command, snapshot: Snapshot, tmp_path: Path) -> None:
    run = standard_run(tmp_path / "run")
    text = "".join(
        command(*words).out
        for words in (
            ("show", run.root, "good"),
            ("compare", run.root, "good", "sneaky", "base"),
            ("rescore", run.root),
            ("clean", run.root),
        )
    )
    snapshot("configurations", text, {tmp_path: "FOLDER"})


def test_what_users_get_wrong(command: Command, snapshot: Snapshot, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_sweep(seed=3), readouts=139)
    texts = []
    for words in (
        ("front", tmp_path / "absent"),
        ("show", run.root, "zzzz"),
        ("compare", run.root, make_sweep(seed=3)[0].config_id),
        ("recommend", run.root, "--policy", "best"),
        ("recommend", run.root, "--policy", "max-utility-at"),
        ("export", run.root, "--format", "unknown"),
        ("front", run.root, "--judge", "keyword:qi2023"),
        ("rescore", run.root, "--judge", "unknown"),
        ("rescore", run.root, "--batch-size", "4"),
        ("plan", "no-such-sweep"),
        ("schema", "run"),
        ("ls", tmp_path / "absent"),
    ):
        answer = command(*words)
        assert (answer.code, answer.out) == (2, "")
        texts.append(answer.err)
    snapshot("errors", "".join(texts), {tmp_path: "FOLDER"})
