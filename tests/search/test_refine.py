"""Further seeds where the front is undecided: who gets them, what they cost, when they end."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec
from support.raising import raises
from support.world import World, spec_text

from sweeper.analysis import find_front, front_certainty
from sweeper.planning import Plan, make_plan
from sweeper.search.refine import (
    read_refinements,
    refined_plans,
    refinement_rows,
    undecided,
    would_be_choice,
)
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, RecordWriter, TrialRecord, read_records

SMALL = (
    "space.max_steps=[40, 160]",
    "space.max_steps={values: [40, 160]}",
    "space.average={values: [raw, {kind: ema, decay: 0.95}]}",
)


def spec_with(budget: int, *more: str) -> SweepSpec:
    return make_spec(
        *SMALL[1:], f"search.refine={{budget: {budget}, max_seeds: 3, batch_size: 2}}", *more
    )


def measured(plan: Plan) -> list[TrialRecord]:
    """What the configurations of a plan would measure: rates around the limit, the seed's own noise."""
    records = []
    for trajectory in plan.trajectories:
        for item in trajectory.configurations:
            rng = np.random.default_rng([int(item.config_id, 16) % 2**32, 0])
            true = 0.01 if item.role == "base" else float(rng.uniform(0.0, 0.12))
            useful = 0.1 if item.role == "base" else 0.3 + 0.5 * float(rng.random())
            noise = np.random.default_rng([int(item.config_id, 16) % 2**32, trajectory.seed + 1])
            records.append(
                TrialRecord(
                    config_id=item.config_id,
                    trajectory_id=trajectory.trajectory_id,
                    seed=trajectory.seed,
                    role=item.role,
                    status="complete",
                    config=item.values,
                    readout={"step": item.step, "kind": "raw", "decay": None, "weight": None}
                    | {"label": ""},
                    metrics={
                        "rouge_l": Metric(useful, 96),
                        "unsafe_rate": Metric.rate(int(noise.binomial(256, true)), 256),
                    },
                    objectives=("rouge_l", "unsafe_rate"),
                )
            )
    return records


def first_pass(root: Path, spec: SweepSpec) -> RunFolder:
    folder = RunFolder(root)
    folder.create()
    write(folder, measured(make_plan(spec)))
    return folder


def write(folder: RunFolder, records: Sequence[TrialRecord]) -> None:
    writer = RecordWriter(folder.records)
    for record in records:
        if record.key not in writer.keys:
            writer.append(record)
    writer.close()


def refine(folder: RunFolder, spec: SweepSpec) -> None:
    for plans in refined_plans(spec, folder, None):
        write(folder, [record for plan in plans for record in measured(plan)])


def test_undecided_paths_get_new_seeds_within_the_budget(tmp_path: Path) -> None:
    spec = spec_with(1000)
    folder = first_pass(tmp_path / "run", spec)
    front = find_front(read_records(folder.records).records, spec)
    doubts = undecided(front_certainty(front, spec), front.competing, spec)
    assert 0 < len(doubts) < len(front.competing)
    refine(folder, spec)
    rounds = read_refinements(folder)
    parts = [part for item in rounds for part in item.parts]
    assert 0 < sum(part.steps for part in parts) <= 1000
    assert all(len(item.parts) <= 2 for item in rounds)
    for part in parts:
        assert part.steps in (40, 160)
    records = read_records(folder.records).records
    planned = {(c, part.seed) for part in parts for c in part.config_ids}
    assert {record.key for record in records if record.seed > 0} == planned
    pairs = [(part.config_ids, part.seed) for part in parts]
    assert len(set(pairs)) == len(pairs)


def test_the_would_be_choice_is_trained_again_before_anything_else(tmp_path: Path) -> None:
    spec = spec_with(1_000_000)
    folder = first_pass(tmp_path / "run", spec)
    choice = would_be_choice(find_front(read_records(folder.records).records, spec), spec)
    assert choice is not None
    refine(folder, spec)
    rounds = read_refinements(folder)
    assert rounds[0].choice == choice.config_id
    assert [part.seed for part in rounds[0].parts] == [1]
    assert choice.config_id in rounds[0].parts[0].config_ids
    # No undecided one is trained again while the choice has too few seeds.
    names = [item.choice for item in rounds]
    assert names == sorted(names, key=lambda name: name is None)
    final = would_be_choice(find_front(read_records(folder.records).records, spec), spec)
    assert final is not None and len(final.seeds) == 3


