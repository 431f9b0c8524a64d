"""Decoder-only architectures through the real trial: shared, packed and alone give the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from support.architectures import model_folder
from support.trials import run_all, run_together
from support.world import World, spec_text
from transformers import GenerationConfig

from sweeper.model.load import load_model, load_tokenizer
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.generate import Generator, Request
from sweeper.scoring.inputs import load_inputs, preflight
from sweeper.spec import parse_spec
from sweeper.task import ALL_LINEAR, TrajectoryTask

KINDS = ("llama", "mistral", "qwen3", "gemma3_text", "phi3", "qwen3_moe")
TARGETS = {"phi3": ["qkv_proj", "down_proj"], "qwen3_moe": ["q_proj", "o_proj"]}


def tasks_of(world: World, folder: Path, kind: str, **tuning: object) -> list[TrajectoryTask]:
    """Two trajectories of four readouts each, on the CPU."""
    raw = yaml.safe_load(spec_text(replace(world, model=folder)))
    raw["tuning"] |= {"lora_target_modules": TARGETS.get(kind, [ALL_LINEAR])} | tuning
    averages = ["raw", {"kind": "ema", "decay": 0.5}, {"kind": "interpolate", "weight": 0.5}]
    raw["space"] |= {"max_steps": 2, "average": {"values": averages}}
    spec = parse_spec(yaml.safe_dump(raw))
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    return [task for task in tasks if task.readouts[0].role == "candidate"]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tiny_world: World, tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    return model_folder(tiny_world, tmp_path_factory.mktemp("model"), kind)


def test_lora_readouts_are_the_same_shared_packed_and_alone(
    tiny_world: World, folder: Path, kind: str, tmp_path: Path
) -> None:
    first, second = tasks_of(tiny_world, folder, kind)
    preflight(first)
    shared = run_all(first, tmp_path / "shared")
    assert len(shared) == 4
    assert all(record.status == "complete" for record in shared.values()), shared
    losses = {record.metrics["heldout_loss"].value for record in shared.values()}
    assert len(losses) >= 3
    for readout in first.readouts:
        alone = run_all(replace(first, readouts=(readout,)), tmp_path / readout.config_id)
        (one,), same = alone.values(), shared[readout.config_id]
        assert one.metrics == same.metrics
        assert one.provenance["weights_sha256"] == same.provenance["weights_sha256"]
    packed = run_together([first, second], tmp_path / "pack")
    for config_id, record in shared.items():
        both = packed[config_id]
        assert "pack_failed" not in both.provenance["shared"]
        assert len(both.provenance["shared"]["trained_with"]) == 1
        for name, metric in record.metrics.items():
            assert both.metrics[name].value == pytest.approx(metric.value, rel=1e-5), name


def test_full_readouts_are_the_same_shared_and_alone(
    tiny_world: World, folder: Path, kind: str, tmp_path: Path
) -> None:
    first, _ = tasks_of(tiny_world, folder, kind, method="full")
    preflight(first)
    shared = run_all(first, tmp_path / "shared")
    readout = first.readouts[-1]
    (one,) = run_all(replace(first, readouts=(readout,)), tmp_path / "alone").values()
    same = shared[readout.config_id]
    assert (one.status, one.metrics) == ("complete", same.metrics)
    assert one.provenance["weights_sha256"] == same.provenance["weights_sha256"]


def test_responses_are_those_of_transformers(tiny_world: World, folder: Path, kind: str) -> None:
    task = tasks_of(tiny_world, folder, kind)[0]
    model = load_model(task.model, torch.device("cpu"), frozen=True)
    tokenizer = load_tokenizer(task.model)
    prompts = [ids for suite in load_inputs(task).suites for ids in suite.tokens]
    generator = Generator(
        tokenizer, [Request(ids) for ids in prompts], max_new_tokens=8, batch_size=8
    )
    (found,) = generator.answer(model)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=8,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    for response, ids in zip(found, prompts, strict=True):
        output = model.generate(torch.tensor([ids]), generation_config=settings)  # type: ignore[operator]
        tokens = output[0, len(ids) :].tolist()
        assert response.text == tokenizer.decode(tokens, skip_special_tokens=True)
