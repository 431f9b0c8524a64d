"""An adapter that is trained as one row: the weights, averages and states of training weight by weight."""

from dataclasses import replace

import pytest
import torch

from sweeper.model.adapters import MAGNITUDE, AdapterWeights
from sweeper.model.averaging import Shadow
from sweeper.model.flat import FlatWeights
from sweeper.task import Average, OptimizerSettings
from sweeper.trial.train import PathTrainer

SHAPES = ((2, 5), (7, 2), (7,), (2, 3), (4, 2), (4,))
NAMES = [f"{layer}.{name}" for layer in "ab" for name in ("lora_A", "lora_B", MAGNITUDE)]
SETTINGS = OptimizerSettings(0.05, 4, weight_decay=0.1, max_grad_norm=0.5)
EMA = Average("ema", decay=0.8)


def start() -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.randn(shape) for shape in SHAPES]


def goals() -> list[torch.Tensor]:
    torch.manual_seed(9)
    return [torch.randn(shape) for shape in SHAPES]


def trainer_of(settings: OptimizerSettings = SETTINGS) -> tuple[PathTrainer, FlatWeights]:
    flat = FlatWeights(start())
    return PathTrainer(AdapterWeights(flat, NAMES), settings, [EMA]), flat


def advance(trainer: PathTrainer, flat: FlatWeights, steps: int) -> None:
    for _ in range(steps):
        trainer.begin()
        parts = zip(flat.split(flat.row), goals(), strict=True)
        loss = sum((part[0] - goal).square().sum() for part, goal in parts)
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        trainer.finish(loss.detach(), lambda step: 1.0)


def by_hand(steps: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Weights and average of plain AdamW, one tensor per weight."""
    weights = [torch.nn.Parameter(value) for value in start()]
    optimizer = torch.optim.AdamW(weights, lr=SETTINGS.learning_rate, weight_decay=0.1)
    shadow = Shadow(weights, 0.8)
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum((w - goal).square().sum() for w, goal in zip(weights, goals(), strict=True))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 0.5)
        optimizer.step()
        shadow.update(weights, step + 1)
    return [weight.detach() for weight in weights], shadow.values


def test_a_row_is_trained_as_its_weights_would_be_one_by_one() -> None:
    trainer, flat = trainer_of()
    advance(trainer, flat, 6)
    weights, average = by_hand(6)
    torch.testing.assert_close([p.detach() for p in trainer.parameters], weights)
    torch.testing.assert_close(trainer.read(EMA), average)
    assert all(
        value.data_ptr() == part.data_ptr()
        for value, part in zip(trainer.values, flat.parts, strict=True)
    )


def test_a_state_names_every_weight_and_goes_on_bit_for_bit() -> None:
    whole, flat = trainer_of()
    advance(whole, flat, 3)
    state = whole.state()
    for index, shape in enumerate(SHAPES):
        for name in (
            f"parameter.{index}",
            f"optimizer.{index}.exp_avg",
            f"optimizer.{index}.exp_avg_sq",
        ):
            assert state[name].shape == shape
        assert state[f"optimizer.{index}.step"] == 3
    other, restored = trainer_of()
    assert other.fits(state)
    other.restore(state)
    advance(whole, flat, 2)
    advance(other, restored, 2)
    assert torch.equal(flat.row, restored.row) and other.losses == whole.losses
    assert all(torch.equal(value, other.state()[name]) for name, value in whole.state().items())


def test_where_every_weight_has_its_own_moments_it_gets_its_part_of_the_gradient() -> None:
    pytest.importorskip("bitsandbytes")
    trainer, flat = trainer_of(replace(SETTINGS, optim="adamw_8bit", max_grad_norm=0.0))
    advance(trainer, flat, 1)
    assert not torch.equal(flat.row.detach(), FlatWeights(start()).row.detach())
    for part, value, goal in zip(flat.parts, start(), goals(), strict=True):
        torch.testing.assert_close(part.grad, 2 * (value - goal))
    flat.row.grad = None
    flat.share_gradient()
    assert all(part.grad is None for part in flat.parts)
