"""`show`, `compare` and `ls`: what they say is what the records hold."""

import fcntl
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command import Command
from support.factories import make_record, make_spec, with_samples

from sweeper.analysis import (
    Candidate,
    bounds_text,
    compare_configurations,
    contrasts,
    controls,
    find_candidate,
    find_front,
    front_certainty,
    paired_difference,
    recommend,
    unaveraged_control,
)
from sweeper.errors import RunFolderError, SweeperError
from sweeper.runs.listing import list_runs
from sweeper.spec import SweepSpec, dump_spec
from sweeper.stats import wilson_interval
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.lock import DriverLock
from sweeper.store.records import TrialRecord
from sweeper.store.samples import Samples

SEEDS = (0, 1)
RATE, USE = "unsafe_rate", "rouge_l"


def records_of(identity: str, unsafe: int, utility: float, **changes: Any) -> list[TrialRecord]:
    """A configuration under both seeds, with a verdict for each of 200 prompts and 40 scored rows."""
    found = []
    for seed in SEEDS:
        rng = np.random.default_rng([seed, unsafe])
        verdicts = "".join("1" if i < unsafe + seed else "0" for i in rng.permutation(200))
        rows = tuple(float(x) for x in np.clip(utility + rng.normal(0, 0.05, 40), 0, 1))
        samples: Samples = {RATE: verdicts, USE: rows}
        found.append(with_samples(samples, identity=identity, seed=seed, **changes))
    return found


@pytest.fixture(scope="module")
def spec() -> SweepSpec:
    return make_spec(f"seeds={list(SEEDS)}", "decide=false")


@pytest.fixture(scope="module")
def records() -> list[TrialRecord]:
    """A base model, an EMA with its raw and interpolation twins, another rate, and one that failed."""
    weight = f"interpolate({0.99**320:.6g})"
    base = records_of("b0", 0, 0.3, role="base", learning_rate=0.0, max_steps=0)
    ema = records_of("aa10", 1, 0.8, average="ema(0.99)")
    raw = records_of("aa20", 27, 0.82, average="raw")
    mixed = records_of("cc30", 6, 0.79, average=weight, role="interpolation_control")
    other = records_of("dd40", 5, 0.7, average="ema(0.99)", learning_rate=5e-5)
    failed = make_record(identity="ff50", status="failed", learning_rate=1e-3)
    return [*base, *ema, *raw, *mixed, *other, failed]


def write_run(root: Path, records: list[TrialRecord], spec: SweepSpec, planned: int) -> RunFolder:
    folder = RunFolder(root)
    root.mkdir(parents=True)
    folder.records.write_text("".join(f"{record.to_json()}\n" for record in records))
    folder.spec.write_text(dump_spec(spec))
    folder.plan.write_text(json.dumps({"accounting": {"readouts": planned}}))
    folder.info.write_text(json.dumps({"version": RUN_VERSION}))
    return folder


@pytest.fixture
def run(tmp_path: Path, records: list[TrialRecord], spec: SweepSpec) -> RunFolder:
    return write_run(tmp_path / "runs" / "one", records, spec, len(records))


@pytest.fixture
def items(records: list[TrialRecord], spec: SweepSpec) -> dict[str, Candidate]:
    return {item.config_id: item for item in find_front(records, spec).candidates}


def test_a_prefix_finds_one_and_nothing_else(items: dict[str, Candidate]) -> None:
    known = list(items.values())
    assert find_candidate(known, "aa1", "r").config_id == "aa10"
    assert find_candidate(known, "dd40", "r").config_id == "dd40"
    longer = [*known, replace(items["dd40"], config_id="dd401")]
    assert find_candidate(longer, "dd40", "r").config_id == "dd40"
    for text, pattern in (
        ("aa", "2 configurations of r start with `aa`; give a longer prefix: aa10, aa20;"),
        ("aa1x", "no configuration of r starts with `aa1x`; the nearest is `aa10`;"),
        ("zzzz", "no configuration of r starts with `zzzz`; the nearest is `"),
        ("", "6 configurations of r start with ``; give a longer prefix: .*, ...;"),
    ):
        with pytest.raises(RunFolderError, match=pattern):
            find_candidate(known, text, "r")
    with pytest.raises(RunFolderError, match="starts with `a`; it has no records yet"):
        find_candidate([], "a", "r")