def test_a_choice_that_new_seeds_speak_against_is_replaced_and_that_one_trained_again(
    tmp_path: Path,
) -> None:
    spec = spec_with(1_000_000)
    folder = first_pass(tmp_path / "run", spec)
    first = would_be_choice(find_front(read_records(folder.records).records, spec), spec)
    assert first is not None
    for plans in refined_plans(spec, folder, None):
        records = [record for plan in plans for record in measured(plan)]
        bad = {"unsafe_rate": Metric.rate(128, 256)}
        write(
            folder,
            [
                replace(r, metrics={**r.metrics, **bad}) if r.config_id == first.config_id else r
                for r in records
            ],
        )
    names = list(dict.fromkeys(item.choice for item in read_refinements(folder) if item.choice))
    assert names[0] == first.config_id and len(names) >= 2
    final = would_be_choice(find_front(read_records(folder.records).records, spec), spec)
    assert final is not None and final.config_id != first.config_id
    assert len(final.seeds) == 3


@pytest.mark.parametrize(("budget", "seeds"), [(39, []), (40, [1]), (80, [1, 2])])
def test_the_choice_gets_the_seeds_that_the_budget_allows(
    tmp_path: Path, budget: int, seeds: list[int]
) -> None:
    spec = spec_with(budget, "space.max_steps=40", "space.average=raw")
    folder = first_pass(tmp_path / "run", spec)
    refine(folder, spec)
    parts = [p for item in read_refinements(folder) if item.choice for p in item.parts]
    assert [part.seed for part in parts] == seeds
    assert all(part.steps == 40 for part in parts)


@pytest.mark.parametrize(("batch", "seeds"), [(1, [1, 1, 1]), (4, [1, 2])])
def test_one_more_seed_comes_first_and_then_all_that_a_round_takes(
    tmp_path: Path, batch: int, seeds: list[int]
) -> None:
    spec = spec_with(1_000_000, f"search.refine={{budget: 9999, batch_size: {batch}}}")
    folder = first_pass(tmp_path / "run", spec)
    first = would_be_choice(find_front(read_records(folder.records).records, spec), spec)
    assert first is not None
    for plans in refined_plans(spec, folder, None):
        same = {r.config_id: r for r in read_records(folder.records).records if r.seed == 0}
        records = [record for plan in plans for record in measured(plan)]
        # Every run measures what the first one did, so that the choice stays.
        write(folder, [replace(r, metrics=same[r.config_id].metrics) for r in records])
        if read_refinements(folder)[-1].choice is None:
            break
    rounds = [item for item in read_refinements(folder) if item.choice]
    assert {item.choice for item in rounds} == {first.config_id}
    assert [len(item.parts) for item in rounds] == seeds


def test_the_path_that_leaves_most_open_per_step_comes_first_after_the_choice(
    tmp_path: Path,
) -> None:
    spec = spec_with(1_000_000)
    folder = first_pass(tmp_path / "run", spec)
    for plans in refined_plans(spec, folder, None):
        rounds = read_refinements(folder)
        if rounds[-1].choice is None:
            break
        write(folder, [record for plan in plans for record in measured(plan)])
    front = find_front(read_records(folder.records).records, spec)
    doubts = undecided(front_certainty(front, spec), front.competing, spec)
    full = {item.config_id for item in front.candidates if len(item.seeds) == 3}
    worth = []
    for trajectory in make_plan(spec).trajectories:
        chosen = [i for i in trajectory.configurations if i.config_id in doubts.keys() - full]
        if chosen:
            steps = max(item.step for item in chosen)
            worth.append((sum(doubts[item.config_id] for item in chosen) / steps, chosen))
    best = max(worth, key=lambda pair: pair[0])[1]
    assert set(rounds[-1].parts[0].config_ids) == {item.config_id for item in best}


