"""What a trial logs of itself: its values are the trainer's own, and logging changes nothing."""

import itertools
import logging
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from support.trials import run_all, tasks_of
from support.world import World, spec_text

from sweeper.data.encode import Encoded
from sweeper.memory import peak_flops, shape_of, train_flops
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.progress import read_trajectory
from sweeper.store.trial_log import LogLine, LogReader
from sweeper.task import Segment, TrajectoryTask, Tuning
from sweeper.trial import throughput
from sweeper.trial.train import learning_rate_schedule

STEPS = 6


def warming(world: World, logging_steps: int) -> TrajectoryTask:
    """One LoRA path of six steps, read at two of them, whose learning rate rises for three."""
    raw = yaml.safe_load(spec_text(world))
    raw["space"] |= {
        "learning_rate": 4e-3,
        "max_steps": {"values": [3, STEPS]},
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 3,
    }
    task = max(tasks_of(parse_spec(yaml.safe_dump(raw))), key=lambda task: len(task.readouts))
    return replace(task, compute=replace(task.compute, logging_steps=logging_steps))


def lines_of(task: TrajectoryTask, root: Path) -> list[LogLine]:
    return list(LogReader(TrialStorage(root, task.trajectory_id)).new_lines())


def fields_of(lines: list[LogLine], event: str) -> list[dict[str, Any]]:
    return [line.fields for line in lines if line.event == event]


