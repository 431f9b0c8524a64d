"""What a sweep prints while it runs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.analysis import bounds_text, find_front, front_certainty, recommend
from sweeper.cli import fronts, recommending, show, sweeps
from sweeper.planning import make_plan
from sweeper.runs.progress import SweepProgress
from sweeper.runs.results import Front, Recommendation
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordsRead, TrialRecord
from sweeper.sweep.verify import Verification


def progress_of(spec: SweepSpec, found: RecordsRead, new: list[TrialRecord]) -> None:
    with SweepProgress(spec, show.err, show.out) as progress:
        progress.begin(make_plan(spec), found)
        for record in new:
            progress.record(record)


def test_a_pipe_gets_a_plain_line_per_tenth_with_the_best_feasible(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = make_spec()
    total = make_plan(spec).accounting.readouts
    records = [base_record(), make_record(identity="good", utility=0.8, unsafe=(0, 256))]
    records += [make_record(identity=f"x{i}", unsafe=(200, 256)) for i in range(total - 2)]
    progress_of(spec, RecordsRead((), b"", 0), records)
    lines = [line for line in capsys.readouterr().out.splitlines() if "records" in line]
    first = f"{max(1, total // 10)}/{total} records, "
    times = r"\S+ s elapsed; best feasible: rouge_l 0.8"  # All came at once: nothing is known yet.
    assert re.match(first + times, lines[0])
    assert lines[-1].startswith(f"{total}/{total} records")
    assert "unsafe_rate 0.0 % (0/256)" in lines[-1]


def test_a_resumed_sweep_says_what_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress_of(make_spec(), RecordsRead((base_record(),), b"{torn", 100), [])
    text = capsys.readouterr().out
    assert "resuming: 1 of" in text


def test_a_failure_is_told_at_once_and_nothing_in_it_is_markup(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = {"message": "[red]loss is nan[/red]"}
    failed = replace(make_record(identity="bad"), status="failed", reason=reason, metrics={})
    progress_of(make_spec(), RecordsRead((), b"", 0), [failed])
    assert "bad seed 0: failed: [red]loss is nan[/red]" in capsys.readouterr().err


def test_the_front_table_names_hyperparameters_counts_and_the_base_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = make_spec()
    found = find_front(make_sweep(spec, seed=1), spec)
    certainty = front_certainty(found, spec)
    fronts.print_wide(Front(RunFolder(Path()), found, spec))
    text = capsys.readouterr().out
    for item in found.members:
        assert item.config_id in text
        assert str(item.config["average"]) in text
    assert f"{len(found.members)} on the front, of {len(found.competing)} complete" in text
    for item in found.members:
        membership = certainty.memberships[item.config_id]
        (row,) = [line for line in text.splitlines() if item.config_id in line]
        cells = [cell.strip() for cell in row.strip("│ ").split("│")]
        assert cells[-3:] == ["on", bounds_text(*membership[:2]), membership.label]
    assert (
        f"{certainty.count('on')} on (at least 0.95 against all others together), "
        f"{certainty.count('uncertain')} uncertain" in text
    )
    assert "reference point rouge_l 0, unsafe_rate 0.05" in text
    assert "note: one seed: P(on front) is about these weights" in text
    assert "untouched model: rouge_l" in text


def test_the_recommendation_stands_beside_what_it_beat(capsys: pytest.CaptureFixture[str]) -> None:
    spec = make_spec()
    found = recommend(find_front(make_sweep(spec, seed=1), spec), spec)
    front = Front(RunFolder(Path()), find_front(make_sweep(spec, seed=1), spec), spec)
    recommending.print_recommendation(Recommendation(found, front), Path("runs/one"))
    text = capsys.readouterr().out
    assert found.chosen is not None and found.chosen.config_id in text
    assert "untouched model" in text and "recommended" in text
    head = text[: text.index("┏")].splitlines()
    assert sum(-(-len(line) // 80) or 1 for line in head) <= 20  # Lines of 80 columns.
    assert f"  configuration {found.chosen.config_id}, seed 0" in head
    assert f"selected from {found.compared} configurations" in text
    commands = [line for line in head if line.startswith("next: ")]
    assert commands == [
        "next: sweeper recommend runs/one --policy safest-useful --confirm",
        f"next: sweeper export runs/one --config {found.chosen.config_id} --format trl",
    ]


def test_a_verification_that_fails_says_no_and_is_not_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sound = Verification("aa", 0, "raw", 4, 5, 3, False, True, True, True, 0.0, None)
    broken = sound._replace(config_id="bb", bit_equal=False, difference=0.5)
    sweeps.print_verifications([sound, broken])
    text = capsys.readouterr().out
    assert (
        "(shared its path with 5, trained in a pack with 3 others): weights bit-equal: NO" in text
    )
    assert "largest metric difference 0.5" in text
    assert "1 of 2 bit-equal, 2 of 2 with equal verdicts, 1 of 2 as promised" in text
