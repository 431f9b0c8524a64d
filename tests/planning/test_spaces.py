"""Every shipped sweep loads, plans what is written here, fits its GPUs, and says so at its head."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from sweeper.errors import SpecError
from sweeper.estimate import ROWS, SHAPES
from sweeper.planning import make_plan
from sweeper.spec import load_spec
from sweeper.spec.load import shipped_specs

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "search_spaces"

MODELS = {
    "llama2_7b": "meta-llama/Llama-2-7b-chat-hf",
    "llama31_8b": "meta-llama/Llama-3.1-8B-Instruct",
    "llama32_1b": "meta-llama/Llama-3.2-1B-Instruct",
    "llama32_3b": "meta-llama/Llama-3.2-3B-Instruct",
}
DATA = {
    "dolly": ("databricks/databricks-dolly-15k", "dolly"),
    "alpaca": ("tatsu-lab/alpaca", "alpaca"),
    "orca": ("Open-Orca/SlimOrca", "orca"),
}
FULL, LORA = (14, 192, 98, 290), (14, 240, 2, 242)
COUNTS = {
    "llama2_7b_alpaca_full": FULL,
    "llama2_7b_alpaca_lora": LORA,
    "llama2_7b_dolly_full": FULL,
    "llama2_7b_dolly_lora": LORA,
    "llama2_7b_orca_full": FULL,
    "llama2_7b_orca_lora": LORA,
    "llama31_8b_alpaca_full": FULL,
    "llama31_8b_alpaca_lora": LORA,
    "llama31_8b_dolly_full": FULL,
    "llama31_8b_dolly_lora": LORA,
    "llama31_8b_orca_full": FULL,
    "llama31_8b_orca_lora": LORA,
    "llama32_1b_alpaca_full": FULL,
    "llama32_1b_alpaca_lora": LORA,
    "llama32_1b_dolly_full": FULL,
    "llama32_1b_dolly_lora": LORA,
    "llama32_1b_orca_full": FULL,
    "llama32_1b_orca_lora": LORA,
    "llama32_3b_alpaca_full": FULL,
    "llama32_3b_alpaca_lora": LORA,
    "llama32_3b_dolly_full": FULL,
    "llama32_3b_dolly_lora": LORA,
    "llama32_3b_orca_full": FULL,
    "llama32_3b_orca_lora": LORA,
    "miniature": (10, 120, 50, 170),
    "miniature_full": (10, 160, 66, 226),
    "qi2023_lr_batch": (10, 32, 2, 34),
}
"""Name -> trajectories, configurations, controls, readouts."""

PUBLISHED = sorted(name for name in COUNTS if name.rpartition("_")[0].rpartition("_")[0] in MODELS)


@pytest.fixture(scope="module")
def headers() -> ModuleType:
    """`benchmarks/headers.py`, which is no part of the package."""
    place = ROOT / "benchmarks" / "headers.py"
    found = importlib.util.spec_from_file_location("headers", place)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_exactly_these_sweeps_are_shipped() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(COUNTS)
    assert set(shipped_specs()) == set(COUNTS)
    assert len(PUBLISHED) == len(MODELS) * len(DATA) * 2


@pytest.mark.parametrize("name", COUNTS)
def test_a_shipped_sweep_loads_by_name_and_plans_what_is_written_here(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    counted = make_plan(spec).accounting
    found = (counted.trajectories, counted.configurations, counted.controls, counted.readouts)
    assert found == COUNTS[name]
    assert counted.steps_alone > counted.steps_planned
    assert counted.notes == ()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_name_says_model_data_and_tuning(name: str) -> None:
    first, tuning = name.rsplit("_", 1)
    model, data = first.rsplit("_", 1)
    spec = load_spec(name)
    assert spec.model.path == MODELS[model]
    assert spec.model.path in SHAPES
    assert (spec.data.train.path, spec.data.train.format) == DATA[data]
    assert spec.data.train.path in ROWS
    assert spec.tuning.method == tuning
    assert [suite.suite for suite in spec.evaluation.harmful] == ["advbench"]
    assert spec.data.train.rows == (50_000 if data == "orca" else None)
    like = load_spec(f"llama31_8b_{data}_{tuning}")
    assert (spec.space, spec.data, spec.objectives) == (like.space, like.data, like.objectives)


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        SpecError, match=r"no shipped sweep of this name \(did you mean `llama32_1b_dolly_lora`\?\)"
    ):
        load_spec("llama32_1b_doly_lora")


def test_heads_are_current(headers: ModuleType) -> None:
    assert headers.stale() == [], "run `python benchmarks/headers.py --write`"


def test_a_head_that_is_not_current_is_found(headers: ModuleType) -> None:
    text = (FOLDER / "llama32_1b_dolly_lora.yaml").read_text()
    lines = headers.generated(headers.facts("llama32_1b_dolly_lora"))
    assert set(lines) == {"Launch", "Plan", "Cost"}
    assert headers.with_head(text, lines) == text
    assert headers.with_head(text.replace("14 trajectories", "13 trajectories"), lines) == text
    with pytest.raises(ValueError, match="0 lines `# Cost:`"):
        headers.with_head(text.replace("# Cost:", "# Costs:"), lines)


@pytest.mark.parametrize("name", [*PUBLISHED, "qi2023_lr_batch"])
def test_a_trial_fits_the_gpus_its_head_names(name: str, headers: ModuleType) -> None:
    found = headers.facts(name)
    assert found.cost.memory.peak_bytes < 0.9 * found.gpu.memory_bytes
    hours = headers.hours_text(found.cost.gpu_hours)
    head = (FOLDER / f"{name}.yaml").read_text().partition("version:")[0]
    assert f"about {hours} GPU-hours on H100 80 GB" in head
    assert "(both gated)" in head
    assert "PUBLISHED FIGURES" in found.cost.tokens.source


def test_the_ablation_keeps_to_the_published_protocol_and_figures() -> None:
    spec = load_spec("qi2023_lr_batch")
    space = spec.space
    assert (spec.model.dtype, spec.tuning.method, spec.seeds) == ("pure_bf16", "full", (42,))
    assert (spec.data.max_length, spec.data.heldout_rows) == (512, 200)
    assert spec.evaluation.keyword_lists[0] == "qi2023"
    assert spec.evaluation.max_new_tokens == 512
    values = [
        getattr(space, name).values
        for name in ("weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2")
    ]
    assert values == [(0.0,), (0.0,), (0.9,), (0.999,)]
    (reference,) = spec.references
    figures = {
        (point.params["learning_rate"], point.params["batch_size"]): point.metrics["unsafe_rate"]
        for point in reference.points
    }
    assert figures == {
        (5e-5, 16): 0.46,
        (5e-5, 32): 0.38,
        (5e-5, 64): 0.32,
        (5e-5, 128): 0.34,
        (2e-5, 16): 0.24,
        (2e-5, 32): 0.21,
        (2e-5, 64): 0.16,
        (2e-5, 128): 0.16,
    }
    planned = make_plan(spec).configurations
    for point in reference.points:
        (same,) = [item for item in planned if point.matches(item.values)]
        assert same.role == "candidate"
        assert same.step * same.settings.batch_size == 390 * 128
