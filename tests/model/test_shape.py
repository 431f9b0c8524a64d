"""The shape of any decoder-only model is that of its modules."""

import json
from pathlib import Path

import pytest
import torch
from support.architectures import ARCHITECTURES, build, model_folder
from support.command import Command
from support.raising import raises
from support.world import World

from sweeper.memory import activation_bytes
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.shape import known_shape, model_shape
from sweeper.task import ALL_LINEAR, ModelSource, Tuning

DENSE = ("llama", "mistral", "qwen3", "gemma3_text", "phi3")


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_weights_and_adapters_are_counted_as_they_are(
    kind: str, tiny_world: World, tmp_path: Path
) -> None:
    model = build(kind)
    shape = known_shape(ModelSource(str(model_folder(tiny_world, tmp_path, kind))))
    assert shape == model_shape(model)
    assert shape.parameters == sum(value.numel() for value in model.parameters())
    names = ("qkv_proj", "o_proj") if kind == "phi3" else ("k_proj", "o_proj")
    tuning = Tuning("lora", lora_r=3, lora_target_modules=names)
    adapter = new_adapter(model, tuning, seed=0)
    assert shape.trainable(tuning) == sum(v.numel() for v in adapter.parameters().values())
    assert shape.vocabulary == 352 and shape.layers == 2
    if kind in DENSE:
        every = Tuning("lora", lora_r=3, lora_target_modules=(ALL_LINEAR,))
        counted = sum(v.numel() for v in new_adapter(model, every, 0).parameters().values())
        assert shape.trainable(every) == counted


def test_a_model_without_heads_has_no_estimate(tmp_path: Path) -> None:
    with raises("model.unreadable"):
        config = {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
        (tmp_path / "config.json").write_text(json.dumps(config))
        known_shape(ModelSource(str(tmp_path)))


def saved_bytes(kind: str, tuning: Tuning, rows: int) -> int:
    """What autograd keeps for the backward pass, weights left out."""
    model = build(kind).train().requires_grad_(tuning.method == "full")
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    if tuning.method == "lora":
        adapter = new_adapter(model, tuning, seed=0)
        stack = AdapterStack(model, adapter.factors)
        stack.load([adapter], seeds=[0])
        weights |= {v.untyped_storage().data_ptr() for v in adapter.parameters().values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, 50, (rows, 32), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.get_decoder()(input_ids=ids, use_cache=False)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", DENSE)
def test_the_estimate_of_activations_is_near_what_autograd_keeps(kind: str, method: str) -> None:
    names = ("qkv_proj",) if kind == "phi3" else ("q_proj", "v_proj")
    tuning = Tuning("lora" if method == "lora" else "full", lora_target_modules=names)
    measured = (saved_bytes(kind, tuning, 8) - saved_bytes(kind, tuning, 4)) / (4 * 32)
    estimated = activation_bytes(model_shape(build(kind)), tuning, "float32")
    assert 0.88 <= estimated / measured <= 1.12


def test_plan_estimates_other_families_than_llama(
    command: Command, sweep: Path, tiny_world: World, tmp_path: Path
) -> None:
    folder = model_folder(tiny_world, tmp_path / "model", "qwen3")
    code, out, err = command("plan", sweep, "--set", f"model.path={folder}")
    assert (code, err) == (0, "")
    assert "no estimate" not in out
