"""Packs: trajectories trained side by side equal those trained alone, and do not touch each other."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.world import World, spec_text
from transformers import PreTrainedModel

from sweeper.data.encode import Encoded
from sweeper.model.adapters import Adapter, AdapterStack, new_adapter
from sweeper.model.batches import RowOrder, collate
from sweeper.model.load import load_model, resident_model
from sweeper.planning import make_packs, make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import OptimizerSettings, Segment, TrajectoryTask, Tuning
from sweeper.trial import attempt as trial_run
from sweeper.trial.run import run_pack, run_trajectory
from sweeper.trial.train import PathTrainer, learning_rate_schedule, step_seed, step_together

RATES = (1e-3, 2e-3, 4e-3, 8e-3)


def tasks_with(world: World, **changes: object) -> list[TrajectoryTask]:
    """The candidates' trajectories of the tiny sweep, one per learning rate."""
    raw = yaml.safe_load(spec_text(world))
    raw["space"] |= {"learning_rate": {"values": list(RATES)}, "max_steps": {"values": [2, 4]}}
    raw["tuning"] |= {"lora_dropout": changes.pop("lora_dropout", 0.0)}
    raw["space"] |= changes
    spec = parse_spec(yaml.safe_dump(raw))
    tasks = make_tasks(make_plan(spec), spec, lambda path: path, device="cpu")
    return [task for task in tasks if task.readouts[0].role == "candidate"]


def storages(root: Path) -> Callable[[str], TrialStorage]:
    return lambda trajectory_id: TrialStorage(root, trajectory_id)


def together(tasks: list[TrajectoryTask], root: Path) -> dict[tuple[str, int], TrialRecord]:
    records = [record for part in run_pack(tasks, storages(root)) for record in part]
    assert len({record.key for record in records}) == len(records)
    return {record.key: record for record in records}


def alone(tasks: list[TrajectoryTask], root: Path) -> dict[tuple[str, int], TrialRecord]:
    found = [r for t in tasks for r in run_trajectory(t, TrialStorage(root, t.trajectory_id))]
    return {record.key: record for record in found}


def verdicts(task: TrajectoryTask, root: Path, config_id: str) -> list[object]:
    path = TrialStorage(root, task.trajectory_id).generations(config_id, task.seed)
    return [json.loads(line).get("verdicts") for line in path.read_text().splitlines()]


def assert_close(left: TrialRecord, right: TrialRecord) -> None:
    assert left.status == right.status == "complete", left.reason or right.reason
    assert set(left.metrics) == set(right.metrics)
    for name, metric in left.metrics.items():
        assert metric.n == right.metrics[name].n
        assert metric.k == right.metrics[name].k
        assert metric.value == pytest.approx(right.metrics[name].value, rel=1e-5), name


def weights_at(root: Path, task: TrajectoryTask) -> torch.Tensor:
    state = load_file(TrialStorage(root, task.trajectory_id).checkpoint)
    return torch.cat([v.flatten() for name, v in sorted(state.items()) if "parameter" in name])


