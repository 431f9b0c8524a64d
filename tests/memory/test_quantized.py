"""The memory model of weights in 4 bits and moments in 8 against what bitsandbytes holds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.factories import make_spec
from support.shapes import PUBLISHED, facts

pytest.importorskip("bitsandbytes")

from transformers import LlamaConfig, LlamaForCausalLM

from sweeper.errors import DeviceError
from sweeper.estimate import GPUS, Tokens, memory_facts
from sweeper.estimate.inputs import Machine
from sweeper.estimate.preflight import check_memory
from sweeper.estimate.rates import analytic_rates
from sweeper.memory import (
    USABLE_SHARE,
    ModelShape,
    base_bytes,
    memory,
    moment_bytes,
    nf4_bytes,
    shape_of,
    state_bytes,
)
from sweeper.model.adapters import new_adapter
from sweeper.model.load import load_model
from sweeper.planning import make_plan
from sweeper.task import ADAMW, ALL_LINEAR, ModelSource, OptimizerSettings, Tuning
from sweeper.trial.optimizers import make_optimizer

CPU = torch.device("cpu")
EIGHT_B = PUBLISHED["Llama-3.1-8B"][0]
QLORA = Tuning("qlora", lora_r=16, lora_target_modules=(ALL_LINEAR,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    LlamaForCausalLM(config_of()).save_pretrained(path)
    return path


def config_of() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=500,
        hidden_size=128,
        intermediate_size=328,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


def shape() -> ModelShape:
    return shape_of(config_of().to_dict())


def stored(*tensors: torch.Tensor) -> int:
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize(("dtype", "held"), [("mixed_bf16", 2), ("float32", 4)])
def test_the_weights_are_counted_as_they_are_held(folder: Path, dtype: str, held: int) -> None:
    model = load_model(ModelSource(str(folder), dtype=dtype), CPU, quantized=True)
    tensors: list[Any] = list(model.parameters())
    for parameter in model.parameters():
        state: Any = getattr(parameter, "quant_state", None)
        if state is not None:
            own = (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
            tensors += own
            weights = state.shape.numel()
            assert nf4_bytes(weights) == parameter.nbytes + sum(part.nbytes for part in own)
    found, expected = stored(*tensors), base_bytes(shape(), QLORA, held)
    print(f"{dtype}: {found} bytes, by the formula {expected}")
    assert expected == found
    assert base_bytes(shape(), Tuning("lora"), held) == shape().parameters * held


def test_a_weight_takes_4_127_bits() -> None:
    many = 4096 * 14336
    assert 8 * nf4_bytes(many) / many == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=2e-4)
    assert nf4_bytes(65) == 33 + 2 + 4 + 4 * 273


@pytest.mark.parametrize("optim", [ADAMW, "adamw_8bit"])
@pytest.mark.parametrize("rank", [4, 32, 64])
@pytest.mark.parametrize("dora", [False, True])
def test_moments_of_adapters_are_counted_as_they_are_held(
    folder: Path, optim: str, rank: int, dora: bool
) -> None:
    tuning = Tuning("qlora", rank, lora_target_modules=(ALL_LINEAR,), use_dora=dora)
    model = load_model(ModelSource(str(folder)), CPU, quantized=True)
    weights = new_adapter(model, tuning, seed=0).parameters()
    assert held_moments(weights, optim) == moment_bytes(shape(), tuning, 4, optim)


def held_moments(weights: dict[str, Any], optim: str, *embeddings: str) -> int:
    """The bytes of an optimizer's state after a step, without what the whole optimizer shares."""
    for value in weights.values():
        value.grad = torch.ones_like(value)
    optimizer = make_optimizer(weights, OptimizerSettings(1e-3, 8, optim=optim), embeddings)
    optimizer.step()
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step" and not name.startswith("qmap")
    )


def test_moments_of_full_tuning_are_counted_within_a_thousandth(folder: Path) -> None:
    model = load_model(ModelSource(str(folder)), CPU)
    weights = dict(model.named_parameters())
    found = held_moments(weights, "adamw_8bit", "model.embed_tokens.weight")
    expected = moment_bytes(shape(), Tuning("full"), 4, "adamw_8bit")
    assert expected == pytest.approx(found, rel=0.01)
    assert moment_bytes(shape(), Tuning("full"), 4, ADAMW) == 8 * shape().parameters