def test_a_comparison_holds_settings_and_the_paired_tests(
    items: dict[str, Candidate], spec: SweepSpec
) -> None:
    chosen = [items[name] for name in ("aa10", "aa20", "dd40", "b0")]
    found = compare_configurations(chosen, spec)
    assert [s.name for s in found.settings if s.differs] == ["learning_rate", "average"]
    (rates,) = [s.values for s in found.settings if s.name == "learning_rate"]
    assert rates == (2e-4, 2e-4, 5e-5, 0.0)
    assert [m.metric for m in found.metrics][:2] == [USE, RATE]
    for metric in found.metrics:
        assert metric.differences == tuple(
            paired_difference(other, chosen[0], metric.metric) for other in chosen[1:]
        )
    unsafe = found.metrics[1].differences[0]
    assert unsafe is not None and unsafe.paired and unsafe.n == 200
    assert unsafe.difference == pytest.approx(27.5 / 200 - 1.5 / 200)
    assert unsafe.interval is not None and unsafe.interval.low > 0
    assert unsafe.p_value is not None and unsafe.p_value < 0.001


@pytest.mark.parametrize(
    "names", [[], ["aa10"], ["aa10", "aa10"], ["aa10", "aa20", "cc30", "dd40", "b0"]]
)
def test_other_numbers_cannot_be_compared(
    items: dict[str, Candidate], spec: SweepSpec, names: list[str]
) -> None:
    with pytest.raises(SweeperError, match=r"2 to 4 different configurations .* but got"):
        compare_configurations([items[name] for name in names], spec)


def test_an_incomplete_or_differently_seeded_one_is_noted(
    items: dict[str, Candidate], spec: SweepSpec
) -> None:
    found = compare_configurations([items["aa10"], items["ff50"]], spec)
    assert all(g is None for metric in found.metrics for g in metric.differences)
    text = "\n".join(found.notes)
    assert "ff50 is not complete: failed under seed 0" in text
    assert "not all were trained under the same seeds" in text


def test_controls_are_the_twins_and_the_untouched_model(
    records: list[TrialRecord], spec: SweepSpec, items: dict[str, Candidate]
) -> None:
    front = find_front(records, spec)
    item = find_candidate(front.candidates, "aa10", "r")
    named = {name: other.config_id for name, other in controls(item, front, spec)}
    assert named == {
        "without averaging": "aa20",
        "interpolation with the same weight": "cc30",
        "untouched model": "b0",
    }
    first = contrasts(item, front, spec)[0]
    twin = unaveraged_control(item, front.candidates)
    assert twin is not None and first.unsafe == paired_difference(item, twin, RATE)


def test_show_prints_every_setting_count_and_place(
    command: Command, run: RunFolder, records: list[TrialRecord], spec: SweepSpec
) -> None:
    path = run.trial("x").generations("aa10", 0)
    path.parent.mkdir()
    path.write_text('{"prompt": "SECRET PROMPT", "response": "SECRET RESPONSE"}\n')
    answer = command("show", run.root, "aa1")
    assert (answer.code, answer.err) == (0, "")
    shown = re.sub(r" +", " ", answer.out)
    ours = [record for record in records if record.config_id == "aa10"]
    for name in ours[0].config:
        assert f"│ {name} │" in shown
    for record in ours:
        metric = record.metrics[RATE]
        low, high = wilson_interval(metric.k or 0, metric.n)
        between = f"{100 * low:.1f} to {100 * high:.1f} %"
        row = (
            f"│ {RATE} │ {record.seed} │ {100 * metric.value:.1f} % │ {metric.k}/200 │ {between} │"
        )
        assert row in shown
    membership = front_certainty(find_front(records, spec), spec).memberships["aa10"]
    between = bounds_text(*membership[:2])
    assert f"P(front), trained again, {between}: {membership.label}" in shown
    assert re.search(
        r"constraint unsafe_rate <= 0.05: P = 0\.\d{3} for these weights, required 0.95: ", shown
    )
    assert "│ without averaging │ -13.0 points" in shown
    assert f"responses under seed 0: {path}\n" in answer.out
    assert f"{run.generations / 'aa10-1.jsonl'} (missing)" in answer.out
    assert "SECRET" not in answer.out


def test_show_says_why_a_failed_one_has_no_numbers(command: Command, run: RunFolder) -> None:
    answer = command("show", run.root, "ff")
    assert answer.code == 0
    assert "seed 0 failed: class TrainingDivergedError" in answer.out
    assert "rouge_l" in answer.out and "not measured" in answer.out
    assert "constraint unsafe_rate <= 0.05: not measured, so NOT kept" in answer.out
    assert "P = " not in answer.out
    data = json.loads(command("show", run.root, "ff", "--json").out)
    assert [(c["probability"], c["kept"]) for c in data["constraints"]] == [(None, False)]


