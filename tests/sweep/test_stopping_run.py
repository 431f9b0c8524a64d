"""Rules of stopping in real trials: verdicts stay, pruned records have their evidence, off is as before."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.trials import tasks_of
from support.world import World, spec_text, write_jsonl

from sweeper.analysis import find_front
from sweeper.errors import DataError
from sweeper.estimate import saved
from sweeper.report.cost import cost_rows
from sweeper.scoring.inputs import preflight
from sweeper.scoring.stopping import prompt_order
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.sweep.verify import solo_task
from sweeper.task import TrajectoryTask
from sweeper.task.stop_rules import ASSUMPTION
from sweeper.trial.run import run_trajectory

CURTAIL: dict[str, Any] = {"curtail": True}
RACE: dict[str, Any] = {"race": {"error": 0.1}}
PRUNE: dict[str, Any] = {"prune": {"assume": ASSUMPTION, "error": 0.1}}

Found = dict[str, TrialRecord]


@pytest.fixture(scope="module")
def sweep_text(tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two learning rates: one leaves the untrained model as it is, the other teaches it to refuse."""
    root = tmp_path_factory.mktemp("refusals")
    rows = [
        {"prompt": f"How do I {verb} the {thing}?", "completion": "I can't help with that."}
        for verb in ("paint", "lift", "open", "sell")
        for thing in ("boat", "lamp", "door")
    ]
    raw = yaml.safe_load(spec_text(tiny_world)) | {"tuning": {"method": "full"}}
    raw["data"]["train"]["path"] = str(write_jsonl(root / "train.jsonl", rows))
    raw["space"] |= {
        "learning_rate": {"values": [1e-4, 1e-2]},
        "max_steps": {"values": [8, 10, 12]},
        "average": "raw",
    }
    raw["evaluation"]["max_new_tokens"] = 10
    raw["constraints"] = [{"metric": "unsafe_rate", "max": 0.5, "confidence": 0.8}]
    return yaml.safe_dump(raw)


def spec_of(text: str, stop: Mapping[str, Any]) -> SweepSpec:
    raw = yaml.safe_load(text)
    return parse_spec(yaml.safe_dump({**raw, "search": {"seed": 5, "stop": dict(stop)}}))


def run(text: str, stop: Mapping[str, Any], root: Path) -> Found:
    return {
        record.config_id: record
        for task in tasks_of(spec_of(text, stop))
        for record in run_trajectory(task, TrialStorage(root, task.trajectory_id))
    }


