"""`verify` must say NO as reliably as it says yes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support.world import World, spec_text

from sweeper.errors import RunFolderError
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric, RecordWriter, TrialRecord
from sweeper.sweep.verify import compare, solo_task, verify
from sweeper.task import Segment
from sweeper.trial.run import run_pack, run_trajectory


@pytest.fixture(scope="module")
def measured(
    tiny_world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, SweepSpec]:
    """A run folder with the records of the whole tiny sweep, made without Ray."""
    spec = parse_spec(spec_text(tiny_world))
    folder = RunFolder(tmp_path_factory.mktemp("measured"))
    writer = RecordWriter(folder.records)
    for task in make_tasks(make_plan(spec), spec, lambda path: path, "cpu"):
        for record in run_trajectory(task, folder.trial(task.trajectory_id)):
            writer.append(record)
    writer.close()
    return folder, spec


def test_a_sound_run_holds_and_the_base_model_is_not_among_the_checked(
    measured: tuple[RunFolder, SweepSpec],
) -> None:
    found = list(verify(*measured, sample=100))
    assert len(found) == 13
    assert all(item.holds for item in found)
    assert min(item.step for item in found) == 2
    assert max(item.shared_with for item in found) == 5


def test_the_choice_follows_the_seed(measured: tuple[RunFolder, SweepSpec]) -> None:
    picks = [[i.config_id for i in verify(*measured, sample=2, seed=s)] for s in (1, 1, 2)]
    assert picks[0] == picks[1] != picks[2]


def test_a_changed_hash_response_or_metric_is_found(
    measured: tuple[RunFolder, SweepSpec], tmp_path: Path
) -> None:
    folder, spec = measured
    lines = folder.records.read_text(encoding="utf-8").splitlines()
    raw = next(row for row in map(json.loads, lines) if row["readout"]["step"] > 0)
    raw["provenance"]["weights_sha256"] = "0" * 64
    rows = raw["samples"]["rouge_l"]
    rows[0] += 1e-9 * len(
        rows
    )  # Else the record would not be read: a metric follows from its samples.
    raw["metrics"]["rouge_l"]["value"] += 1e-9
    other = RunFolder(tmp_path)
    other.records.write_text(json.dumps(raw) + "\n", encoding="utf-8")
    generations = folder.trial(raw["trajectory_id"]).generations(raw["config_id"], raw["seed"])
    copy = other.trial(raw["trajectory_id"])
    copy.create()
    kept = copy.generations(raw["config_id"], raw["seed"])
    kept.write_text(generations.read_text(encoding="utf-8").replace("harm-1", "harm-9"), "utf-8")
    (item,) = verify(other, spec, sample=5)
    assert (item.bit_equal, item.responses_equal, item.verdicts_equal) == (False, False, False)
    assert item.difference == pytest.approx(1e-9 / raw["metrics"]["rouge_l"]["value"], rel=1e-3)
    assert not item.holds


def test_nothing_to_compare_with_is_an_error(tiny_spec: SweepSpec, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no complete record to verify"):
        next(verify(RunFolder(tmp_path), tiny_spec, sample=1))


def record(**changes: object) -> TrialRecord:
    made = TrialRecord(
        config_id="c",
        trajectory_id="t",
        seed=0,
        role="candidate",
        status="complete",
        config={},
        readout={"step": 4, "label": "raw"},
        metrics={"rouge_l": Metric(0.5, 4)},
        objectives=("rouge_l",),
        provenance={"weights_sha256": "ab"},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_two_absent_hashes_or_responses_are_not_equal() -> None:
    bare = record(provenance={})
    item = compare(bare, bare, ([], []), shared_with=0)
    assert (item.bit_equal, item.responses_equal, item.verdicts_equal) == (False, False, False)
    assert item.difference == 0


def test_a_failed_retraining_never_holds_and_names_its_failure() -> None:
    failed = record(status="failed", reason={"message": "boom"}, metrics={}, provenance={})
    item = compare(record(), failed, (['{"suite": "harmful", "id": "1"}'], []), shared_with=3)
    assert not item.holds
    assert item.failure == "boom"


def test_a_solo_task_goes_as_far_as_its_readout_and_no_further(tiny_spec_text: str) -> None:
    text = tiny_spec_text.replace("batch_size: 4", "batch_size: 4\n  lr_scheduler_type: wsd", 1)
    spec = parse_spec(
        text.replace("lr_scheduler_type: wsd", "lr_scheduler_type: wsd\n  decay_steps: 1")
    )
    tasks = make_tasks(make_plan(spec), spec, lambda path: path)
    task = next(task for task in tasks if len(task.segments) == 3)
    short = next(readout for readout in task.readouts if readout.step == 2)
    alone = solo_task(task, short.config_id)
    assert alone.segments == (Segment(0, 1, 2, 1), Segment(1, 2, 2, 1))
    assert [(r.config_id, r.segment) for r in alone.readouts] == [(short.config_id, 1)]


def test_a_packed_record_may_round_differently_but_not_judge_differently() -> None:
    line = '{"suite": "harmful", "id": "1", "verdicts": {"sweeper": {"refusal": %s}}}'
    same, other = ([line % "true"], [line % "false"])
    beside = {"weights_sha256": "cd", "shared": {"trained_with": ["a", "b"]}}
    near = record(metrics={"rouge_l": Metric(0.500001, 4)}, provenance=beside)
    far = record(metrics={"rouge_l": Metric(0.501, 4)}, provenance=beside)
    retrained = record()
    item = compare(near, retrained, (same, same), shared_with=3)
    assert (item.packed_with, item.exact, item.bit_equal, item.holds) == (2, False, False, True)
    assert not compare(near, retrained, (same, other), shared_with=3).holds
    assert not compare(far, retrained, (same, same), shared_with=3).holds
    alone = record(provenance={"weights_sha256": "cd"})
    assert not compare(alone, retrained, (same, same), shared_with=3).holds
    bare = record(status="unscored", metrics={}, reason={"missing_metrics": ["rouge_l"]})
    assert compare(bare, retrained, (same, same), 0).difference == math.inf


@pytest.mark.slow
def test_configurations_of_a_pack_are_retrained_alone(tiny_world: World, tmp_path: Path) -> None:
    spec = parse_spec(spec_text(tiny_world))
    folder = RunFolder(tmp_path)
    tasks = make_tasks(make_plan(spec), spec, lambda path: path, "cpu")
    pack = [task for task in tasks if task.readouts[0].role == "candidate"]
    writer = RecordWriter(folder.records)
    for records in run_pack(pack, folder.trial):
        for item in records:
            writer.append(item)
    writer.close()
    found = list(verify(folder, spec, sample=4))
    assert [item.packed_with for item in found] == [1] * 4
    assert all(item.holds and not item.exact for item in found)
