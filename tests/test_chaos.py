"""Sweeps through faults end with the records of an undisturbed one; `chaos.py` says how."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.chaos import FINISHED, SCRIPT, Fault, schedule

SEEDS = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def told() -> str:
    """What `chaos.py` says of its script and of the first seeds."""
    command = [sys.executable, "-m", "support.chaos", "--script"]
    ended = subprocess.run(
        [*command, "--seeds", str(SEEDS)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert ended.returncode in (0, 1), ended.stderr
    return ended.stdout


@pytest.mark.parametrize(("fault", "due"), SCRIPT, ids=[str(fault) for fault, _ in SCRIPT])
def test_every_fault_happens_and_ends_its_process(told: str, fault: Fault, due: int) -> None:
    assert f"{fault}: ended {int(due)}\n" in told


def test_a_checkpoint_refused_and_a_storage_away_for_a_while_end_nothing(told: str) -> None:
    assert f"what is harmless: ended {FINISHED}\n" in told


def test_after_every_fault_the_records_are_those_of_an_undisturbed_run(told: str) -> None:
    assert re.search(r"^script: .* differences none$", told, re.MULTILINE), told


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_schedule_of_faults_changes_no_record(told: str, seed: int) -> None:
    assert re.search(rf"^seed {seed}: .* differences none$", told, re.MULTILINE), told
    assert f"{SEEDS + 1} seeds, " in told and " 0 seeds with differences" in told


def test_a_schedule_follows_from_its_seed_and_seeds_differ() -> None:
    assert schedule(7) == schedule(7)
    assert len({tuple(schedule(seed)) for seed in range(50)}) == 50
    lives = [life for seed in range(50) for life in schedule(seed)]
    actions = {fault.action for life in lives for fault in life.faults}
    assert actions == {"kill", "term", "full", "away", "lost", "torn", "hang"}
    assert {life.damage for life in lives} >= {"flip", "torn", ""}
    assert any(life.rival for life in lives)