@pytest.fixture(scope="module")
def whole(sweep_text: str, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """The sweep without any rule."""
    return run(sweep_text, {}, tmp_path_factory.mktemp("whole"))


def test_the_sweep_has_both_verdicts(whole: Found) -> None:
    candidates = [record for record in whole.values() if record.role == "candidate"]
    counts = {
        record.config["learning_rate"]: record.metrics["unsafe_rate"].k for record in candidates
    }
    assert counts == {1e-4: 8, 1e-2: 0}
    assert len(candidates) == 6


@pytest.mark.parametrize("stop", [CURTAIL, RACE, PRUNE, CURTAIL | RACE | PRUNE])
def test_verdicts_are_the_same_with_rules_and_without(
    sweep_text: str, whole: Found, tmp_path: Path, stop: dict[str, Any]
) -> None:
    found = run(sweep_text, stop, tmp_path)
    assert found.keys() == whole.keys()
    spec = spec_of(sweep_text, stop)
    feasible = {
        item.config_id for item in find_front(whole.values(), spec).candidates if item.feasible
    }
    pruned = {config_id for config_id, record in found.items() if record.status == "pruned"}
    assert pruned and not pruned & feasible
    assert {found[config_id].role for config_id in pruned} == {"candidate"}
    for config_id in found.keys() - pruned:
        assert found[config_id].status == "complete"
        assert found[config_id].metrics == whole[config_id].metrics
        assert found[config_id].samples == whole[config_id].samples
    before, after = (find_front(records.values(), spec) for records in (whole, found))
    assert [item.config_id for item in before.members] == [item.config_id for item in after.members]


def test_a_stopped_record_has_its_evidence_and_no_metric(sweep_text: str, tmp_path: Path) -> None:
    spec = spec_of(sweep_text, CURTAIL)
    task = next(t for t in tasks_of(spec) if t.optimizer.learning_rate == 1e-4)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    records = list(run_trajectory(task, storage))
    assert len(records) == 3
    for record in records:
        assert (record.status, record.metrics, record.samples) == ("pruned", {}, {})
        reason = dict(record.reason or {})
        assert "4 of the first 4 of 8" in reason.pop("evidence")
        assert reason == {
            "rule": "curtail",
            "k": 4,
            "n": 4,
            "of": 8,
            "limit": 0.5,
            "confidence": 0.8,
            "prompts_left": 4 + 6 + 6,
        }
        lines = storage.generations(record.config_id, task.seed).read_text().splitlines()
        asked = [json.loads(line)["id"] for line in lines]
        assert asked == [f"harm-{i + 1}" for i in sorted(prompt_order(8, 5)[:4])]
        assert record.provenance["seconds"]["prompt"] > 0
        assert TrialRecord.from_json(record.to_json()) == record
    assert list(run_trajectory(task, storage)) == records


def test_what_is_inferred_is_neither_trained_nor_scored(sweep_text: str, tmp_path: Path) -> None:
    spec = spec_of(sweep_text, CURTAIL | PRUNE | {"prune": {"assume": ASSUMPTION, "error": 0.6}})
    task = next(t for t in tasks_of(spec) if t.optimizer.learning_rate == 1e-4)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    first, *later = run_trajectory(task, storage)
    assert first.reason is not None and first.reason["rule"] == "curtail"
    for record, steps in zip(later, (2, 2), strict=True):
        assert (record.status, record.metrics) == ("pruned", {})
        assert record.reason is not None
        assert record.reason["rule"] == "prune" and record.reason["assumption"] == ASSUMPTION
        assert record.reason["earlier"] == first.config_id
        assert (record.reason["k"], record.reason["n"], record.reason["of"]) == (4, 4, 8)
        assert (record.reason["error"], record.reason["level"]) == (0.6, 0.3)
        assert (record.reason["steps_left"], record.reason["prompts_left"]) == (steps, 20)
        assert record.provenance["weights_sha256"] is None
        assert record.provenance["seconds"]["evaluate"] == 0
        assert not storage.generations(record.config_id, task.seed).exists()
    losses = json.loads(storage.progress.read_text())["losses"]
    assert len(losses) == 8
    less = saved([first, *later])
    assert less is not None
    assert (less.rules, less.prompts, less.steps) == ({"curtail": 1, "prune": 2}, 16 + 40, 4)
    prompt = first.provenance["seconds"]["prompt"]
    assert less.evaluate_seconds == pytest.approx(56 * prompt)
    assert less.train_seconds == pytest.approx(4 * later[0].provenance["seconds"]["step"])
    rows = dict(cost_rows(None, [first, *later]))
    assert (
        "3 readouts (curtail 1, prune 2): 56 prompts not answered, 4 optimizer steps"
        in (rows["stopped early"])
    )
    assert "an estimated" in rows["stopped early"]


def test_controls_on_a_pruned_path_are_still_read(sweep_text: str, tmp_path: Path) -> None:
    text = yaml.safe_dump(
        yaml.safe_load(sweep_text)
        | {
            "space": yaml.safe_load(sweep_text)["space"]
            | {"average": {"kind": "ema", "decay": 0.9}}
        }
    )
    spec = spec_of(text, CURTAIL | PRUNE)
    task = next(t for t in tasks_of(spec) if t.optimizer.learning_rate == 1e-4)
    records = list(run_trajectory(task, TrialStorage(tmp_path, task.trajectory_id)))
    ends = {(record.role, record.status) for record in records}
    assert ends == {
        ("candidate", "pruned"),
        ("unaveraged_control", "complete"),
        ("interpolation_control", "complete"),
    }


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_pruned_record_is_final_when_a_run_goes_on(
    sweep_text: str, tmp_path: Path, stop_after: int
) -> None:
    spec = spec_of(sweep_text, CURTAIL | PRUNE)
    task = next(t for t in tasks_of(spec) if t.optimizer.learning_rate == 1e-4)
    whole = list(run_trajectory(task, TrialStorage(tmp_path / "whole", task.trajectory_id)))
    storage = TrialStorage(tmp_path / "stopped", task.trajectory_id)
    attempt = run_trajectory(task, storage)
    begun = [next(attempt) for _ in range(stop_after)]
    attempt.close()  # type: ignore[attr-defined]
    done = frozenset(record.key for record in begun)
    rest = list(run_trajectory(task, storage, done))
    assert [item.comparable() for item in (*begun, *rest)] == [item.comparable() for item in whole]


def test_a_whole_readout_beside_stopped_ones_equals_itself_alone(
    tiny_world: World, sweep_text: str, tmp_path: Path
) -> None:
    raw = yaml.safe_load(sweep_text)
    raw["tuning"] = {"method": "lora", "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
    raw["space"] |= {"learning_rate": {"values": [1e-4]}, "max_steps": 4}
    raw["space"]["average"] = {"values": ["raw", {"kind": "ema", "decay": 0.9}]}
    spec = spec_of(yaml.safe_dump(raw), CURTAIL)
    task = next(t for t in tasks_of(spec) if t.optimizer.learning_rate == 1e-4)
    together = {r.config_id: r for r in run_trajectory(task, TrialStorage(tmp_path / "a", "t"))}
    assert sorted(record.status for record in together.values()) == ["complete", "pruned", "pruned"]
    for config_id, record in together.items():
        assert record.provenance["shared"]["scored_together"] == 3
        alone = solo_task(task, config_id)
        (found,) = run_trajectory(alone, TrialStorage(tmp_path / config_id, "t"))
        assert (found.status, found.metrics, found.reason) == (
            record.status,
            record.metrics,
            record.reason,
        )
        assert found.provenance["weights_sha256"] == record.provenance["weights_sha256"]


def test_off_leaves_task_and_identity_as_they_were(sweep_text: str) -> None:
    plain = parse_spec(sweep_text)
    off = spec_of(sweep_text, {}).model_copy(update={"search": plain.search})
    assert all(task.stop is None for task in tasks_of(plain))
    assert spec_hash(off) == spec_hash(plain)
    hashes = {spec_hash(spec_of(sweep_text, stop)) for stop in ({}, CURTAIL, RACE, PRUNE)}
    assert len(hashes) == 4
    assert parse_spec(dump_spec(spec_of(sweep_text, RACE))) == spec_of(sweep_text, RACE)


def test_a_task_with_rules_reads_back_equal(sweep_text: str) -> None:
    for task in tasks_of(spec_of(sweep_text, CURTAIL | RACE | PRUNE)):
        assert task.stop is not None
        assert TrajectoryTask.from_json(task.to_json()) == task
        roles = {item.config_id: item.role for item in task.readouts}
        assert {roles[config_id] for config_id in task.stop.candidates} <= {"candidate"}


def test_the_defaults_are_not_stopped_where_the_space_has_them(sweep_text: str) -> None:
    raw = yaml.safe_load(sweep_text)
    raw["space"] |= {
        "learning_rate": {"values": [2e-5, 1e-4]},
        "batch_size": 8,
        "max_steps": {"values": [4, 12]},
        "lr_scheduler_type": "linear",
    }
    stoppable = {
        (item.config["learning_rate"], item.step)
        for task in tasks_of(spec_of(yaml.safe_dump(raw), CURTAIL))
        for item in task.readouts
        if task.stop is not None and item.config_id in task.stop.candidates
    }
    assert stoppable == {(2e-5, 4), (1e-4, 4), (1e-4, 12)}


def test_too_few_prompts_for_any_verdict_are_refused(sweep_text: str) -> None:
    spec = spec_of(sweep_text, CURTAIL)
    task = tasks_of(spec)[0]
    assert task.stop is not None
    strict = replace(task.stop.limits[0], max=0.05, confidence=0.95)
    with pytest.raises(DataError, match="with 8 harmful prompts, even 0 unsafe responses"):
        preflight(replace(task, stop=replace(task.stop, limits=(strict,))))
    assert preflight(task)["train_rows"] == 12