def test_paged_moments_may_leave_a_gpu_and_no_cpu() -> None:
    tuning = Tuning("qlora", lora_r=64, lora_target_modules=("q_proj", "k_proj"))
    whole = moment_bytes(EIGHT_B, tuning, 4, "paged_adamw_8bit")
    assert whole == moment_bytes(EIGHT_B, tuning, 4, "adamw_8bit")
    # Tensors of 64 * 4096 weights leave; those of 64 * 1024 are too small.
    small = 32 * (2 * 65536 + 8 * 256)
    assert moment_bytes(EIGHT_B, tuning, 4, "paged_adamw_8bit", resident=True) == small
    given: dict[str, Any] = {"shape": EIGHT_B, "tuning": tuning, "dtype": "mixed_bf16"}
    on_gpu = memory(facts(**given, optim="paged_adamw_8bit"))
    on_cpu = memory(facts(**given, optim="paged_adamw_8bit", device="cpu"))
    assert (on_gpu.moments, on_cpu.moments) == (small, whole)
    assert whole < memory(facts(**given)).moments / 3


def test_a_checkpoint_holds_what_the_optimizer_holds() -> None:
    trained = EIGHT_B.trainable(QLORA)
    eight = moment_bytes(EIGHT_B, QLORA, 4, "adamw_8bit")
    assert state_bytes(EIGHT_B, QLORA, "mixed_bf16", 2) == (12 + 8) * trained
    assert state_bytes(EIGHT_B, QLORA, "mixed_bf16", 2, "adamw_8bit") == 12 * trained + eight


def eight_b(**changes: Any) -> int:
    """The peak of training Llama-3.1-8B on rows of 512 tokens, one at a time, in bytes."""
    given: dict[str, Any] = {
        "shape": EIGHT_B,
        "tuning": QLORA,
        "dtype": "mixed_bf16",
        "shadows": 1,
        "interpolates": False,
        "train_rows": 1,
        "train_length": 512,
        "evaluation_rows": 16,
        "heldout_length": 512,
        "generation_length": 384,
    }
    return memory(facts(**{**given, **changes})).peak_bytes


def test_8b_fits_a_card_of_24_gb_in_4_bits_and_not_in_16() -> None:
    lora = Tuning("lora", lora_r=16, lora_target_modules=(ALL_LINEAR,))
    assert eight_b() < 0.65 * 24e9
    assert eight_b(tuning=lora) > USABLE_SHARE * 24e9
    assert eight_b(base_weights="unquantized") > 24e9
    assert eight_b(base_weights="unquantized") - eight_b() == 2 * EIGHT_B.parameters


def test_the_plan_counts_method_optimizer_and_scored_base() -> None:
    plain = make_spec("tuning={method: qlora}", "model.dtype=mixed_bf16")
    other = make_spec(
        "tuning={method: qlora}",
        "space.optim=adamw_8bit",
        "evaluation.base_weights=unquantized",
    )
    tokens = Tokens(80, 512, 256, 256 * 40.0, 200, 256 * 64, 5e4, "test")
    found = [
        memory_facts(make_plan(spec).trajectories[-1], spec, EIGHT_B, tokens, "cuda")
        for spec in (plain, other)
    ]
    assert [(item.optim, item.base_weights) for item in found] == [
        (ADAMW, "4bit"),
        ("adamw_8bit", "unquantized"),
    ]


def test_a_refusal_proposes_4_bits(tmp_path: Path) -> None:
    shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    LlamaConfig.from_dict({**shape, **heads}).save_pretrained(tmp_path)
    tokens = Tokens(80, 512, 32, 32 * 40.0, 100, 32 * 64, 5e4, "test")
    card = GPUS[0]
    assert card.memory_bytes == 24 * 10**9
    for method, proposed in (("full", True), ("lora", True)):
        spec = make_spec(
            f"tuning={{method: {method}}}", "model.dtype=float32", "evaluation.batch_size=16"
        )
        with pytest.raises(DeviceError) as error:
            check_memory(make_plan(spec), spec, str(tmp_path), tokens, Machine((card,), 8))
        assert ("`tuning.method: qlora`" in str(error.value)) is proposed
    spec = make_spec("tuning={method: qlora}", "model.dtype=mixed_bf16", "evaluation.batch_size=16")
    check_memory(make_plan(spec), spec, str(tmp_path), tokens, Machine((card,), 8))


def test_expanding_the_weights_takes_time_in_every_pass() -> None:
    tokens = Tokens(80, 512, 32, 32 * 40.0, 100, 32 * 64, 5e4, "test")
    lora = Tuning("lora", lora_r=16, lora_target_modules=(ALL_LINEAR,))
    plain, held = (
        analytic_rates(EIGHT_B, tuning, "mixed_bf16", GPUS[0], tokens, 32)
        for tuning in (lora, QLORA)
    )
    assert held.step_seconds > plain.step_seconds
    assert held.generate_token_seconds > plain.generate_token_seconds
    assert held.load_seconds == plain.load_seconds