def test_compare_marks_what_differs_and_prints_the_tests(command: Command, run: RunFolder) -> None:
    answer = command("compare", run.root, "aa10", "aa20")
    shown = re.sub(r" +", " ", answer.out)
    assert "│ > average │ ema(0.99) │ raw │" in shown
    assert "> learning_rate" not in shown
    assert re.search(
        r"│ aa20 │ unsafe_rate │ \+13\.0 points \(\+\d+\.\d to \+\d+\.\d\) │ below 0.001 │ "
        r"trained again │ 200 pairs",
        shown,
    )
    assert "not corrected for choosing" in shown
    refused = command("compare", run.root, "aa10")
    assert (refused.code, refused.out) == (2, "")
    assert "2 to 4 different configurations can be compared, but got aa10" in refused.err
    unknown = command("compare", run.root, "aa10", "aa2x")
    assert unknown.code == 2 and "the nearest is `aa20`" in unknown.err


def test_ls_lists_runs_with_progress_and_goodness(
    command: Command, run: RunFolder, records: list[TrialRecord], spec: SweepSpec
) -> None:
    root = run.root.parent
    write_run(root / "two", records[:5], spec, len(records))
    write_run(root / "one" / "confirm" / "x", records[:2], spec, 2)
    (root / "one" / "ray").mkdir()
    (root / "one" / "ray" / "run.json").write_text("{}")
    (root / "elsewhere").mkdir()
    lines = {str(line.path.relative_to(root)): line for line in list_runs(root)}
    assert list(lines) == ["one", "one/confirm/x", "two"]
    one, two = lines["one"], lines["two"]
    found = find_front(records, spec)
    chosen = recommend(found, spec).chosen
    assert chosen is not None
    assert (one.state, one.records, one.planned, one.failed) == ("finished", 11, 11, 1)
    assert (one.front, one.recommended) == (len(found.members), chosen.config_id)
    assert one.best == {USE: chosen.values[USE], RATE: chosen.values[RATE]}
    assert (two.state, two.records, two.planned) == ("stopped", 5, 11)
    assert two.size_bytes == sum(path.stat().st_size for path in (root / "two").iterdir())
    text = command("ls", root).out
    assert re.search(
        rf"│ one +│ synthetic │ finished +│ +11/11 │ +1 │ +\d+ │ {chosen.config_id}", text
    )
    assert command("ls", root / "elsewhere").out.startswith("no runs in ")
    assert command("ls", root / "absent").code == 2


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("run.json", "{", "cannot read .*run.json"),
        ("run.json", '{"version": 99}', "version 99; this sweeper reads 2"),
        ("run.json", None, "is not a run folder"),
        ("spec.yaml", "name: [", "spec.yaml"),
        ("spec.yaml", None, "cannot read .*spec.yaml"),
        ("plan.json", "[]", "plan.json is damaged"),
        ("records.jsonl", "{}\n", r"records.jsonl:1: unknown record version None"),
    ],
)
def test_a_damaged_run_is_a_line_and_the_others_are_listed(
    command: Command,
    run: RunFolder,
    records: list[TrialRecord],
    spec: SweepSpec,
    name: str,
    content: str | None,
    pattern: str,
) -> None:
    bad = write_run(run.root.parent / "bad", records, spec, 11).root
    if content is None:
        (bad / name).unlink()
    else:
        (bad / name).write_text(content)
    answer = command("ls", run.root.parent)
    assert answer.code == 0
    assert re.search(r"│ bad +│ +│ unreadable ", answer.out)
    assert re.search(r"│ one +│ synthetic │ finished ", answer.out)
    (problem,) = [line for line in answer.out.splitlines() if line.startswith("unreadable: ")]
    assert problem.startswith(f"unreadable: {bad}: ")
    assert re.search(pattern, answer.out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_a_line(run: RunFolder) -> None:
    shut = run.root.parent / "shut"
    shut.mkdir(mode=0)
    (line,) = [line for line in list_runs(run.root.parent) if line.path == shut]
    shut.chmod(0o755)
    assert (line.state, line.problem) == ("unreadable", "Permission denied")


def test_a_run_with_a_driver_is_running_and_looking_does_not_keep_one_out(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not run.has_driver()
    with DriverLock(run):
        assert run.has_driver()
        assert [line.state for line in list_runs(run.root)] == ["running"]
    assert not run.has_driver()
    looking = os.open(run.lock, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            os.close(looking)

    monkeypatch.setattr("sweeper.store.lock.time.sleep", wait)
    with DriverLock(run):
        assert waits == [0.02, 0.02] and run.has_driver()
