"""One trial in two processes (gloo, CPU): the same losses and verdicts as in one."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.world import World, spec_text

from sweeper.errors import RankLostError
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial import ranks
from sweeper.trial.failure import Limits
from sweeper.trial.run import run_pack

pytestmark = pytest.mark.slow

AVERAGES = (
    "space.average={values: [raw, {kind: ema, decay: 0.9}, {kind: interpolate, weight: 0.3}, "
    "{kind: feedback, decay: 0.9, every: 2}]}"
)


def tasks_of(
    world: World, method: str, *overrides: str, role: str = "candidate"
) -> list[TrajectoryTask]:
    spec = parse_spec(
        spec_text(world),
        overrides=[
            AVERAGES,
            f"tuning={{method: {method}}}",
            "space.learning_rate=0.01",
            "space.batch_size=6",
            "compute.micro_batch_size=2",
            *overrides,
        ],
    )
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return [task for task in tasks if any(item.role == role for item in task.readouts)]


def spread(task: TrajectoryTask, processes: int) -> TrajectoryTask:
    return replace(task, compute=replace(task.compute, gpus_per_trial=processes))


def outcome(tasks: list[TrajectoryTask], root: Path) -> dict[str, TrialRecord]:
    parts = run_pack(tasks, lambda trajectory_id: TrialStorage(root, trajectory_id))
    return {record.config_id: record for part in parts for record in part}


def comparable(records: dict[str, TrialRecord]) -> dict[str, TrialRecord]:
    return {config_id: record.comparable() for config_id, record in records.items()}


def losses(task: TrajectoryTask, root: Path) -> list[float]:
    path = TrialStorage(root, task.trajectory_id).progress
    return list(json.loads(path.read_text(encoding="utf-8"))["losses"])


def verdicts(task: TrajectoryTask, root: Path, config_id: str) -> list[object]:
    path = TrialStorage(root, task.trajectory_id).generations(config_id, task.seed)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["suite"], row["id"], row.get("verdicts")) for row in rows]


@pytest.mark.parametrize(
    ("method", "checkpointing"), [("full", "false"), ("full", "true"), ("lora", "true")]
)
def test_two_processes_give_the_losses_and_verdicts_of_one(
    tiny_world: World, tmp_path: Path, method: str, checkpointing: str
) -> None:
    tasks = tasks_of(tiny_world, method, f"compute.gradient_checkpointing={checkpointing}")
    for number, task in enumerate(tasks):
        one, two = tmp_path / f"one-{number}", tmp_path / f"two-{number}"
        alone, shared = outcome([task], one), outcome([spread(task, 2)], two)
        assert set(alone) == set(shared) == {item.config_id for item in task.readouts}
        assert losses(task, two) == pytest.approx(losses(task, one), rel=1e-5)
        for config_id, record in shared.items():
            assert record.status == alone[config_id].status == "complete", record.reason
            assert record.provenance["processes"] == 2
            assert verdicts(task, two, config_id) == verdicts(task, one, config_id)
            for name, metric in record.metrics.items():
                assert metric.value == pytest.approx(alone[config_id].metrics[name].value, rel=1e-4)


def test_the_weights_measured_are_the_whole_model(tiny_world: World, tmp_path: Path) -> None:
    base = tasks_of(tiny_world, "full", role="base")[0]
    alone, shared = outcome([base], tmp_path / "one"), outcome([spread(base, 2)], tmp_path / "two")
    hashes = [
        record.provenance["weights_sha256"]
        for found in (alone, shared)
        for record in found.values()
    ]
    assert len(set(hashes)) == 1


def test_a_trial_in_two_processes_goes_on_from_their_checkpoints(
    tiny_world: World, tmp_path: Path
) -> None:
    task = spread(tasks_of(tiny_world, "full")[0], 2)
    whole = outcome([task], tmp_path / "whole")
    storage = TrialStorage(tmp_path / "cut", task.trajectory_id)
    parts = run_pack([task], lambda trajectory_id: storage)
    first = next(parts)
    parts.close()  # type: ignore[attr-defined]
    states = [load_file(storage.shard(rank, 2)) for rank in range(2)]
    assert [int(state["step"]) for state in states] == [2, 2]
    assert sum(state["parameter.0"].numel() for state in states) > states[0]["parameter.0"].numel()
    rest = outcome([task], tmp_path / "cut")
    assert {record.config_id for record in first} <= set(rest)  # They lay in the outbox.
    assert comparable(rest) == comparable(whole)

    storage.shard(1, 2).unlink()  # Checkpoints of different steps are not mixed: from the start.
    for path in storage.outbox.glob("*.json"):
        path.unlink()
    assert comparable(outcome([task], tmp_path / "cut")) == comparable(whole)


def test_a_path_that_is_stopped_ends_in_all_processes_with_its_next_readouts(
    tiny_world: World, tmp_path: Path
) -> None:
    task = spread(tasks_of(tiny_world, "full")[0], 2)
    storage = TrialStorage(tmp_path, task.trajectory_id)
    parts = run_pack([task], lambda trajectory_id: storage)
    records = list(next(parts))
    storage.stop_mark.touch()
    records += [record for part in parts for record in part]
    assert {r.config_id for r in records} == {item.config_id for item in task.readouts}
    assert {record.status for record in records} == {"complete", "pruned"}


def test_a_path_that_diverges_ends_failed_in_all_processes(
    tiny_world: World, tmp_path: Path
) -> None:
    task = tasks_of(tiny_world, "full")[0]
    wild = replace(task, optimizer=replace(task.optimizer, learning_rate=1e20))
    records = outcome([spread(wild, 2)], tmp_path)
    assert {record.status for record in records.values()} == {"failed"}
    reasons = [record.reason for record in records.values()]
    assert {reason["class"] for reason in reasons if reason} == {"TrainingDivergedError"}


def test_a_failure_in_one_process_ends_the_trial_with_its_reason(
    tiny_world: World, tmp_path: Path
) -> None:
    task = tasks_of(tiny_world, "full")[0]
    gone = replace(task, model=replace(task.model, path=str(tmp_path / "nowhere")))
    records = outcome([spread(gone, 2)], tmp_path / "run")
    for record in records.values():
        assert record.status == "failed" and record.reason is not None
        assert record.reason["class"] == "ModelError"
        assert "no such model folder" in record.reason["message"]


def test_a_killed_process_is_no_failure_of_the_trial(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = ranks._start

    def noted(*given: object) -> object:
        started.append(start(*given))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(ranks, "_start", noted)
    task = spread(tasks_of(tiny_world, "lora")[0], 2)
    parts: Iterator[list[TrialRecord]] = run_pack([task], lambda i: TrialStorage(tmp_path, i))
    next(parts)
    started[1].process.kill()
    with pytest.raises(RankLostError, match=r"process 1 of the trial ended with code -9"):
        for _ in parts:
            pass
    assert all(rank.process.poll() is not None for rank in started)
    assert started[0].process.returncode in (0, -signal.SIGKILL, 1, -signal.SIGABRT)
    rest = outcome([task], tmp_path)
    assert {record.status for record in rest.values()} == {"complete"}


def test_nothing_left_to_do_ends_well(tiny_world: World, tmp_path: Path) -> None:
    task = spread(tasks_of(tiny_world, "lora")[0], 2)
    known = {(item.config_id, task.seed) for item in task.readouts}
    attempt = ranks.run_on_ranks([task], lambda i: TrialStorage(tmp_path, i), known, Limits())
    with pytest.raises(StopIteration) as end:
        next(attempt)
    assert end.value.value is None


def test_rules_of_stopping_decide_the_same_in_two_processes(
    tiny_world: World, tmp_path: Path
) -> None:
    limit = "constraints=[{metric: unsafe_rate, max: 0.5, confidence: 0.8}]"
    found = []
    for processes, batch in ((1, 4), (2, 2)):  # Four prompts between decisions in both.
        rules = ("search.stop={curtail: true}", limit, f"evaluation.batch_size={batch}")
        (task, *_) = tasks_of(tiny_world, "full", *rules)
        records = outcome([spread(task, processes)], tmp_path / str(processes))
        found.append({name: (one.status, one.reason) for name, one in records.items()})
    alone, shared = found
    assert shared == alone
    assert {status for status, _ in alone.values()} == {"complete", "pruned"}
