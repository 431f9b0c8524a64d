"""The command line in the process of the test: what it returns, prints and reports as errors."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sweeper.cli import main


class Answer(NamedTuple):
    """What a command gave back: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]
"""Runs `sweeper` with the given words."""


def in_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *first: str
) -> Command:
    """Runs `sweeper FIRST ...` in this process."""

    def call(*words: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["sweeper", *first, *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, *capsys.readouterr())

    return call


def refused(answer: Answer, *patterns: str) -> None:
    """One message on standard error that says all of this, and exit code 2.

    Standard output is for results: at most the lines that `run` begins with stand there.
    """
    assert answer.code == 2
    assert re.fullmatch(r"(checking model, data and .*\n(disk: .*\n)?)?", answer.out), answer.out
    assert answer.err.startswith("error: ")
    assert answer.err.count("error: ") == 1
    assert "Traceback" not in answer.err
    for pattern in patterns:
        assert re.search(pattern, answer.err), answer.err