def test_the_logged_values_are_those_of_the_trainer_at_every_interval(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    clip = torch.nn.utils.clip_grad_norm_

    def noted(*given: Any, **named: Any) -> Any:
        norm = clip(*given, **named)
        norms.append(float(norm))
        return norm

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", noted)
    task = warming(tiny_world, logging_steps=2)
    run_all(task, tmp_path)
    lines = lines_of(task, tmp_path)
    progress = read_trajectory(TrialStorage(tmp_path, task.trajectory_id).progress)
    schedule = learning_rate_schedule(task.optimizer, Segment(0, STEPS, STEPS))
    rates = [task.optimizer.learning_rate * schedule(step) for step in range(STEPS)]
    train = fields_of(lines, "train")
    assert [line["step"] for line in train] == [2, 4, 6]
    assert progress is not None and len(norms) == STEPS == len(progress.losses)
    for line in train:
        at = line["step"] - 1
        assert line["loss"] == progress.losses[at]
        assert line["learning_rate"] == rates[at]
        assert line["grad_norm"] == norms[at]
        assert line["tokens_per_second"] > 0
        assert not {"mfu", "peak_memory_gib", "segment"} & line.keys()  # There is no GPU.
    assert rates[1] < rates[3] == rates[5]
    (start,) = fields_of(lines, "start")
    assert (start["step"], start["readouts"], start["paths"]) == (0, len(task.readouts), 1)
    assert (start["device"], start["host"]) == ("cpu", socket.gethostname())
    readouts = fields_of(lines, "readout")
    assert {line["config_id"] for line in readouts} == {r.config_id for r in task.readouts}
    assert {line["status"] for line in readouts} == {"complete"}
    stages = [line["stage"] for line in fields_of(lines, "stage")]
    assert set(stages) == {"train", "checkpoint", "evaluate"} and stages[0] == "train"
    assert all(before != after for before, after in itertools.pairwise(stages))
    times = [line.time for line in lines]
    assert times == sorted(times)


def test_logging_more_or_less_or_not_at_all_changes_no_record(
    tiny_world: World, tmp_path: Path
) -> None:
    often, seldom = warming(tiny_world, 1), warming(tiny_world, STEPS + 1)
    refused = TrialStorage(tmp_path / "refused", often.trajectory_id)
    refused.create()
    refused.log.mkdir()  # A disk that takes no line.
    records = [
        run_all(often, tmp_path / "often"),
        run_all(seldom, tmp_path / "seldom"),
        run_all(often, tmp_path / "refused"),
    ]
    first, *others = [{k: r.comparable() for k, r in found.items()} for found in records]
    assert others == [first, first]
    logged = fields_of(lines_of(often, tmp_path / "often"), "train")
    assert [line["step"] for line in logged] == list(range(1, STEPS + 1))
    assert fields_of(lines_of(seldom, tmp_path / "seldom"), "train") == []
    assert lines_of(often, tmp_path / "refused") == []


def test_halvings_and_the_failure_at_the_end_are_logged_and_reach_the_logger(
    tiny_world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def exhausted(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr("sweeper.trial.attempt.step_together", exhausted)
    task = warming(tiny_world, 1)
    task = replace(task, compute=replace(task.compute, micro_batch_size=2))
    with caplog.at_level(logging.INFO, logger="sweeper"):
        records = run_all(task, tmp_path)
    assert {record.status for record in records.values()} == {"failed"}
    lines = lines_of(task, tmp_path)
    (halved,) = fields_of(lines, "out_of_memory")
    assert (halved["stage"], halved["micro_batch_rows"], halved["halvings"]) == ("train", 2, 1)
    (failure,) = fields_of(lines, "failure")
    assert (failure["stage"], failure["class"]) == ("train", "OutOfMemoryError")
    levels = {record.levelname for record in caplog.records if record.name == "sweeper.trial"}
    assert levels == {"INFO", "WARNING", "ERROR"}


class FakePath:
    """A path at some step, with a log that is kept."""

    def __init__(self, tuning: Tuning, step: int) -> None:
        segment = Segment(0, 9, 9)
        compute, model = SimpleNamespace(logging_steps=2), SimpleNamespace(dtype="mixed_bf16")
        self.task = SimpleNamespace(
            compute=compute, model=model, tuning=tuning, segments=(segment,)
        )
        self.trainer = SimpleNamespace(
            step=step, losses=[1.5], learning_rate=0.1, grad_norm=2.0, check=lambda: None
        )
        self.logged: list[dict[str, Any]] = []
        log = SimpleNamespace(write=lambda event, **fields: self.logged.append(fields))
        self.pending = SimpleNamespace(world=SimpleNamespace(size=2), log=log)


@pytest.mark.parametrize(("name", "known"), [("NVIDIA A100-SXM4-80GB", True), ("GeForce", False)])
def test_utilisation_is_work_over_the_peak_of_all_gpus_and_left_out_where_that_is_unknown(
    monkeypatch: pytest.MonkeyPatch, name: str, known: bool
) -> None:
    shape = shape_of(
        {
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 100,
        },
        "tiny",
    )
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: name)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: 3 * 2**29)
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    path = FakePath(Tuning("full"), step=1)
    budget = SimpleNamespace(facts=SimpleNamespace(shape=shape))
    resources: Any = SimpleNamespace(device=torch.device("cuda"), paths=(path,), budget=budget)
    log = throughput.TrainingLog(resources)
    rows: Any = {path: [Encoded((1, 2, 3), (4, 5))] * 4}
    stepped: Any = {path: path.task.segments[0]}
    now[0] = 12.0
    assert log.after_step(stepped, rows, began=10.0) == {}
    assert path.logged == []  # Step 1 of every 2.
    path.trainer.step, now[0] = 2, 15.0
    log.after_step(stepped, rows, began=14.0)
    (line,) = path.logged
    assert line["tokens_per_second"] == pytest.approx(40 / 3, abs=0.05)
    assert line["peak_memory_gib"] == 1.5
    expected = 40 / 3 * train_flops(shape, Tuning("full")) / (2 * 312e12)
    assert line["mfu"] == (pytest.approx(expected) if known else None)


def test_peaks_are_of_the_dtype_and_of_known_boards_alone() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "pure_bf16") == 989e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32") == 67e12
    assert peak_flops("NVIDIA A10", "mixed_bf16") == 125e12
    for unknown in ("NVIDIA A10G", "NVIDIA H100 PCIe", "NVIDIA RTX A1000", "cpu"):
        assert peak_flops(unknown, "mixed_bf16") is None
