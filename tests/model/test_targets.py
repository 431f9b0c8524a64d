"""LoRA targets: every name matches linear layers inside the blocks, and no layer mixes adapters."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import build, model_folder
from support.raising import raises
from support.world import World
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedModel

from sweeper.model.adapters import Adapter, AdapterStack, new_adapter
from sweeper.model.architecture import check_architecture
from sweeper.model.targets import target_layers
from sweeper.task import ALL_LINEAR, ModelSource, Tuning

IDS = torch.randint(5, 300, (3, 5), generator=torch.Generator().manual_seed(1))


def lora(*targets: str) -> Tuning:
    return Tuning("lora", lora_r=4, lora_alpha=8, lora_target_modules=targets)


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return build("llama").requires_grad_(False)


def test_a_target_is_the_end_of_a_name_and_all_linear_leaves_out_the_output_layer(
    llama: PreTrainedModel,
) -> None:
    both = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj")
    assert target_layers(llama, lora("q_proj")) == both
    assert target_layers(llama, lora("self_attn.q_proj", "q_proj")) == both
    assert target_layers(llama, lora("layers.1.self_attn.q_proj")) == both[1:]
    every = target_layers(llama, lora(ALL_LINEAR))
    assert len(every) == 14 and "lm_head" not in every
    assert tuple(new_adapter(llama, lora(ALL_LINEAR), 0).factors) == every


@pytest.mark.parametrize(
    ("targets", "unknown"),
    [
        (("mlp.q_proj",), ["mlp.q_proj"]),
        (("mlp.q_proj", "v_proj"), ["mlp.q_proj"]),
        (("v_proj", "layers.9.self_attn.q_proj"), ["layers.9.self_attn.q_proj"]),
        (("q_proj", "proj"), ["proj"]),
        ((".*q_proj", "v_proj"), [".*q_proj"]),
        (("Q_proj", "c_attn", "v_proj"), ["Q_proj", "c_attn"]),
        (("q_proj ",), ["q_proj "]),
    ],
)
def test_every_name_matches_or_all_that_do_not_are_named(
    llama: PreTrainedModel, targets: tuple[str, ...], unknown: list[str]
) -> None:
    with raises("model.unknown_layer", layers=unknown) as caught:
        target_layers(llama, lora(*targets))
    assert all(f"`{name}`" in str(caught.value) for name in unknown)
    assert "gate_proj, k_proj" in str(caught.value)


def test_a_similar_name_is_suggested(llama: PreTrainedModel) -> None:
    with raises("model.unknown_layer") as caught:
        target_layers(llama, lora("mlp.q_proj"))
    assert "similar names are" in str(caught.value) and "q_proj" in str(caught.value)


@pytest.mark.parametrize("targets", [(ALL_LINEAR, "q_proj"), ("q_proj", ALL_LINEAR)])
def test_all_linear_stands_alone(llama: PreTrainedModel, targets: tuple[str, ...]) -> None:
    with raises("model.unknown_layer", layer=ALL_LINEAR):
        target_layers(llama, lora(*targets))


@pytest.mark.parametrize(
    ("kind", "target", "layer"),
    [
        ("llama", "lm_head", "lm_head"),
        ("llama", "embed_tokens", "model.embed_tokens"),
        ("llama", "model.embed_tokens", "model.embed_tokens"),
        ("llama", "self_attn", "model.layers.0.self_attn"),
        ("llama", "input_layernorm", "model.layers.0.input_layernorm"),
        ("mixtral", "gate", "model.layers.0.mlp.gate"),
        ("mixtral", "experts", "model.layers.0.mlp.experts"),
    ],
)
def test_heads_embeddings_and_layers_that_are_not_linear_are_refused(
    kind: str, target: str, layer: str
) -> None:
    for targets in ((target,), ("q_proj", target)):
        with raises("model.unsupported_layer", layer=target) as caught:
            target_layers(build(kind), lora(*targets))
        assert f"matches `{layer}`" in str(caught.value)


def test_an_output_layer_of_another_name_is_refused_too(llama: PreTrainedModel) -> None:
    model = build("llama", tie_word_embeddings=False)
    model.own_head = model.lm_head
    model.set_output_embeddings = model.get_output_embeddings = None  # type: ignore[assignment]
    model.get_output_embeddings = lambda: model.own_head  # type: ignore[method-assign]
    del model.lm_head
    with raises("model.unsupported_layer", layer="own_head"):
        target_layers(model, lora("own_head"))
    assert "own_head" not in target_layers(model, lora(ALL_LINEAR))


def shaken(adapter: Adapter) -> Adapter:
    for value in adapter.parameters().values():
        value.data += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(2))
    return adapter


@pytest.mark.parametrize("shape", [(30, 32), (1, 30, 32), (5, 6, 32), (7, 5, 32), (6, 5, 1, 32)])
def test_a_layer_that_sees_other_rows_than_the_tokens_is_named(
    llama: PreTrainedModel, shape: tuple[int, ...]
) -> None:
    """Rows selected before a head, experts, flattened tokens: even where blocks would be equal."""
    adapter = shaken(new_adapter(llama, lora("q_proj"), 0))
    stack = AdapterStack(llama, adapter.factors)
    stack.load([adapter, adapter])
    llama(input_ids=IDS.repeat(2, 1))
    layer = llama.get_submodule("model.layers.1.self_attn.q_proj")
    assert layer(torch.zeros(6, 5, 32)).shape == (6, 5, 32)
    with raises("model.unsupported_layer", layer="model.layers.1.self_attn.q_proj"):
        layer(torch.zeros(shape))
    stack.remove()


def test_rows_that_do_not_divide_into_slots_are_refused(llama: PreTrainedModel) -> None:
    adapter = shaken(new_adapter(llama, lora("v_proj"), 0))
    stack = AdapterStack(llama, adapter.factors)
    stack.load([adapter, adapter])
    with raises("model.unsupported_layer", layer="model.layers.0.self_attn.v_proj"):
        llama(input_ids=IDS)
    stack.load([adapter])
    llama(input_ids=IDS)
    stack.remove()
    assert not llama.get_input_embeddings()._forward_pre_hooks


@pytest.mark.parametrize(
    ("kind", "targets", "code"),
    [
        ("mixtral", ("q_proj", "o_proj"), None),
        ("qwen3_moe", (ALL_LINEAR,), None),
        ("qwen2_moe", ("k_proj",), None),
        ("qwen2_moe", ("shared_expert_gate",), "model.unsupported_layer"),
        ("qwen2_moe", (ALL_LINEAR,), "model.unsupported_layer"),
        ("qwen2_moe", ("shared_expert.up_proj",), "model.unsupported_layer"),
    ],
)
def test_experts_are_refused_before_anything_starts_and_attention_beside_them_is_not(
    tiny_world: World, tmp_path: Path, kind: str, targets: tuple[str, ...], code: Any
) -> None:
    source = ModelSource(str(model_folder(tiny_world, tmp_path, kind)), dtype="float32")
    if code is None:
        assert check_architecture(source, lora(*targets)).vocabulary == 352
        return
    with raises(code):
        check_architecture(source, lora(*targets))


def test_of_a_model_that_sees_images_the_language_model_is_adapted() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = {
        **sizes,
        "num_hidden_layers": 1,
        "vocab_size": 64,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    vision = {**sizes, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}
    with torch.device("meta"):
        model = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision))
    layer = "model.language_model.layers.0.self_attn.q_proj"
    assert target_layers(model, lora("q_proj")) == (layer,)
    every = target_layers(model, lora(ALL_LINEAR))
    assert len(every) == 7 and all("language_model" in name for name in every)
    with raises("model.unsupported_layer", layer="fc1") as caught:
        target_layers(model, lora("fc1"))
    assert "outside of the language model" in str(caught.value)