SETTINGS: list[dict[str, object]] = [
    {},
    {"lora_dropout": 0.2},
    {"lr_scheduler_type": "wsd", "decay_steps": 1, "warmup_steps": 1},
    {"warmup_steps": {"values": [0, 2]}, "lr_scheduler_type": "constant_with_warmup"},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_every_member_of_a_pack_equals_its_solo_run(
    tiny_world: World, tmp_path: Path, changes: dict[str, object]
) -> None:
    tasks = tasks_with(tiny_world, **changes)
    assert len(tasks) >= len(RATES)
    packed, solo = together(tasks, tmp_path / "pack"), alone(tasks, tmp_path / "solo")
    assert packed.keys() == solo.keys()
    for task in tasks:
        left, right = (weights_at(tmp_path / kind, task) for kind in ("pack", "solo"))
        assert float((left - right).norm() / right.norm()) <= 1e-6
        for readout in task.readouts:
            key = (readout.config_id, task.seed)
            assert_close(packed[key], solo[key])
            ids = (readout.config_id,)
            assert verdicts(task, tmp_path / "pack", *ids) == verdicts(
                task, tmp_path / "solo", *ids
            )
            beside = packed[key].provenance["shared"]["trained_with"]
            assert len(beside) == len(tasks) - 1
            assert task.trajectory_id not in beside


def test_different_seeds_and_ranks_share_a_pack(tiny_world: World, tmp_path: Path) -> None:
    first, second, third, _ = tasks_with(tiny_world)
    second = replace(second, seed=7)
    third = replace(third, tuning=replace(third.tuning, lora_r=2, lora_alpha=2.0))
    tasks = [first, second, third]
    packed, solo = together(tasks, tmp_path / "pack"), alone(tasks, tmp_path / "solo")
    assert packed.keys() == solo.keys()
    for key, record in packed.items():
        assert_close(record, solo[key])
    sizes = {t.trajectory_id: len(weights_at(tmp_path / "pack", t)) for t in tasks}
    assert sizes[third.trajectory_id] * 2 == sizes[first.trajectory_id]


def trained(
    model: PreTrainedModel, rates: list[float], rows: list[Encoded], steps: int
) -> list[torch.Tensor]:
    """The weights of adapters after some steps side by side."""
    tuning = Tuning("lora", 4, 8, 0.0, ("q_proj", "v_proj", "down_proj"))
    settings = [OptimizerSettings(rate, 4) for rate in rates]
    adapters: list[Adapter] = [new_adapter(model, tuning, 3) for _ in rates]
    walkers = [PathTrainer(a.parameters(), s, []) for a, s in zip(adapters, settings, strict=True)]
    schedules = [learning_rate_schedule(s, Segment(0, steps, steps)) for s in settings]
    slots = AdapterStack(model, adapters[0].factors)
    order = RowOrder(len(rows), 4, 3)
    for step in range(steps):
        torch.manual_seed(step_seed(3, step))
        slots.load(adapters)
        batch = collate([[rows[i] for i in order.batch(step)]] * len(rates), 0)
        assert step_together(model, walkers, [batch], schedules) == {}
    slots.remove()
    return [torch.cat([p.detach().flatten() for p in walker.parameters]) for walker in walkers]


@pytest.mark.slow
def test_after_fifty_steps_a_packed_adapter_is_within_a_millionth_of_its_solo_run(
    tiny_world: World,
) -> None:
    task = tasks_with(tiny_world)[0]
    model = load_model(task.model, torch.device("cpu")).requires_grad_(False)
    rows = [Encoded((1, 3, 20 + i, 40), tuple(range(50 + i, 55 + i))) for i in range(12)]
    packed = trained(model, list(RATES), rows, 50)
    for rate, weights in zip(RATES, packed, strict=True):
        (solo,) = trained(model, [rate], rows, 50)
        assert float((weights - solo).norm() / solo.norm()) <= 1e-6
    assert float((packed[0] - packed[3]).norm() / packed[0].norm()) > 0.01


def test_a_diverging_member_does_not_touch_the_others(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tasks_with(tiny_world)[:3]
    solo = alone(tasks, tmp_path / "solo")
    finish = PathTrainer.finish

    def poisoned(self: PathTrainer, *args: object) -> None:
        finish(self, *args)  # type: ignore[arg-type]
        if self.step == 3 and self._settings.learning_rate == RATES[1]:
            with torch.no_grad():
                self.parameters[1].fill_(math.nan)

    monkeypatch.setattr(PathTrainer, "finish", poisoned)
    packed = together(tasks, tmp_path / "pack")
    assert packed.keys() == solo.keys()
    for key, record in packed.items():
        late = record.readout["step"] == 4
        if late and record.config["learning_rate"] == RATES[1]:
            assert (record.status, (record.reason or {})["step"]) == ("failed", 4)
        else:
            assert_close(record, solo[key])


def test_where_a_pack_fails_its_members_go_on_alone(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tasks_with(tiny_world)[:2]
    solo = alone(tasks, tmp_path / "solo")

    def too_much(
        model: object, walkers: list[PathTrainer], *args: object, **more: object
    ) -> object:
        if len(walkers) > 1 and walkers[0].step == 2:
            raise torch.OutOfMemoryError("planted")
        return step_together(model, walkers, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(trial_run, "step_together", too_much)
    packed = together(tasks, tmp_path / "pack")
    assert packed.keys() == solo.keys()
    for key, record in packed.items():
        assert_close(record, solo[key])
        beside = record.provenance["shared"]["trained_with"]
        assert len(beside) == (1 if record.readout["step"] == 2 else 0)
        notes = record.provenance["shared"].get("pack_failed", [])
        assert ["OutOfMemoryError" in note for note in notes] == ([] if beside else [True])
    for task in tasks:
        packed_log, log = (
            storages(tmp_path / kind)(task.trajectory_id).log.read_text()
            for kind in ("pack", "solo")
        )
        assert packed_log.count("trained alone, as the pack failed") == 1
        assert "pack failed" not in log


def test_a_model_with_dropout_of_its_own_trains_one_adapter_at_a_time(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tasks_with(tiny_world)[:2]
    model = resident_model(tasks[0].model, torch.device("cpu"))
    monkeypatch.setattr(model.config, "attention_dropout", 0.1)
    records = together(tasks, tmp_path).values()
    assert {record.status for record in records} == {"complete"}
    assert {len(record.provenance["shared"]["trained_with"]) for record in records} == {0}


@pytest.mark.slow
def test_an_interrupted_pack_goes_on_to_the_same_records(tiny_world: World, tmp_path: Path) -> None:
    tasks = [
        replace(task, compute=replace(task.compute, checkpoint_every=1))
        for task in tasks_with(tiny_world)[:3]
    ]
    whole = together(tasks, tmp_path / "whole")
    for stop_after in (1, 2):
        root = tmp_path / f"stopped-{stop_after}"
        attempt = run_pack(tasks, storages(root))
        for _ in range(stop_after):
            next(attempt)
        attempt.close()  # type: ignore[attr-defined]
        storages(root)(tasks[1].trajectory_id).checkpoint.unlink()
        resumed = together(tasks, root)
        assert resumed.keys() == whole.keys()
        for key, record in resumed.items():
            assert_close(record, whole[key])


def test_the_base_model_is_what_it_was_after_a_pack(tiny_world: World, tmp_path: Path) -> None:
    tasks = tasks_with(tiny_world)[:2]
    model = resident_model(tasks[0].model, torch.device("cpu"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    together(tasks, tmp_path)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def sizes(tasks: list[TrajectoryTask], pack: int | str, workers: int) -> list[int]:
    return sorted(len(pack) for pack in make_packs(tasks, pack, workers))  # type: ignore[arg-type]


def test_packs_hold_one_batch_size_and_keep_every_worker_busy(tiny_world: World) -> None:
    tasks = tasks_with(tiny_world, batch_size={"values": [4, 8]})
    assert len(tasks) == 8
    assert sizes(tasks, "auto", 1) == [4, 4]
    assert sizes(tasks, "auto", 2) == [4, 4]
    assert sizes(tasks[:-1], "auto", 2) == [2, 2, 3]
    assert sizes(tasks, "auto", 3) == [1, 1, 1, 1, 2, 2]
    assert sizes(tasks, "auto", 4) == [2, 2, 2, 2]
    assert sizes(tasks, "auto", 100) == [1] * 8
    assert sizes(tasks, 1, 1) == [1] * 8
    assert sizes(tasks, 3, 1) == [2, 2, 2, 2]
    for pack in make_packs(tasks, "auto", 1):
        assert len({task.optimizer.batch_size for task in pack}) == 1
    largest_first = [sum(t.optimizer.batch_size for t in p) for p in make_packs(tasks, "auto", 1)]
    assert largest_first == sorted(largest_first, reverse=True)


def test_only_a_number_mixes_seeds_and_full_fine_tuning_is_never_packed(tiny_world: World) -> None:
    tasks = tasks_with(tiny_world)
    other = [replace(task, seed=1, trajectory_id=f"{task.trajectory_id}x") for task in tasks]
    assert sizes([*tasks, *other], "auto", 1) == [4, 4]
    assert sizes([*tasks, *other], 8, 1) == [8]
    full = [replace(task, tuning=replace(task.tuning, method="full")) for task in tasks]
    assert sizes(full, 8, 1) == [1] * 4
