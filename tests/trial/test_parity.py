"""The training loop against `transformers.Trainer` and TRL's `SFTTrainer` on real rows."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

from parity import CASES, LOSS_BOUND, WEIGHTS_BOUND, WRONG, Case, Outcome, compare, table
from parity_world import World, build

ROWS = Path(__file__).parents[3] / "shared" / "data" / "alpaca_1k.json"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ROWS.is_file(), reason=f"the real rows are not at {ROWS}"),
]

MIXED_LOSS_BOUND = 2e-4
MIXED_WEIGHTS_BOUND = 0.03
"""In bf16 a path is that far from itself, too, when its sums are ordered otherwise."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return build(tmp_path_factory.mktemp("parity"), ROWS)


def name(case: Case) -> str:
    return f"{case.tuning}-{case.dtype}-{case.accumulation}-{case.rival}"


FP32 = [c for c in CASES if c.dtype == "float32" and (c.tuning, c.rival) != ("DoRA", "SFTTrainer")]


@pytest.mark.parametrize("case", FP32, ids=name)
def test_losses_and_weights_are_those_of_the_known_tools(world: World, case: Case) -> None:
    found = compare(world, case)
    print(table([found]))
    assert found.loss < LOSS_BOUND
    assert found.way < WEIGHTS_BOUND
    assert found.last_loss < found.first_loss - 0.05


@pytest.mark.parametrize(
    "case",
    [Case("full", "mixed_bf16", 1, "Trainer"), Case("LoRA", "mixed_bf16", 1, "SFTTrainer")],
    ids=name,
)
def test_under_autocast_they_differ_by_the_rounding_of_bf16(world: World, case: Case) -> None:
    found = compare(world, case)
    assert 0 < found.loss < MIXED_LOSS_BOUND
    assert 0 < found.way < MIXED_WEIGHTS_BOUND


def test_a_wrong_normalisation_would_be_seen(world: World) -> None:
    """Means of micro-batches instead of a mean over tokens are far outside the bounds."""
    found = compare(world, WRONG[1])
    assert found.loss > 100 * LOSS_BOUND
    assert found.way > 100 * WEIGHTS_BOUND


def test_what_was_measured_last_is_within_the_bounds() -> None:
    root = Path(__file__).parents[2]
    found = json.loads((root / "benchmarks/results/parity.json").read_text(encoding="utf-8"))
    outcomes = [Outcome(**item) for item in found["outcomes"]]
    assert {(o.tuning, o.dtype, o.accumulation, o.rival) for o in outcomes} == {*CASES, *WRONG}
    measured = [
        o for o in outcomes if o.dtype == "float32" and o.rival in ("Trainer", "SFTTrainer")
    ]
    assert max(o.loss for o in measured) < LOSS_BOUND
    assert max(o.way for o in measured) < WEIGHTS_BOUND
