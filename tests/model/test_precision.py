"""The three precisions: what is held in which type, and why fp32 master weights are the default."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.world import World, spec_text

from sweeper.model.load import load_model, precision, resident_model
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import ModelSource
from sweeper.trial.path import RunningPath
from sweeper.trial.run import run_trajectory

CPU = torch.device("cpu")


def source_of(world: World, dtype: str) -> ModelSource:
    return ModelSource(str(world.model), dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "trained", "frozen"),
    [
        ("float32", torch.float32, torch.float32),
        ("mixed_bf16", torch.float32, torch.bfloat16),
        ("pure_bf16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_weights_are_held_in_the_type_their_use_asks_for(
    tiny_world: World, dtype: str, trained: torch.dtype, frozen: torch.dtype
) -> None:
    source = source_of(tiny_world, dtype)
    model, base = load_model(source, CPU), resident_model(source, CPU)
    assert {value.dtype for value in model.parameters()} == {trained}
    assert {value.dtype for value in base.parameters()} == {frozen}
    assert {value.requires_grad for value in model.parameters()} == {True}
    assert {value.requires_grad for value in base.parameters()} == {False}
    with precision(source, CPU):
        assert torch.is_autocast_enabled("cpu") is (dtype == "mixed_bf16")


def run(world: World, root: Path, dtype: str, *overrides: str) -> list[TrialRecord]:
    spec = parse_spec(
        spec_text(world),
        overrides=["space.learning_rate=0.01", f"model.dtype={dtype}", *overrides],
    )
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    task = next(task for task in tasks if task.readouts[0].role == "candidate")
    return list(run_trajectory(task, TrialStorage(root, task.trajectory_id)))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_mixed_precision_trains_close_to_fp32(
    tiny_world: World, tmp_path: Path, method: str
) -> None:
    tuning = f"tuning={{method: {method}}}"
    plain = run(tiny_world, tmp_path / "plain", "float32", tuning)
    mixed = run(tiny_world, tmp_path / "mixed", "mixed_bf16", tuning)
    assert {record.status for record in mixed} == {"complete"}, [r.reason for r in mixed]
    for left, right in zip(plain, mixed, strict=True):
        assert left.config_id != right.config_id
        loss = left.metrics["heldout_loss"].value
        assert right.metrics["heldout_loss"].value == pytest.approx(loss, rel=0.02)
        assert right.provenance["model"]["dtype"] == "mixed_bf16"
        assert right.provenance["model"]["attention"] == "sdpa"


def test_eager_attention_is_another_configuration_with_close_numbers(
    tiny_world: World, tmp_path: Path
) -> None:
    sdpa = run(tiny_world, tmp_path / "sdpa", "float32")
    eager = run(tiny_world, tmp_path / "eager", "float32", "model.attention=eager")
    for left, right in zip(sdpa, eager, strict=True):
        assert left.config_id != right.config_id
        assert right.provenance["model"]["attention"] == "eager"
        loss = left.metrics["heldout_loss"].value
        assert right.metrics["heldout_loss"].value == pytest.approx(loss, rel=1e-4)


def share_moved(world: World, root: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> float:
    """The share of weights of matrices that a few small steps change."""
    seen: list[tuple[Any, list[torch.Tensor]]] = []
    begin = RunningPath.__init__

    def noted(self: Any, *given: Any) -> None:
        begin(self, *given)
        seen.append((self.trainer, [value.clone() for value in self.trainer.values]))

    monkeypatch.setattr(RunningPath, "__init__", noted)
    run(world, root, dtype, "tuning={method: full}", "space.learning_rate=0.00001")
    trainer, before = seen[0]
    pairs = [(a, b) for a, b in zip(before, trainer.values, strict=True) if a.ndim == 2]
    changed = sum(int((a != b).sum()) for a, b in pairs)
    return changed / sum(a.numel() for a, _ in pairs)


def test_small_steps_move_fp32_masters_and_round_away_in_bf16(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = share_moved(tiny_world, tmp_path / "mixed", "mixed_bf16", monkeypatch)
    pure = share_moved(tiny_world, tmp_path / "pure", "pure_bf16", monkeypatch)
    assert pure < 0.5 * mixed
