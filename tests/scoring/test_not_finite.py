"""What is NaN or infinite is not measured: weights, logits and losses, of one readout or of the model."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.judge_models import write_generative
from support.raising import raises
from support.world import World, spec_text
from transformers import PreTrainedModel

from sweeper.judges.base import Sample
from sweeper.judges.formats import LLAMA_GUARD_3
from sweeper.judges.local import GenerativeJudge
from sweeper.model.adapters import Adapter, AdapterStack, new_adapter
from sweeper.model.finite import all_finite, watched_logits
from sweeper.model.load import load_model
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.scoring.score import FailedScoring, Scorer, Scores
from sweeper.scoring.utility import RowSums, row_sums
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.path import RunningPath
from sweeper.trial.run import run_pack

CPU = torch.device("cpu")


def tasks_of(world: World, *overrides: str, role: str = "candidate") -> list[TrajectoryTask]:
    spec = parse_spec(spec_text(world), overrides=["space.max_steps=2", *overrides])
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return [task for task in tasks if task.readouts[0].role == role]


def records_of(tasks: Sequence[TrajectoryTask], root: Path) -> list[TrialRecord]:
    return [
        record
        for records in run_pack(tasks, lambda name: TrialStorage(root / name, name))
        for record in records
    ]


@pytest.mark.parametrize(
    ("values", "fine"),
    [
        ([1.0, -2.0], True),
        ([], True),
        ([1.0, math.nan], False),
        ([math.inf, 0.0], False),
        ([-math.inf], False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_finite(values: list[float], fine: bool, dtype: torch.dtype) -> None:
    assert all_finite([torch.ones(2), torch.tensor(values, dtype=dtype)]) is fine
    assert all_finite([torch.tensor([3], dtype=torch.uint8)])


def broken_model(world: World, folder: Path, name: str, value: float) -> Path:
    folder.mkdir()
    for path in world.model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[7] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model.norm.weight", math.nan),
        ("model.layers.0.self_attn.q_proj.weight", math.nan),  # Attention on a CPU hides it.
        ("model.embed_tokens.weight", math.inf),
        ("lm_head.weight", -math.inf),
    ],
)
def test_a_model_with_such_weights_fails_with_their_name(
    tiny_world: World, tmp_path: Path, name: str, value: float
) -> None:
    folder = broken_model(tiny_world, tmp_path / "model", name, value)
    for role in ("base", "candidate"):
        tasks = tasks_of(tiny_world, f"model.path={folder}", role=role)[:1]
        with raises("model.not_finite", weights=name):
            load_model(tasks[0].model, CPU)
        records = records_of(tasks, tmp_path / role)
        assert records and {record.status for record in records} == {"failed"}
        for record in records:
            assert not record.metrics and not record.samples
            assert name in (record.reason or {})["message"]


@pytest.fixture
def model(tiny_world: World) -> PreTrainedModel:
    return load_model(tasks_of(tiny_world)[0].model, CPU).requires_grad_(False)


def three_adapters(model: PreTrainedModel, task: TrajectoryTask) -> list[Adapter]:
    adapters = [new_adapter(model, task.tuning, seed) for seed in (1, 2, 3)]
    for adapter in adapters:
        for value in adapter.parameters().values():
            value.data += 0.2 * torch.randn(
                value.shape, generator=torch.Generator().manual_seed(len(value))
            )
    return adapters


def poison(adapter: Adapter, value: float) -> None:
    """Make the values, and so all logits of an adapter, NaN or infinite."""
    for name, parameter in adapter.parameters().items():
        if "v_proj" in name:
            parameter.data.fill_(value)


@pytest.fixture
def task(tiny_world: World) -> TrajectoryTask:
    return tasks_of(tiny_world)[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_slot_does_not_spoil_the_others(
    task: TrajectoryTask, model: PreTrainedModel, value: float
) -> None:
    scorer = Scorer(load_inputs(task), task.evaluation, CPU)
    adapters = three_adapters(model, task)
    stack = AdapterStack(model, adapters[0].factors)
    stack.load(adapters)
    sound = scorer.score(model, stack, 3)
    assert len(sound) == 3
    poison(adapters[1], value)
    stack.load(adapters)
    first, bad, third = scorer.score_or_stop(model, stack, [False] * 3)
    assert isinstance(bad, FailedScoring) and "prompts are NaN or infinite" in bad.message
    assert [first, third] == [sound[0], sound[2]]
    assert scorer.score(model, stack, 3) == [sound[0], sound[2]]
    stack.remove()


def test_a_loss_that_is_not_finite_fails_its_readout_alone(
    task: TrajectoryTask, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(*arguments: Any, **named: Any) -> list[RowSums]:
        sums = row_sums(*arguments, **named)
        return [sums[0], RowSums((math.inf, *sums[1].loss[1:]), sums[1].correct)]

    monkeypatch.setattr("sweeper.scoring.score.row_sums", infinite)
    scorer = Scorer(load_inputs(task), task.evaluation, CPU)
    adapters = three_adapters(model, task)[:2]
    stack = AdapterStack(model, adapters[0].factors)
    stack.load(adapters)
    first, second = scorer.score_or_stop(model, stack, [False, False])
    assert isinstance(first, Scores) and isinstance(second, FailedScoring)
    assert "losses" in second.message
    stack.remove()


@pytest.fixture
def poisoned_readout(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The weights of the EMA readouts hold a NaN; yields their ids."""
    weights = RunningPath.weights
    ids: list[str] = []

    def poisoned(self: RunningPath, readout: Any) -> list[torch.Tensor]:
        values = weights(self, readout)
        if readout.average.kind != "ema":
            return values
        ids.append(readout.config_id)
        values[-1] = values[-1].clone()
        values[-1].view(-1)[0] = math.nan
        return values

    monkeypatch.setattr(RunningPath, "weights", poisoned)
    yield ids


