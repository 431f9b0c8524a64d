"""The training loop against hand-written oracles."""

import math
from collections.abc import Callable
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch

from sweeper.data.encode import Encoded
from sweeper.errors import TrainingDivergedError
from sweeper.memory import micro_batch_rows
from sweeper.model.averaging import Shadow, interpolate, swapped_weights
from sweeper.model.batches import Batch, collate
from sweeper.task import Average, Bema, Feedback, OptimizerSettings, Segment
from sweeper.trial.train import (
    PathTrainer,
    learning_rate_schedule,
    step_seed,
    step_together,
)

RAW = Average()


class Tiny(torch.nn.Module):
    """A language model in miniature: embedding, dropout, head. Token 0 is padding."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = torch.nn.Embedding(11, 6)
        self.drop = torch.nn.Dropout(dropout)
        self.norm = torch.nn.LayerNorm(6)
        self.head = torch.nn.Linear(6, 11)

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> object:
        logits = self.head(self.norm(self.drop(self.embed(input_ids))))
        return type("Output", (), {"logits": logits})()


def rows_of(step: int, rows: int = 4) -> list[Encoded]:
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(1, 11, (rows, 7), generator=generator).tolist()
    return [Encoded(tuple(r[: 1 + i % 3]), tuple(r[1 + i % 3 :])) for i, r in enumerate(ids)]


def split(rows: list[Encoded], size: int) -> list[Batch]:
    return [collate([rows[i : i + size]], 0) for i in range(0, len(rows), size)]


class Solo(PathTrainer):
    """A path that brings its model along."""

    model: Tiny


def walker(settings: OptimizerSettings, *averages: Average, dropout: float = 0.0) -> Solo:
    model = Tiny(dropout)
    model.train()
    made = Solo(dict(model.named_parameters()), settings, averages)
    made.model = model
    return made


def walk(path: Solo, settings: OptimizerSettings, until: int, size: int = 4) -> list[float]:
    """Take steps; what diverges raises."""
    schedule = learning_rate_schedule(settings, Segment(0, until, until))
    while path.step < until:
        torch.manual_seed(step_seed(5, path.step))
        batches = split(rows_of(path.step), size)
        for error in step_together(path.model, [path], batches, [schedule]).values():
            raise error
    return path.losses


def weights(made: PathTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in made.parameters]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def by_hand(settings: OptimizerSettings, steps: int) -> list[torch.Tensor]:
    """Plain PyTorch: mean loss over target tokens, clip, AdamW with decay on matrices only."""
    model = Tiny()
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
    )
    for step in range(steps):
        rows = rows_of(step)
        ids = torch.tensor([row.prompt + row.completion for row in rows])
        labels = ids.clone()
        for number, row in enumerate(rows):
            labels[number, : len(row.prompt)] = -100
        optimizer.zero_grad()
        logits = model(ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, 11), labels[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def test_the_loop_equals_plain_pytorch() -> None:
    settings = OptimizerSettings(0.01, 4, weight_decay=0.1, max_grad_norm=0.5)
    made = walker(settings, RAW)
    walk(made, settings, 6)
    for ours, theirs in zip(weights(made), by_hand(settings, 6), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_accumulation_changes_nothing_but_rounding(size: int) -> None:
    settings = OptimizerSettings(0.01, 4)
    whole = walker(settings, RAW)
    parts = walker(settings, RAW)
    whole_losses = walk(whole, settings, 5)
    losses = walk(parts, settings, 5, size)
    assert losses == pytest.approx(whole_losses, rel=1e-5)
    for left, right in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_a_shadow_follows_its_recurrence_and_starts_at_theta_0() -> None:
    settings = OptimizerSettings(0.02, 4)
    made = walker(settings, Average("ema", decay=0.9), Average("ema", decay=0.5))
    expected = [value.double() for value in weights(made)]
    for _ in range(7):
        walk(made, settings, made.step + 1)
        now = weights(made)
        expected = [0.9 * e + 0.1 * t.double() for e, t in zip(expected, now, strict=True)]
    read = made.read(Average("ema", decay=0.9))
    assert read is not None
    for ours, theirs in zip(read, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)


def test_a_bf16_weight_still_has_a_moving_fp32_shadow() -> None:
    weight = [torch.ones(1, dtype=torch.bfloat16)]
    shadow = Shadow(weight, 0.999)
    moved = [torch.full((1,), 1.01, dtype=torch.bfloat16)]
    for _ in range(2000):
        shadow.update(moved, 1)
    expected = 1.0 + (float(moved[0]) - 1.0) * (1 - 0.999**2000)
    assert float(shadow.values[0]) == pytest.approx(expected, abs=1e-4)
    assert float(shadow.values[0]) > 1.005


@pytest.mark.parametrize(
    "bema", [Bema(), Bema(update_freq=3, ema_power=0.8, bias_power=0.4, lag=2, multiplier=0.5)]
)
def test_a_bema_is_that_of_trl(bema: Bema) -> None:
    trl = pytest.importorskip("trl")
    settings = OptimizerSettings(0.02, 4)
    made = walker(settings, RAW, Average("bema", bema=bema), Average("ema", decay=0.9))
    theirs = trl.BEMACallback(**asdict(bema))
    theirs.thetat_params = made.parameters
    theirs.theta0_params = [value.detach().clone() for value in made.parameters]
    theirs.ema_params = [value.clone() for value in theirs.theta0_params]
    theirs.running_model = Tiny()
    theirs.update_after = -bema.update_freq  # So that its first snapshot is the one above.
    for step in range(1, 13):
        walk(made, settings, step)
        theirs.on_step_end(None, SimpleNamespace(global_step=step), None, made.model)
    read = made.read(Average("bema", bema=bema))
    assert read is not None
    for ours, expected in zip(read, theirs.running_model.parameters(), strict=True):
        torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-6)
    assert not equal(read, weights(made))


def test_a_path_resumes_with_its_bema() -> None:
    settings, average = OptimizerSettings(0.02, 4), Average("bema", bema=Bema(lag=3))
    through, stopped, resumed = (walker(settings, average) for _ in range(3))
    walk(through, settings, 6)
    walk(stopped, settings, 3)
    assert resumed.fits(stopped.state())
    assert not resumed.fits(walker(settings, Average("bema", bema=Bema(lag=4))).state())
    resumed.restore(stopped.state())
    walk(resumed, settings, 6)
    ours, theirs = resumed.read(average), through.read(average)
    assert ours is not None and theirs is not None
    assert equal(ours, theirs)


def test_interpolation_mixes_with_theta_0() -> None:
    start, end = [torch.tensor([1.0, 3.0])], [torch.tensor([2.0, 1.0])]
    assert torch.equal(interpolate(end, start, 0.25)[0], torch.tensor([1.75, 1.5]))


def test_feedback_every_step_equals_plain_training_at_the_matched_rate() -> None:
    fed = OptimizerSettings(0.02, 4, weight_decay=0.1, feedback=Feedback(0.75, 1))
    plain = OptimizerSettings(0.02 * 0.25, 4, weight_decay=0.1)
    left = walker(fed, RAW)
    right = walker(plain, RAW)
    walk(left, fed, 12)
    walk(right, plain, 12)
    for a, b in zip(weights(left), weights(right), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_feedback_every_third_step_replaces_the_weights_then_only() -> None:
    settings = OptimizerSettings(0.02, 4, feedback=Feedback(0.5, 3))
    plain = OptimizerSettings(0.02, 4)
    fed = walker(settings, RAW)
    raw = walker(plain, RAW)
    start = weights(raw)
    walk(fed, settings, 2)
    walk(raw, plain, 2)
    assert equal(weights(fed), weights(raw))
    average = start
    again = walker(plain, RAW)
    for step in range(1, 4):
        walk(again, plain, step)
        average = [0.5 * e + 0.5 * t for e, t in zip(average, weights(again), strict=True)]
    walk(fed, settings, 3)
    for ours, theirs in zip(weights(fed), average, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_reading_does_not_disturb_the_next_step_bit_for_bit() -> None:
    settings = OptimizerSettings(0.02, 4)
    average = Average("ema", decay=0.9)
    quiet = walker(settings, average, dropout=0.3)
    read = walker(settings, average, dropout=0.3)
    walk(quiet, settings, 6)
    for step in range(1, 7):
        walk(read, settings, step)
        read.model.eval()
        with swapped_weights(read.parameters, read.read(average)):
            torch.rand(5)
            read.model(torch.tensor([[1, 2, 3]]))
        read.model.train()
    assert equal(weights(quiet), weights(read))
    assert quiet.losses == read.losses


def test_a_restored_state_goes_on_bit_for_bit() -> None:
    settings = OptimizerSettings(0.02, 4, feedback=Feedback(0.9, 2))
    average = Average("ema", decay=0.8)
    whole = walker(settings, average, dropout=0.2)
    walk(whole, settings, 3)
    state = whole.state()
    walk(whole, settings, 7)
    other = walker(settings, average, dropout=0.2)
    other.restore(state)
    assert other.step == 3
    walk(other, settings, 7)
    assert equal(weights(whole), weights(other))
    assert whole.losses == other.losses
    left, right = whole.read(average), other.read(average)
    assert left is not None and right is not None and equal(left, right)


def test_a_state_is_a_copy_that_later_steps_leave_alone() -> None:
    settings = OptimizerSettings(0.02, 4)
    made = walker(settings, RAW)
    walk(made, settings, 2)
    state = made.state()
    before = {name: value.clone() for name, value in state.items()}
    made.restore(state)
    walk(made, settings, 5)
    assert all(torch.equal(before[name], state[name]) for name in before)


def test_a_state_to_write_takes_no_memory_of_its_own() -> None:
    settings = OptimizerSettings(0.02, 4)
    made = walker(settings, Average("ema", decay=0.8))
    walk(made, settings, 2)
    copied, shared = made.state(), made.state_to_write()
    assert all(torch.equal(copied[name], shared[name]) for name in copied)
    walk(made, settings, 3)
    changed = {name for name, value in made.state().items() if torch.equal(shared[name], value)}
    assert {f"parameter.{index}" for index in range(len(made.values))} <= changed
    assert any(name.endswith("exp_avg_sq") for name in changed)
    assert any(name.startswith("shadow") for name in changed)


def test_a_loss_that_is_not_finite_ends_the_path_with_its_step() -> None:
    settings = OptimizerSettings(0.02, 4)
    made = walker(settings, RAW)
    walk(made, settings, 2)
    with torch.no_grad():
        made.model.head.bias[0] = math.nan
    with pytest.raises(TrainingDivergedError, match="at optimizer step 3") as caught:
        walk(made, settings, 3)
    assert caught.value.step == 3
    assert made.step == 2


def reference(name: str, total: int, warmup: int, decay: int) -> Callable[[int], float]:
    if name == "linear":
        return lambda t: t / warmup if t < warmup else (total - t) / (total - warmup)
    if name == "constant_with_warmup":
        return lambda t: min(1.0, t / warmup)
    stable = total - decay

    def wsd(t: int) -> float:
        if t < warmup:
            return t / warmup
        return 1.0 if t < stable else 0.5 * (1 + math.cos(math.pi * (t - stable) / decay))

    return wsd


@pytest.mark.parametrize("name", ["linear", "constant_with_warmup", "warmup_stable_decay"])
def test_schedules_follow_their_formula(name: str) -> None:
    settings = OptimizerSettings(1.0, 4, lr_scheduler_type=name, warmup_steps=4, decay_steps=5)
    factor = learning_rate_schedule(settings, Segment(0, 20, 20, decay_steps=5))
    expected = reference(name, 20, 4, 5)
    assert [factor(t) for t in range(20)] == pytest.approx([expected(t) for t in range(20)])


def test_the_trunk_of_a_stable_schedule_never_decays() -> None:
    settings = OptimizerSettings(
        1.0, 4, lr_scheduler_type="warmup_stable_decay", warmup_steps=2, decay_steps=5
    )
    factor = learning_rate_schedule(settings, Segment(0, 15, 16, decay_steps=1))
    assert [factor(t) for t in range(15)] == [0.0, 0.5, *[1.0] * 13]


def test_micro_batches_fit_the_token_budget_and_never_vanish() -> None:
    assert micro_batch_rows(64, 512, None) == 32
    assert micro_batch_rows(4, 512, None) == 4
    assert micro_batch_rows(8, 100_000, None) == 1
    assert micro_batch_rows(8, 512, 2) == 2
    assert micro_batch_rows(64, 512, None, paths=4) == 8
    assert micro_batch_rows(8, 512, 2, paths=4) == 1