def test_no_choice_is_trained_again_where_the_nearest_one_is_surely_unsafe() -> None:
    spec = make_spec()
    records = [base_record(), make_record(identity="bad", unsafe=(128, 256), utility=0.8)]
    assert would_be_choice(find_front(records, spec), spec) is None
    records.append(make_record(identity="open", unsafe=(13, 256), utility=0.7))
    choice = would_be_choice(find_front(records, spec), spec)
    assert choice is not None and choice.config_id == "open"


def test_it_ends_when_nothing_may_have_more_seeds_and_says_what_was_decided(tmp_path: Path) -> None:
    spec = spec_with(1_000_000)
    folder = first_pass(tmp_path / "run", spec)
    refine(folder, spec)
    records = read_records(folder.records).records
    counts = Counter(record.config_id for record in records)
    assert max(counts.values()) == 3
    # A decision stage counts on seeds beyond these being new.
    assert {record.seed for record in records} == {0, 1, 2}
    rows = refinement_rows(folder, spec, records)
    rounds = read_refinements(folder)
    assert len(rows) == len(rounds) + 1
    assert rows[0].state == rounds[0].before
    assert (rows[0].paths, rows[0].spent) == (0, 0)
    assert rows[-1].spent == sum(p.steps for r in rounds for p in r.parts)
    front = find_front(records, spec)
    still = undecided(front_certainty(front, spec), front.competing, spec)
    assert rows[-1].state.undecided == len(still)
    assert all(counts[config_id] == 3 for config_id in still)


def test_an_interrupted_refinement_goes_on_as_an_undisturbed_one(tmp_path: Path) -> None:
    spec = spec_with(1000)
    whole, broken = (first_pass(tmp_path / name, spec) for name in ("whole", "broken"))
    refine(whole, spec)
    plans = next(refined_plans(spec, broken, None))  # Asked for, nothing of it measured.
    with broken.refinements.open("ab") as file:
        file.write(b'{"parts": [{"se')
    assert len(read_refinements(broken)) == 1
    assert len(plans) == 1
    refine(broken, spec)
    assert broken.refinements.read_bytes() == whole.refinements.read_bytes()
    broken.refinements.write_text('{"parts": 3}\n', encoding="utf-8")
    with raises("run.damaged", path=broken.refinements):
        read_refinements(broken)


def test_a_run_without_refinement_has_no_rows(tmp_path: Path) -> None:
    spec = make_spec(*SMALL[1:])
    folder = first_pass(tmp_path / "run", spec)
    assert refinement_rows(folder, spec, read_records(folder.records).records) == ()


@pytest.mark.slow
def test_a_sweep_refines_itself_from_the_command_line(tiny_world: World, tmp_path: Path) -> None:
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(spec_text(tiny_world), encoding="utf-8")
    run = tmp_path / "run"
    # A limit that tiny random models are undecided about: every prompt is answered, n is 8.
    options = ["search.refine={budget: 6, max_seeds: 2}", "constraints=[]"]
    options += ["objectives=[heldout_loss, unsafe_rate]"]
    words = [word for option in options for word in ("--set", option)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}

    def sweeper(*arguments: str) -> str:
        command = [sys.executable, "-m", "sweeper", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    out = sweeper("run", str(sweep), "--out", str(run), *words)
    assert "further seeds, the would-be choice first:" in out
    folder = RunFolder(run)
    parts = [part for item in read_refinements(folder) for part in item.parts]
    assert 0 < sum(part.steps for part in parts) <= 6
    records = read_records(folder.records).records
    extra = {record.key for record in records if record.seed == 1}
    assert extra == {(config_id, 1) for part in parts for config_id in part.config_ids}
    assert all(record.status == "complete" for record in records)
    before = folder.records.read_bytes()
    sweeper("report", str(run))
    assert "What further seeds decided" in folder.report.read_text(encoding="utf-8")
    assert folder.records.read_bytes() == before
