"""Adapters in slots compute what peft's own layers compute."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.world import World, spec_text
from transformers import PreTrainedModel

from sweeper.model.adapters import (
    Adapter,
    AdapterStack,
    InputShape,
    StackedAdapters,
    StackedLinear,
    new_adapter,
)
from sweeper.model.load import load_model
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import ALL_LINEAR, ModelSource, Tuning
from sweeper.trial.run import run_trajectory

CPU = torch.device("cpu")
TARGETS = ("q_proj", "v_proj", "down_proj")
KINDS = [
    {},
    {"use_rslora": True},
    {"use_dora": True},
    {"use_dora": True, "use_rslora": True},
    {"lora_target_modules": (ALL_LINEAR,), "use_dora": True},
]


def tuning_of(**changes: Any) -> Tuning:
    return Tuning(
        "lora", **{"lora_r": 4, "lora_alpha": 12, "lora_target_modules": TARGETS, **changes}
    )


def model_of(world: World) -> PreTrainedModel:
    source = ModelSource(str(world.model), dtype="float32")
    return load_model(source, CPU).requires_grad_(False)


def shaken(adapter: Adapter, seed: int) -> Adapter:
    """The adapter with weights that are not at their start, where B is zero."""
    generator = torch.Generator().manual_seed(seed)
    for value in adapter.parameters().values():
        value.data += 0.05 * torch.randn(value.shape, generator=generator)
    return adapter


def peft_outcome(
    world: World, tuning: Tuning, adapter: Adapter, ids: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits and gradients of peft's own model with the same factors."""
    names = tuning.lora_target_modules
    config = LoraConfig(
        r=tuning.lora_r,
        lora_alpha=int(tuning.lora_alpha),
        target_modules=names[0] if names == (ALL_LINEAR,) else list(names),
        use_rslora=tuning.use_rslora,
        use_dora=tuning.use_dora,
        task_type="CAUSAL_LM",
    )
    wrapped: Any = get_peft_model(model_of(world), config)
    found = dict(wrapped.named_parameters())
    places = {}
    for name, value in adapter.parameters().items():
        key = f"base_model.model.{name}.default.weight"
        found[key].data.copy_(value.data)
        places[name] = found[key]
    logits = wrapped(input_ids=ids).logits
    logits.square().mean().backward()
    gradients = {name: value.grad for name, value in places.items()}
    return logits.detach(), gradients


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_slot_computes_what_peft_computes(tiny_world: World, changes: dict[str, Any]) -> None:
    tuning = tuning_of(**changes)
    ids = torch.randint(5, 300, (3, 9), generator=torch.Generator().manual_seed(1))
    model = model_of(tiny_world)
    adapters = [shaken(new_adapter(model, tuning, seed), seed) for seed in (1, 2)]
    slots = AdapterStack(model, adapters[0].factors)
    slots.load(adapters)
    logits = model(input_ids=ids.repeat(2, 1)).logits
    (logits[:3].square().mean() + logits[3:].square().mean()).backward()
    for number, adapter in enumerate(adapters):
        expected, gradients = peft_outcome(tiny_world, tuning, adapter, ids)
        torch.testing.assert_close(
            logits[3 * number : 3 * number + 3], expected, rtol=1e-5, atol=2e-6
        )
        assert set(gradients) == set(adapter.parameters())
        adapter.flat.share_gradient()
        for name, value in adapter.parameters().items():
            assert value.grad is not None
            torch.testing.assert_close(value.grad, gradients[name], rtol=1e-4, atol=1e-8)
    slots.remove()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_written_out_are_those_of_autograd(bias: bool, dtype: torch.dtype) -> None:
    """A base in fp32 takes the written-out way, one in fp64 below its fp32 adapters the general one."""
    torch.manual_seed(4)
    slots, rows, length, rank = 3, 6, 5, 2
    tokens = InputShape()
    tokens.rows, tokens.length = rows, length
    layer = StackedLinear(torch.nn.Linear(8, 7, bias=bias).to(dtype), "layer", tokens)
    layer.base.requires_grad_(False)
    down, up = torch.randn(slots, rank, 8), torch.randn(slots, 7, rank)
    scaling = torch.tensor([0.5, 1.0, 2.0])[:, None, None]
    x, weigh = torch.randn(rows, length, 8, dtype=dtype), torch.randn(rows, length, 7, dtype=dtype)
    leaves = [part.requires_grad_() for part in (x, down, up)]
    layer.stacked = StackedAdapters(down, up, scaling)
    y = layer(x)
    assert ("AdaptedLinear" in y.grad_fn.next_functions[0][0].name() + y.grad_fn.name()) == (
        dtype == torch.float32
    )
    found = torch.autograd.grad((y * weigh).sum(), leaves)
    blocks = x.view(slots, -1, 8).float()
    product = torch.einsum("sti,sri,sor->sto", blocks, down, scaling * up)
    expected = layer.base(x) + product.reshape(rows, length, 7)
    torch.testing.assert_close(y, expected.to(dtype), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(
        found, torch.autograd.grad((expected * weigh).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_fresh_dora_adapter_is_the_base_model(tiny_world: World) -> None:
    model = model_of(tiny_world)
    ids = torch.randint(5, 300, (2, 7), generator=torch.Generator().manual_seed(3))
    plain = model(input_ids=ids).logits
    adapter = new_adapter(model, tuning_of(use_dora=True), seed=0)
    assert [len(parts) for parts in adapter.factors.values()] == [3] * 6
    slots = AdapterStack(model, adapter.factors)
    slots.load([adapter])
    torch.testing.assert_close(model(input_ids=ids).logits, plain, rtol=1e-5, atol=1e-6)
    slots.remove()


def test_dropout_is_a_function_of_the_seed_the_layer_and_the_micro_batch(tiny_world: World) -> None:
    model = model_of(tiny_world)
    adapter = shaken(new_adapter(model, tuning_of(lora_dropout=0.5), seed=0), 0)
    ids = torch.randint(5, 300, (2, 7), generator=torch.Generator().manual_seed(3))
    slots = AdapterStack(model, adapter.factors)
    slots.load([adapter], seeds=[11])
    first = model(input_ids=ids).logits
    again = model(input_ids=ids).logits
    slots.set_micro_batch(1)
    second = model(input_ids=ids).logits
    slots.load([adapter], seeds=[12])
    other = model(input_ids=ids).logits
    assert torch.equal(first, again)
    assert not torch.equal(first, second) and not torch.equal(first, other)
    slots.remove()


def trained(world: World, root: Path, *overrides: str) -> dict[str, TrialRecord]:
    spec = parse_spec(
        spec_text(world),
        overrides=["space.learning_rate=0.01", "compute.micro_batch_size=2", *overrides],
    )
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    task = next(task for task in tasks if task.readouts[0].role == "candidate")
    records = run_trajectory(task, TrialStorage(root, task.trajectory_id))
    found = {record.config_id: record for record in records}
    assert {record.status for record in found.values()} == {"complete"}, found
    return found


def hashes(records: dict[str, TrialRecord]) -> list[str]:
    return [str(record.provenance["weights_sha256"]) for record in records.values()]


@pytest.mark.parametrize(
    "override",
    ["tuning.lora_dropout=0.3", "tuning={method: full}", "tuning={method: lora, use_dora: true}"],
)
def test_gradient_checkpointing_changes_no_bit(
    tiny_world: World, tmp_path: Path, override: str
) -> None:
    plain = trained(tiny_world, tmp_path / "plain", override)
    saving = trained(
        tiny_world, tmp_path / "saving", override, "compute.gradient_checkpointing=true"
    )
    assert hashes(plain) == hashes(saving)
    again = trained(tiny_world, tmp_path / "again", override)  # It is switched off again.
    assert hashes(again) == hashes(plain)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs the compiler g++")
@pytest.mark.parametrize("override", ["tuning.lora_dropout=0.0", "tuning={method: full}"])
def test_torch_compile_changes_rounding_only(
    tiny_world: World, tmp_path: Path, override: str
) -> None:
    short = (override, "space.max_steps=2", "compute.micro_batch_size=4")
    plain = trained(tiny_world, tmp_path / "plain", *short)
    compiled = trained(tiny_world, tmp_path / "compiled", *short, "compute.torch_compile=true")
    assert set(plain) == set(compiled)
    for config_id, record in compiled.items():
        for name, metric in record.metrics.items():
            assert metric.value == pytest.approx(plain[config_id].metrics[name].value, rel=1e-4)


def test_kinds_of_adapters_are_different_configurations(tiny_world: World, tmp_path: Path) -> None:
    plain = trained(tiny_world, tmp_path / "plain")
    scaled = trained(tiny_world, tmp_path / "scaled", "tuning.use_rslora=true")
    dora = trained(tiny_world, tmp_path / "dora", "tuning.use_dora=true")
    assert not set(plain) & set(scaled) and not set(plain) & set(dora)
    assert not set(hashes(plain)) & set(hashes(scaled))
    assert all(record.config["use_dora"] is True for record in dora.values())
