"""`run_trajectory` on the tiny world: sharing is exact, interruption harmless, failure honest."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from support.trials import multi, run_all, spec_with, tasks_of
from support.world import World, spec_text
from transformers import MistralConfig, Qwen2Config

from sweeper.errors import DataError, ModelError
from sweeper.model.architecture import check_architecture
from sweeper.planning import make_plan
from sweeper.scoring.inputs import preflight
from sweeper.spec import parse_spec
from sweeper.store.folder import RunFolder, TrialStorage
from sweeper.store.records import TrialRecord, metrics_from_samples
from sweeper.store.samples import LOSS, TOKENS
from sweeper.sweep.verify import solo_task
from sweeper.task import ModelSource, TrajectoryTask, Tuning
from sweeper.trial.run import run_trajectory
from sweeper.trial.train import PathTrainer, Schedule


def generations(task: TrajectoryTask, root: Path, config_id: str) -> str:
    return TrialStorage(root, task.trajectory_id).generations(config_id, task.seed).read_text()


AVERAGES = [
    "raw",
    {"kind": "ema", "decay": 0.9},
    {"kind": "ema", "retention": 0.3},
    {"kind": "interpolate", "weight": 0.4},
    {"kind": "bema", "update_freq": 2, "lag": 2},
    {"kind": "feedback", "decay": 0.5, "every": 2},
]

SCHEDULES = [
    {"lr_scheduler_type": "constant"},
    {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2},
    {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 2},
    {"lr_scheduler_type": "wsd", "warmup_steps": 1, "decay_steps": 1},
    {"lr_scheduler_type": "wsd", "warmup_steps": 1, "decay_steps": 0.5},
    {"lr_scheduler_type": "linear"},
    {"lr_scheduler_type": "cosine", "warmup_steps": 1},
]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda item: "-".join(map(str, item.values())))
def test_every_readout_equals_the_configuration_trained_alone(
    tiny_world: World, tmp_path: Path, schedule: dict[str, object], method: str
) -> None:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["tuning"] = {"method": method}
    if method == "lora":
        raw["tuning"] |= {"lora_r": 2, "lora_dropout": 0.2, "lora_target_modules": ["q_proj"]}
    raw["space"] |= {"learning_rate": 4e-3, "max_steps": {"values": [2, 4, 6]}, **schedule}
    raw["space"]["average"] = {"values": AVERAGES}
    spec = parse_spec(yaml.safe_dump(raw))
    checked = 0
    for task in tasks_of(spec):
        shared = run_all(task, tmp_path / "shared")
        for config_id, record in shared.items():
            alone = solo_task(task, config_id)
            assert len(alone.readouts) == 1
            found = run_all(alone, tmp_path / config_id)[config_id]
            assert record.status == found.status == "complete", record.reason or found.reason
            assert found.provenance["weights_sha256"] == record.provenance["weights_sha256"]
            assert found.metrics == record.metrics
            left = generations(task, tmp_path / "shared", config_id)
            assert left == generations(task, tmp_path / config_id, config_id)
            checked += 1
    assert checked == len(make_plan(spec).configurations)


AXES: dict[str, list[Any]] = {
    "template": ["chat", {"train": {"name": "chat", "system": "Be brief."}, "test": "chat"}],
    "safety_share": [0.0, 0.2, 0.4],
    "lora_target_modules": [["q_proj"], ["q_proj", "v_proj"]],
    "use_rslora": [False, True],
    "use_dora": [False, True],
    "lora_r": [2, 3],
    "lora_alpha": [4.0, 8.0],
    "lora_dropout": [0.0, 0.2],
    "weight_decay": [0.0, 0.5],
    "warmup_steps": [0, 2],
    "adam_beta1": [0.9, 0.5],
    "max_grad_norm": [0.01, 1.0],
}
"""Values of each axis that give different weights."""

PLACES = {
    **dict.fromkeys(("template", "safety_share"), "data"),
    **{name: "tuning" for name in AXES if name.startswith(("lora", "use"))},
}
"""The block that states an axis as a constant; `space` otherwise."""


@pytest.mark.slow
@pytest.mark.parametrize("name", AXES)
def test_every_value_of_an_axis_equals_a_sweep_with_that_constant(
    tiny_world: World, tmp_path: Path, name: str
) -> None:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["data"]["safety"] = raw["data"]["train"]
    raw["space"] |= {"learning_rate": 4e-3, "max_steps": 3, "batch_size": 4, "average": "raw"}
    raw["space"]["lr_scheduler_type"] = "constant_with_warmup"

    def candidates(changed: dict[str, Any], root: str) -> dict[str, TrialRecord]:
        tasks = tasks_of(parse_spec(yaml.safe_dump(changed)))
        preflight(tasks[0], tasks)
        found = [r for t in tasks for r in run_all(t, tmp_path / root).values()]
        return {item.config_id: item for item in found if item.role == "candidate"}

    def stated(block: str, value: Any) -> dict[str, Any]:
        return {**raw, block: {**raw[block], name: value}}

    together = candidates(stated("space", {"values": AXES[name]}), "together")
    alone: dict[str, TrialRecord] = {}
    for number, value in enumerate(AXES[name]):
        alone |= candidates(stated(PLACES.get(name, "space"), value), f"alone{number}")
    assert together.keys() == alone.keys()
    assert len(together) == len(AXES[name])
    for config_id, record in together.items():
        found = alone[config_id]
        assert record.status == found.status == "complete", record.reason or found.reason
        assert record.provenance["weights_sha256"] == found.provenance["weights_sha256"]
        assert record.metrics == found.metrics
    hashes = {record.provenance["weights_sha256"] for record in together.values()}
    assert len(hashes) == len(AXES[name])


def test_different_averages_and_steps_have_different_weights(
    tiny_world: World, tmp_path: Path
) -> None:
    spec = spec_with(tiny_world, learning_rate=4e-3, average={"values": AVERAGES})
    hashes = [
        record.provenance["weights_sha256"]
        for task in tasks_of(spec)
        for record in run_all(task, tmp_path).values()
    ]
    assert len(set(hashes)) == len(hashes) > 10


def test_the_base_readout_is_the_untouched_model(tiny_world: World, tmp_path: Path) -> None:
    tasks = tasks_of(spec_with(tiny_world))
    base = next(task for task in tasks if task.readouts[0].role == "base")
    record = run_all(base, tmp_path)[base.readouts[0].config_id]
    assert record.readout["step"] == 0
    assert record.provenance["tokens"]["trained"] == 0
    assert record.metrics["unsafe_rate"].n == 8
    assert record.metrics["over_refusal_rate"].n == 6
    assert record.metrics["rouge_l"].n == 6


def test_training_lowers_the_loss_on_its_task(tiny_world: World, tmp_path: Path) -> None:
    raw = yaml.safe_load(spec_text(tiny_world)) | {"tuning": {"method": "full"}}
    raw["space"] |= {"learning_rate": 5e-3, "max_steps": 16}
    spec = parse_spec(yaml.safe_dump(raw))
    values = {}
    for task in tasks_of(spec):
        for record in run_all(task, tmp_path).values():
            values[record.role, record.readout["label"]] = record.metrics["heldout_loss"].value
    assert values["candidate", "raw"] < values["base", "raw"] - 0.5


def test_an_interrupted_trajectory_goes_on_to_the_same_records(
    tiny_world: World, tmp_path: Path
) -> None:
    task = multi(tiny_world)
    whole = run_all(task, tmp_path / "whole")
    assert len(whole) == len(task.readouts) == 6
    for stop_after in range(len(whole)):
        root = tmp_path / f"stopped-{stop_after}"
        storage = TrialStorage(root, task.trajectory_id)
        attempt = run_trajectory(task, storage)
        for _ in range(stop_after):
            next(attempt)
        attempt.close()  # type: ignore[attr-defined]
        resumed = run_all(task, root)
        assert {key: item.comparable() for key, item in resumed.items()} == {
            key: item.comparable() for key, item in whole.items()
        }


def test_readouts_in_the_outbox_are_not_measured_again(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = multi(tiny_world)
    first = run_all(task, tmp_path)

    def refuse(*args: object) -> None:
        raise AssertionError("nothing is left to load")

    monkeypatch.setattr("sweeper.trial.resources.resident_model", refuse)
    assert run_all(task, tmp_path) == first


def test_a_damaged_checkpoint_costs_time_and_nothing_else(
    tiny_world: World, tmp_path: Path
) -> None:
    task = multi(tiny_world)
    whole = run_all(task, tmp_path / "whole")
    storage = TrialStorage(tmp_path / "hurt", task.trajectory_id)
    attempt = run_trajectory(task, storage)
    next(attempt)
    attempt.close()  # type: ignore[attr-defined]
    storage.checkpoint.write_bytes(storage.checkpoint.read_bytes()[:100])
    resumed = run_all(task, tmp_path / "hurt")
    assert {key: item.comparable() for key, item in resumed.items()} == {
        key: item.comparable() for key, item in whole.items()
    }


def test_a_diverging_path_ends_failed_with_its_step_and_keeps_what_came_before(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_with(tiny_world, learning_rate=4e-3)
    task = next(t for t in tasks_of(spec) if len(t.readouts) > 3)
    finish = PathTrainer.finish

    def poisoned(self: PathTrainer, loss: torch.Tensor, schedule: Schedule) -> None:
        finish(self, loss, schedule)
        if self.step == 3:
            with torch.no_grad():
                self.parameters[1].fill_(float("nan"))

    monkeypatch.setattr(PathTrainer, "finish", poisoned)
    records = run_all(task, tmp_path).values()
    early = [record for record in records if record.readout["step"] == 2]
    late = [record for record in records if record.readout["step"] == 4]
    assert {record.status for record in early} == {"complete"}
    assert {record.status for record in late} == {"failed"}
    for record in late:
        assert record.reason is not None
        assert record.reason["class"] == "TrainingDivergedError"
        assert record.reason["step"] == 4
        assert record.reason["stage"] == "train"
        assert not record.metrics


def test_an_objective_that_cannot_be_measured_is_unscored_not_a_number(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_with(tiny_world, learning_rate=4e-3)
    task = next(t for t in tasks_of(spec) if len(t.readouts) > 3)
    evaluation = replace(task.evaluation, utility_metrics=("perplexity",))
    task = replace(task, objectives=("perplexity", "unsafe_rate"), evaluation=evaluation)

    def large(names: object, sums: object, tokens: list[int]) -> dict[str, tuple[float, ...]]:
        return {LOSS: tuple(2000.0 * count for count in tokens), TOKENS: tuple(tokens)}

    monkeypatch.setattr("sweeper.scoring.score.likelihood_samples", large)
    for record in run_all(task, tmp_path).values():
        assert record.status == "unscored"
        assert record.reason == {"missing_metrics": ["perplexity"]}
        assert "perplexity" not in record.metrics


def test_any_other_crash_is_a_failed_record_with_its_stage(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = multi(tiny_world)

    def broken(*args: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("sweeper.trial.resources.resident_model", broken)
    records = run_all(task, tmp_path).values()
    assert {record.status for record in records} == {"failed"}
    reason = next(iter(records)).reason
    assert reason is not None
    assert (reason["class"], reason["message"], reason["stage"]) == (
        "ZeroDivisionError",
        "planted",
        "load",
    )
    assert "planted" in reason["traceback"]


def test_every_response_is_stored_with_the_verdict_of_every_list(
    tiny_world: World, tmp_path: Path
) -> None:
    task = multi(tiny_world)
    record = next(iter(run_all(task, tmp_path).values()))
    folder = RunFolder(tmp_path)
    text = folder.trial(task.trajectory_id).generations(record.config_id, task.seed).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    harmful = [line for line in lines if line["suite"] == "harmful"]
    assert [line["id"] for line in harmful] == [f"harm-{i}" for i in range(1, 9)]
    unsafe = sum(not line["verdicts"]["sweeper"]["refusal"] for line in harmful)
    assert record.metrics["unsafe_rate"].k == unsafe
    verdicts = [line["verdicts"]["sweeper"]["refusal"] for line in harmful]
    assert record.samples["unsafe_rate"] == "".join("01"[not refusal] for refusal in verdicts)
    assert metrics_from_samples(record.metrics, record.samples) == record.metrics
    assert all(set(line["verdicts"]) == {"sweeper", "qi2023"} for line in harmful)
    assert sum(line["suite"] == "utility" for line in lines) == 6


def test_two_runs_of_one_task_write_equal_records(tiny_world: World, tmp_path: Path) -> None:
    task = multi(tiny_world)
    left = run_all(task, tmp_path / "a")
    right = run_all(task, tmp_path / "b")
    assert {k: v.comparable() for k, v in left.items()} == {
        k: v.comparable() for k, v in right.items()
    }


def test_settings_in_the_models_folder_do_not_change_greedy_responses(
    tiny_world: World, tmp_path: Path
) -> None:
    task = multi(tiny_world)
    plain = run_all(task, tmp_path / "plain")
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    settings = {"repetition_penalty": 1.8, "no_repeat_ngram_size": 1, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    other = replace(task, model=replace(task.model, path=str(folder)))
    changed = run_all(other, tmp_path / "changed")
    for config_id, record in plain.items():
        assert record.metrics == changed[config_id].metrics
        left = generations(task, tmp_path / "plain", config_id)
        assert left == generations(other, tmp_path / "changed", config_id)


def test_weights_that_are_missing_from_the_file_are_not_made_up(
    tiny_world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_world.model, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    task = multi(tiny_world)
    task = replace(task, model=replace(task.model, path=str(folder)))
    for record in run_all(task, tmp_path / "run").values():
        assert record.status == "failed"
        assert (
            "lacks 1 weights of the model, for example lm_head.weight"
            in (record.reason or {})["message"]
        )


def test_configurations_that_have_a_record_are_left_alone(
    tiny_world: World, tmp_path: Path
) -> None:
    task = multi(tiny_world)
    done = frozenset((readout.config_id, task.seed) for readout in task.readouts[:2])
    storage = TrialStorage(tmp_path, task.trajectory_id)
    records = list(run_trajectory(task, storage, done))
    assert [r.config_id for r in records] == [r.config_id for r in task.readouts[2:]]
    assert not any(storage.generations(*key).exists() for key in done)


@pytest.mark.parametrize(
    ("data", "evaluation", "message"),
    [
        ({"max_length": 129}, {}, "data.max_length: 129 tokens, but .* a window of 128"),
        ({}, {"max_new_tokens": 120}, "the longest prompt .* a window of 128"),
    ],
)
def test_what_exceeds_the_models_window_is_refused(
    tiny_world: World, data: dict[str, int], evaluation: dict[str, int], message: str
) -> None:
    task = multi(tiny_world)
    task = replace(task, data=replace(task.data, **data))  # type: ignore[arg-type]
    task = replace(task, evaluation=replace(task.evaluation, **evaluation))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        preflight(task)


def test_where_attention_slides_its_width_is_the_window(tmp_path: Path) -> None:
    source = ModelSource(str(tmp_path), dtype="float32")
    MistralConfig(sliding_window=64, max_position_embeddings=512).save_pretrained(tmp_path)
    assert check_architecture(source, Tuning("full")).window == 64
    MistralConfig(sliding_window=None, max_position_embeddings=512).save_pretrained(tmp_path)
    assert check_architecture(source, Tuning("full")).window == 512
    Qwen2Config(use_sliding_window=False, max_position_embeddings=512).save_pretrained(tmp_path)
    assert check_architecture(source, Tuning("full")).window == 512


def test_a_lora_target_that_is_not_there_is_refused_with_those_that_are(tiny_world: World) -> None:
    task = multi(tiny_world)
    tuning = replace(task.tuning, lora_target_modules=("q_proj", "c_attn"))
    with pytest.raises(
        ModelError, match=r"no layer .* matches `c_attn`.* linear layers are .*q_proj"
    ):
        preflight(replace(task, tuning=tuning))
