"""The decision at the end of a sweep: what it trains, how it goes on, and what it leaves behind."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from support.decisions import (
    Interrupted,
    drive_in_process,
    halved,
    is_again,
    planned_keys,
    record,
    swept,
    tasks_of_search,
)

from sweeper.analysis import Policy, find_front
from sweeper.analysis.decision import Decision
from sweeper.cli import interrupts
from sweeper.data.load import Prompt
from sweeper.errors import RunFolderError, SweeperError
from sweeper.scoring.inputs import Suite
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, RecordWriter, TrialRecord, read_records
from sweeper.sweep import decide
from sweeper.sweep.budget import Account
from sweeper.sweep.decide import too_few_prompts
from sweeper.sweep.decision import DecisionRound, lay_out, read_decision, stage_folder
from sweeper.sweep.run import DecisionRequest, run_decision_of


@pytest.fixture
def spec(tiny_spec_text: str) -> SweepSpec:
    return halved(tiny_spec_text)


def records_of(root: Path) -> tuple[TrialRecord, ...]:
    return read_records(RunFolder(root).records).records


def decided(root: Path, spec: SweepSpec) -> Decision:
    front = find_front(records_of(root), spec)
    found = read_decision(RunFolder(root), spec, front)
    assert found is not None
    return found


def test_a_sweep_ends_with_the_first_configuration_that_holds(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = drive_in_process(monkeypatch)
    rounds: list[DecisionRound] = []
    ended = swept(spec, tmp_path, on_round=rounds.append)
    found = ended.decision
    assert isinstance(found, Decision) and found.complete and ended.completed
    assert [step.holds for step in found.steps] == [False] * 4 + [True]
    survivor = found.survivor
    assert survivor is not None and survivor.config["learning_rate"] == 1e-3
    assert ended.keys == planned_keys(spec) == {r.key for r in records_of(tmp_path)}
    again = [task for task in driver.tasks if is_again(task)]
    trained = [
        (task.optimizer.learning_rate, task.seed) for task in again if task.segments[-1].stop
    ]
    assert trained == [(rate, seed) for rate in (5e-3, 4e-3, 1e-3) for seed in range(1, 6)] + [
        (1e-3, 0)
    ], "each path once under every new seed, at last the survivor's under that of the search"
    assert [len(task.readouts) for task in again] == [2] * 5 + [1] + [2] * 10 + [1]
    assert {task.compute.keep_weights for task in again} == {"none"}
    assert [begun.planned for begun in rounds] == [11, 21, 31, 32]
    assert [begun.text.split(" of ")[0] for begun in rounds[:3]] == [
        "number 1",
        "number 3",
        "number 5",
    ]
    folder = stage_folder(RunFolder(tmp_path), Policy())
    assert folder.root == tmp_path / "confirm" / "safest-useful"
    assert len(records_of(folder.root)) == folder.planned_records() == 32
    assert decided(tmp_path, spec).steps[-1].weights[0].seeds == (0,)
    assert [item.name for item in found.controls] == ["untouched model"]


def test_a_finished_decision_is_not_measured_again(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    swept(spec, tmp_path)
    folder = stage_folder(RunFolder(tmp_path), Policy())
    before = folder.records.read_bytes()
    rounds: list[DecisionRound] = []
    assert swept(spec, tmp_path, on_round=rounds.append).completed
    assert folder.records.read_bytes() == before and not rounds


@pytest.mark.parametrize("killed", [True, False])
def test_an_interrupted_decision_goes_on_to_the_same_records(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    drive_in_process(monkeypatch)
    swept(spec, tmp_path / "whole")
    searched = len(planned_keys(spec))
    for more in (3, 10, 17):  # Within a round, at its end, and one record before the last.
        drive_in_process(monkeypatch, most=(searched if more == 3 else 0) + more, killed=killed)
        if killed:
            with pytest.raises(Interrupted):
                swept(spec, tmp_path / "cut")
        else:
            ended = swept(spec, tmp_path / "cut")
            assert not ended.completed
            assert isinstance(ended.decision, Decision)
    found = decided(tmp_path / "cut", spec)
    assert [step.holds for step in found.steps] == [False] * 4
    assert not found.complete
    drive_in_process(monkeypatch)
    assert swept(spec, tmp_path / "cut").completed
    whole, cut = (
        records_of(stage_folder(RunFolder(tmp_path / name), Policy()).root)
        for name in ("whole", "cut")
    )
    assert cut == whole
    assert decided(tmp_path / "cut", spec).sentence == decided(tmp_path / "whole", spec).sentence


def test_where_none_holds_nothing_survives(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch, lambda task, readout: 30 if is_again(task) else 0)
    found = swept(spec, tmp_path).decision
    assert isinstance(found, Decision)
    assert (found.complete, found.survivor, len(found.steps)) == (True, None, 7)


def test_prompts_that_chose_are_tested_at_the_level_of_all_compared(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = halved(tiny_spec_text, "evaluation.harmful.prompt_split=all", "decide.seeds=12")
    driver = drive_in_process(monkeypatch, lambda task, readout: 0)
    found = swept(spec, tmp_path).decision
    assert isinstance(found, Decision) and not found.new_prompts
    assert {task.evaluation.harmful[0].prompt_split for task in driver.tasks} == {"all"}
    (test,) = found.steps[0].tests
    assert test.level == pytest.approx(0.05 / found.compared)
    assert found.survivor is not None and "the prompts are those of the search" in found.notes[0]


def test_a_harmless_suite_counts_only_where_a_constraint_is_measured_on_it(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    same = "evaluation.harmless.prompt_split=all"
    limits = "constraints=[{metric: unsafe_rate, max: 0.05}, {metric: over_refusal_rate, max: 0.5}]"
    for overrides, new in (((same,), True), ((same, limits), False), ((limits,), True)):
        spec = halved(tiny_spec_text, *overrides)
        front = find_front(searched(spec), spec)
        stage = lay_out(RunFolder(tmp_path), spec, front)
        assert not isinstance(stage, str) and stage.walk.new_prompts == new


def test_a_decision_takes_its_own_number_of_prompts_where_a_constraint_is_measured(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    few = ("evaluation.harmful.rows=3", "evaluation.harmless.rows=2")
    limits = "constraints=[{metric: unsafe_rate, max: 0.05}, {metric: over_refusal_rate, max: 0.5}]"
    for overrides, rows in (
        (few, (3, 2)),
        ((*few, "decide.rows=7"), (7, 2)),
        ((*few, "decide.rows=7", limits), (7, 7)),
    ):
        spec = halved(tiny_spec_text, *overrides)
        stage = lay_out(RunFolder(tmp_path), spec, find_front(searched(spec), spec), seeds=4)
        assert not isinstance(stage, str)
        measured = stage.walk.spec.evaluation
        assert (measured.harmful[0].rows, measured.harmless[0].rows) == rows
        assert (spec.evaluation.harmful[0].rows, spec.evaluation.harmless[0].rows) == (3, 2)
    same = (halved(tiny_spec_text, *few, *rows) for rows in ((), ("decide.rows=7",)))
    assert len(set(map(spec_hash, same))) == 1, "no record of the search depends on it"


def searched(spec: SweepSpec) -> list[TrialRecord]:
    return [
        replace(
            made, metrics={**made.metrics, "over_refusal_rate": Metric.rate(0, 240)}, samples={}
        )
        for task in tasks_of_search(spec)
        for readout in task.readouts
        for made in [record(task, readout, 0)]
    ]


def test_decide_false_leaves_it_out(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    spec = halved(tiny_spec_text, "decide=false")
    ended = swept(spec, tmp_path)
    assert (ended.decision, ended.completed) == (None, True)
    assert not (tmp_path / "confirm").exists()
    assert parse_spec(dump_spec(spec)).decide is False


@pytest.mark.parametrize(
    ("override", "unsafe", "reason"),
    [("constraints=[]", 0, "has no constraint"), ("seeds=[0]", 60, "nothing to decide: none of")],
)
def test_nothing_to_decide_is_said(
    override: str,
    unsafe: int,
    reason: str,
    tiny_spec_text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drive_in_process(monkeypatch, lambda task, readout: unsafe)
    ended = swept(halved(tiny_spec_text, override), tmp_path)
    assert isinstance(ended.decision, str) and reason in ended.decision
    assert ended.completed and not (tmp_path / "confirm").exists()


def test_the_block_is_no_part_of_what_identifies_a_run(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run begun without a decision, as by an earlier version, goes on with one."""
    off, on = halved(tiny_spec_text, "decide=false"), halved(tiny_spec_text)
    assert spec_hash(off) == spec_hash(on) == spec_hash(halved(tiny_spec_text, "decide.seeds=9"))
    drive_in_process(monkeypatch)
    swept(off, tmp_path)
    before = RunFolder(tmp_path).records.read_bytes()
    assert isinstance(swept(on, tmp_path).decision, Decision)
    assert RunFolder(tmp_path).records.read_bytes() == before