def test_a_readout_with_such_weights_fails_and_the_rest_of_the_pack_is_measured(
    tiny_world: World, tmp_path: Path, poisoned_readout: list[str]
) -> None:
    average = "space.learning_rate=0.01"
    for method in ("lora", "full"):
        tuning = [] if method == "lora" else ["tuning={method: full}"]
        tasks = tasks_of(tiny_world, average, *tuning)
        poisoned_readout.clear()
        records = records_of(tasks[: 2 if method == "lora" else 1], tmp_path / method)
        failed = [record for record in records if record.status == "failed"]
        assert {record.config_id for record in failed} == set(poisoned_readout)
        assert 0 < len(failed) < len(records)
        for record in failed:
            assert not record.metrics and (record.reason or {})["stage"] == "evaluate"
            assert "weights are NaN or infinite" in (record.reason or {})["message"]
            name = record.trajectory_id
            outgoing = TrialStorage(tmp_path / method / name, name).outgoing(record.config_id)
            kept = outgoing.read_text(encoding="utf-8")
            assert TrialRecord.from_json(kept) == record
        assert all(r.metrics for r in records if r.status == "complete")


def test_the_logits_of_every_pass_are_watched(model: PreTrainedModel) -> None:
    ids = torch.tensor([[5, 6], [7, 8]])
    with watched_logits(model) as finite:
        assert finite()
        model(input_ids=ids)
        assert finite()
        row: Any = model.get_input_embeddings()
        row.weight.data[8] = math.nan
        model(input_ids=ids[:1])
        assert finite()
        model(input_ids=ids)
        model(input_ids=ids[:1])
        assert not finite()
    model(input_ids=ids)


def test_a_judge_whose_logits_are_not_finite_abstains(tmp_path: Path) -> None:
    write_generative(tmp_path, "\n\nsafe", "\n\nunsafe\nS1")
    judge = GenerativeJudge(str(tmp_path), LLAMA_GUARD_3, device="cpu")
    samples = [Sample("harmful", "How?", "Take the boat.")]
    (answer,) = [found for _, found in judge.judge(samples)]
    assert answer.unsafe is False
    head: Any = judge._model.get_output_embeddings()
    head.weight.data[3] = math.nan
    ((_, found),) = judge.judge(samples)
    assert (found.unsafe, found.refusal) == (None, None)
    assert found.evidence == "the judge's logits are not finite"