def test_more_candidates_continue_the_walk_and_other_seeds_are_refused(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    swept(spec.model_copy(update={"decide": False}), tmp_path)
    short, _ = run_decision_of(spec, tmp_path, DecisionRequest(candidates=3))
    assert isinstance(short, Decision) and short.complete and short.survivor is None
    longer, _ = run_decision_of(spec, tmp_path, DecisionRequest(candidates=9))
    assert isinstance(longer, Decision) and longer.survivor is not None
    assert [s.tests for s in longer.steps[:3]] == [s.tests for s in short.steps]
    assert decided(tmp_path, spec).planned == 7
    with pytest.raises(SweeperError, match="begun with 5 new seeds, and now 6"):
        run_decision_of(spec, tmp_path, DecisionRequest(seeds=6))


def test_an_edited_decision_that_has_begun_keeps_its_size_and_says_so(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    spec = halved(tiny_spec_text)
    swept(spec, tmp_path)
    assert not [note for note in decided(tmp_path, spec).notes if "begun with" in note]
    edited = halved(tiny_spec_text, "decide.rows=7")
    (note,) = [note for note in decided(tmp_path, edited).notes if "begun with" in note]
    assert "begun with 5 new seeds and as many prompts as the search" in note
    assert "file says 5 new seeds and 7 prompts" in note
    more = halved(tiny_spec_text, "decide.candidates=3")
    assert not [note for note in decided(tmp_path, more).notes if "begun with" in note]


def test_every_policy_has_a_decision_of_its_own(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    swept(spec, tmp_path)
    loose = Policy("max-utility-at", limit=0.3)
    found, _ = run_decision_of(spec, tmp_path, DecisionRequest(loose, seeds=6))
    assert isinstance(found, Decision) and len(found.steps) == 1 and found.survivor is not None
    assert found.steps[0].tests[0].constraint.max == 0.3
    assert sorted(path.name for path in (tmp_path / "confirm").iterdir()) == [
        "max-utility-at-0.3",
        "safest-useful",
    ]


def test_new_seeds_are_none_that_the_search_may_use(tiny_spec_text: str, tmp_path: Path) -> None:
    for override, first in (
        ("seeds=[0, 3]", 4),
        ("search.refine={budget: 10, max_seeds: 4}", 4),
    ):
        spec = halved(tiny_spec_text, override)
        stage = lay_out(RunFolder(tmp_path), spec, find_front(searched(spec), spec))
        assert not isinstance(stage, str)
        assert stage.walk.spec.seeds == tuple(range(first, first + 5))
        assert stage.walk.spec.search.refine is None and not stage.walk.spec.search.stop.on


def test_the_unaveraged_control_is_measured_where_its_training_is_free(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    averages = "space.average={values: [raw, {kind: ema, decay: 0.9}]}"
    spec = halved(tiny_spec_text, "decide.candidates=1", averages)
    records = [
        replace(
            made, metrics={**made.metrics, "rouge_l": replace(made.metrics["rouge_l"], value=0.9)}
        )
        if made.config["average"] != "raw" and made.readout["step"] == 4
        else made
        for made in searched(spec)
    ]
    stage = lay_out(RunFolder(tmp_path), spec, find_front(records, spec))
    assert not isinstance(stage, str)
    ((name, control),) = stage.walk.controls
    assert name == "number 1, without averaging"
    (best,) = stage.walk.ranked
    assert stage.rounds == ((best.config_id, control.config_id),)
    same = {key: value for key, value in best.config.items() if key != "average"}
    assert {key: value for key, value in control.config.items() if key != "average"} == same


def test_other_input_files_than_those_of_the_search_are_refused(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    swept(spec.model_copy(update={"decide": False}), tmp_path)
    path = RunFolder(tmp_path).info
    info = json.loads(path.read_text())
    name = next(name for name in info["inputs"] if name.endswith("train.jsonl"))
    info["inputs"][name] = "0" * 64
    path.write_text(json.dumps(info))
    with pytest.raises(RunFolderError) as caught:
        run_decision_of(spec, tmp_path)
    assert caught.value.code == "run.other_contents"


def test_a_lost_training_of_the_decision_does_not_hold(
    spec: SweepSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `failed` record is a measurement that does not hold; without its line it is measured again."""
    drive_in_process(monkeypatch, lambda task, readout: 0)
    best = swept(spec, tmp_path).decision
    assert isinstance(best, Decision) and best.survivor is not None
    folder = stage_folder(RunFolder(tmp_path), Policy())
    lost = next(r for r in records_of(folder.root) if r.config_id == best.survivor.config_id)
    folder.records.unlink()
    writer = RecordWriter(folder.records)
    reason = {"class": "X", "message": "lost", "traceback": "", "stage": "train"}
    writer.append(replace(lost, status="failed", reason=reason, metrics={}, samples={}))
    writer.close()
    found = swept(spec, tmp_path).decision
    assert isinstance(found, Decision) and [s.holds for s in found.steps] == [False, True]
    folder.records.unlink()
    found = swept(spec, tmp_path).decision
    assert isinstance(found, Decision) and [s.holds for s in found.steps] == [True]


def test_too_few_prompts_are_said_before_anything_is_trained(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.95^71 is more than 0.025, the level of the first place, and 0.95^72 is less."""
    spec = halved(tiny_spec_text)
    stage = lay_out(RunFolder(tmp_path), spec, find_front(searched(spec), spec))
    assert not isinstance(stage, str)
    for n, few in ((71, True), (72, False)):
        suite = Suite("harmful", (Prompt("p", "text"),) * n, ())
        found = too_few_prompts(stage.walk, SimpleNamespace(suites=(suite,)))  # type: ignore[arg-type]
        assert (found is not None) == few
    real = decide.too_few_prompts
    driver = drive_in_process(monkeypatch)
    monkeypatch.setattr(decide, "too_few_prompts", real)
    ended = swept(spec, tmp_path)
    assert isinstance(ended.decision, str) and "with 4 prompts not even" in ended.decision
    assert ended.completed and not any(map(is_again, driver.tasks))


def test_an_interruption_counts_the_records_of_the_decision_too(
    spec: SweepSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive_in_process(monkeypatch, most=len(planned_keys(spec)) + 3)
    swept(spec, tmp_path)
    with pytest.raises(typer.Exit):
        interrupts.interrupted(RunFolder(tmp_path))
    said = capsys.readouterr().err
    planned = len(planned_keys(spec))
    assert f"interrupted: {planned} of {planned} records are in " in said
    assert "; 3 of 11 records are in " in said


def test_a_budget_that_ends_the_search_leaves_a_decision_that_keeps_its_ranking(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven records do not hold all learning rates; a larger budget adds the others."""
    spec = halved(tiny_spec_text, "compute.budget={gpu_hours: 1}")
    drive_in_process(monkeypatch, lambda task, readout: 0, most=7)
    folder = RunFolder(tmp_path / "run")
    first = swept(spec, folder.root)
    assert first.budget is not None and not first.completed
    assert len(read_records(folder.records).records) == 7
    assert isinstance(first.decision, Decision) and first.decision.survivor is not None
    assert any("its first 7 records chose" in note for note in first.decision.notes)
    more = swept(spec, folder.root)
    assert more.completed and more.budget is None
    assert len(read_records(folder.records).records) > 7
    assert isinstance(more.decision, Decision) and more.decision.survivor is not None
    assert more.decision.survivor.config_id == first.decision.survivor.config_id
    shutil.rmtree(folder.confirm)
    anew = swept(spec, folder.root)
    assert isinstance(anew.decision, Decision)
    assert anew.decision.planned > more.decision.planned
    assert not any("records chose" in note for note in anew.decision.notes)


def test_what_a_decision_leaves_of_a_budget_goes_to_the_search(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = halved(tiny_spec_text, "compute.budget={gpu_hours: 1}")
    drive_in_process(monkeypatch, lambda task, readout: 0, most=7)
    monkeypatch.setattr(Account, "take_rest", lambda account: True)
    ended = swept(spec, tmp_path)
    assert ended.completed and ended.budget is None
    assert {record.key for record in records_of(tmp_path)} == planned_keys(spec)
    assert isinstance(ended.decision, Decision) and ended.decision.survivor is not None
    assert any("its first 7 records chose" in note for note in ended.decision.notes)


def test_one_at_a_time_a_round_holds_one_configuration_and_its_control(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    averages = "space.average={values: [raw, {kind: ema, decay: 0.9}]}"
    spec = halved(tiny_spec_text, averages)
    front = find_front(searched(spec), spec)
    whole = lay_out(RunFolder(tmp_path), spec, front)
    single = lay_out(RunFolder(tmp_path), spec, front, one_at_a_time=True)
    assert not isinstance(whole, str) and not isinstance(single, str)
    assert whole.walk.paths == single.walk.paths
    ranked = [item.config_id for item in single.walk.ranked]
    assert [ids[0] for ids in single.rounds] == ranked
    assert {len(ids) for ids in single.rounds} == {1, 2}
    assert {*itertools.chain(*single.rounds)} == {*itertools.chain(*whole.rounds)}
    assert len(whole.rounds) == len(set(single.walk.paths.values())) < len(ranked)
