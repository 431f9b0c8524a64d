"""QLoRA: adapters over one base in 4 bits, alone, in packs and in readouts; 8-bit moments."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trials import run_all, run_together, spec_with, task_of, tasks_of
from support.world import World, spec_text

pytest.importorskip("bitsandbytes")

from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from sweeper.data.encode import Encoded
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.batches import RowOrder, collate
from sweeper.model.load import load_model, resident_model
from sweeper.model.quantized import plain_weight
from sweeper.planning import make_packs
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import ALL_LINEAR, ModelSource, OptimizerSettings, Segment, TrajectoryTask, Tuning
from sweeper.trial.optimizers import make_optimizer
from sweeper.trial.run import run_pack
from sweeper.trial.train import PathTrainer, learning_rate_schedule, step_together

CPU = torch.device("cpu")
QLORA = ("tuning.method=qlora", "model.dtype=mixed_bf16")
EVERYTHING = Tuning("qlora", 4, 8.0, lora_target_modules=(ALL_LINEAR,))


def source_of(world: World, dtype: str = "mixed_bf16") -> ModelSource:
    return ModelSource(str(world.model), dtype=dtype)


def ids(rows: int = 4, length: int = 9) -> torch.Tensor:
    return torch.randint(5, 300, (rows, length), generator=torch.Generator().manual_seed(1))


def rows_of(world: World) -> list[Encoded]:
    return list(load_inputs(task_of(world, *QLORA)).data.train)


def hashes(records: dict[str, TrialRecord]) -> dict[str, str]:
    assert {record.status for record in records.values()} == {"complete"}
    return {key: record.provenance["weights_sha256"] for key, record in records.items()}


def sibling_tasks(world: World, *overrides: str) -> list[TrajectoryTask]:
    rates = "space.learning_rate={values: [1.0e-3, 8.0e-3]}"
    spec = parse_spec(spec_text(world), overrides=[rates, *QLORA, *overrides])
    return [task for task in tasks_of(spec) if task.readouts[0].role == "candidate"]


# -- The base in 4 bits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "mixed_bf16", "pure_bf16"])
def test_linear_layers_are_nf4_with_double_quantisation_and_the_rest_is_not(
    tiny_world: World, dtype: str
) -> None:
    model = load_model(source_of(tiny_world, dtype), CPU, quantized=True)
    held = torch.float32 if dtype == "float32" else torch.bfloat16
    blocks = [m for n, m in model.named_modules() if n.endswith("_proj")]
    assert len(blocks) == 14
    for layer in blocks:
        state = layer.weight.quant_state
        assert (layer.weight.dtype, state.quant_type, state.nested) == (torch.uint8, "nf4", True)
        assert layer.compute_dtype == held
    others = {p.dtype for n, p in model.named_parameters() if "_proj" not in n}
    assert others == {held}
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_scoring_leaves_gradients_and_numbers_of_training_as_they_are(tiny_world: World) -> None:
    """bitsandbytes repacks weights in scoring on some CPUs, after which no gradient passes a layer."""
    model = load_model(source_of(tiny_world), CPU, quantized=True)
    adapter = new_adapter(model, EVERYTHING, seed=0)
    stack = AdapterStack(model, adapter.factors)

    def gradients() -> list[torch.Tensor]:
        model.train()
        stack.load([adapter])
        model(ids()).logits.float().square().mean().backward()
        found, adapter.flat.row.grad = adapter.flat.row.grad, None
        assert found is not None
        return adapter.flat.split(found)

    before = gradients()
    model.eval()
    with torch.no_grad():
        scored = model(ids()).logits
    model.train()
    torch.testing.assert_close(model(ids()).logits, scored, rtol=0, atol=0)
    after = gradients()
    assert len(before) == len(after) == 28
    assert float(before[1].abs().sum()) > 0  # A zero A-side: B starts at zero.
    assert all(torch.equal(left, right) for left, right in zip(before, after, strict=True))
    stack.remove()


def test_an_adapter_starts_where_one_of_lora_starts(tiny_world: World) -> None:
    plain = load_model(source_of(tiny_world), CPU, frozen=True)
    held = load_model(source_of(tiny_world), CPU, quantized=True)
    names = [name for name, _ in held.named_modules()]
    left = new_adapter(plain, replace(EVERYTHING, method="lora"), seed=3).parameters()
    right = new_adapter(held, EVERYTHING, seed=3).parameters()
    assert list(left) == list(right)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert [name for name, _ in held.named_modules()] == names  # peft's wrappers are gone again.


def test_the_plain_weight_is_what_a_layer_multiplies_with(tiny_world: World) -> None:
    model = load_model(source_of(tiny_world), CPU, quantized=True)
    layer: Any = model.get_submodule("model.layers.0.mlp.down_proj")
    weight = plain_weight(layer)
    assert weight.shape == (layer.out_features, layer.in_features)
    x = torch.randn(3, layer.in_features, dtype=torch.bfloat16)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, weight))
    plain = load_model(source_of(tiny_world), CPU, frozen=True)
    other: Any = plain.get_submodule("model.layers.0.mlp.down_proj")
    own = other.weight.float()
    error = (weight.float() - own).norm() / own.norm()
    assert 0.05 < float(error) < 0.15  # NF4 rounds normal weights by about a tenth.


# -- Against peft ------------------------------------------------------------------------------------------


def ours(
    world: World, tuning: Tuning, settings: OptimizerSettings, steps: int, dtype: str
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and factors of our own loop."""
    rows = rows_of(world)
    model = load_model(source_of(world, dtype), CPU, quantized=True)
    adapter = new_adapter(model, tuning, seed=3)
    trainer = PathTrainer(adapter.parameters(), settings, [])
    stack = AdapterStack(model, adapter.factors)
    order, schedule = (
        RowOrder(len(rows), 8, 3),
        learning_rate_schedule(settings, Segment(0, steps, steps)),
    )
    model.train()
    for step in range(steps):
        stack.load([adapter])
        batch = collate([[rows[i] for i in order.batch(step)]], 0)
        step_together(model, [trainer], [batch], [schedule], autocast=autocast(dtype))
    stack.remove()
    return trainer.losses, {n: p.detach().clone() for n, p in adapter.parameters().items()}


def autocast(dtype: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "mixed_bf16")


def with_peft(
    world: World, tuning: Tuning, settings: OptimizerSettings, steps: int, dtype: str
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same with transformers' and peft's own QLoRA, on the same rows."""
    rows = rows_of(world)
    held = torch.bfloat16 if dtype == "mixed_bf16" else torch.float32
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=held,
    )
    base = AutoModelForCausalLM.from_pretrained(
        world.model, dtype=held, quantization_config=config, attn_implementation="sdpa"
    )
    torch.manual_seed(3)
    lora = LoraConfig(
        r=tuning.lora_r,
        lora_alpha=int(tuning.lora_alpha),
        target_modules=ALL_LINEAR,
        use_dora=tuning.use_dora,
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base, lora)
    assert any(
        type(m).__name__ == "Linear4bit" for m in model.modules() if isinstance(m, LoraLayer)
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, settings.learning_rate, weight_decay=0.0, eps=1e-8)
    order, losses = RowOrder(len(rows), 8, 3), []
    model.train()
    for step in range(steps):
        batch = [rows[i] for i in order.batch(step)]
        width = max(len(row.prompt) + len(row.completion) for row in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        labels, mask = torch.full_like(tokens, -100), torch.zeros_like(tokens)
        for place, row in enumerate(batch):
            whole = [*row.prompt, *row.completion]
            tokens[place, : len(whole)] = torch.tensor(whole)
            mask[place, : len(whole)] = 1
            labels[place, len(row.prompt) : len(whole)] = torch.tensor(row.completion)
        with autocast(dtype):
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    found = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            key = name.removeprefix("base_model.model.").replace(".default", "")
            found[key.removesuffix(".weight")] = value.detach()
    return losses, found


@pytest.mark.parametrize(
    ("dtype", "dora", "loss_bound", "way_bound"),
    [
        ("float32", False, 1e-5, 1e-3),
        ("float32", True, 1e-5, 1e-3),
        ("mixed_bf16", False, 2e-4, 0.03),
    ],
)
def test_losses_and_factors_are_those_of_peft_on_the_same_rows(
    tiny_world: World, dtype: str, dora: bool, loss_bound: float, way_bound: float
) -> None:
    tuning = replace(EVERYTHING, use_dora=dora)
    settings = OptimizerSettings(5e-3, 8)
    mine, factors = ours(tiny_world, tuning, settings, 15, dtype)
    theirs, expected = with_peft(tiny_world, tuning, settings, 15, dtype)
    assert mine[-1] < mine[0] - 0.3
    worst = max(abs(a - b) / b for a, b in zip(mine, theirs, strict=True))
    assert set(factors) == set(expected)
    start = new_adapter(load_model(source_of(tiny_world, dtype), CPU, quantized=True), tuning, 3)
    way = sum(
        float((factors[n] - v.detach()).square().sum()) for n, v in start.parameters().items()
    )
    apart = sum(float((factors[n] - expected[n].float()).square().sum()) for n in factors)
    print(f"{dtype} dora={dora}: loss {worst:.2e}, way {(apart / way) ** 0.5:.2e}")
    assert worst < loss_bound
    assert (apart / way) ** 0.5 < way_bound


@pytest.mark.parametrize("dora", [False, True])
def test_layers_with_biases_add_each_slot_its_own_adapter(tmp_path: Path, dora: bool) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    plain = Qwen2ForCausalLM(config)
    for name, value in plain.named_parameters():
        if name.endswith("bias"):
            value.data.normal_()
    plain.save_pretrained(tmp_path)
    model = load_model(ModelSource(str(tmp_path), dtype="float32"), CPU, quantized=True)
    adapters = [new_adapter(model, replace(EVERYTHING, use_dora=dora), seed) for seed in (1, 2)]
    for adapter in adapters:
        for value in adapter.parameters().values():
            value.data += 0.05 * torch.randn(value.shape)
    stack = AdapterStack(model, adapters[0].factors)
    tokens = ids(rows=16) % 300
    with torch.no_grad():
        stack.load(adapters)
        together = model(tokens.repeat(2, 1)).logits
        for slot, adapter in enumerate(adapters):
            stack.load([adapter])
            alone = model(tokens).logits
            torch.testing.assert_close(
                together[16 * slot : 16 * slot + 16], alone, rtol=1e-5, atol=1e-5
            )
    assert float((together[:16] - together[16:]).abs().max()) > 0.01
    stack.remove()


# -- Sharing -----------------------------------------------------------------------------------------------


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("space.max_steps={values: [2, 4]}",), id="plain"),
        pytest.param(("tuning.use_dora=true", "tuning.lora_dropout=0.2"), id="dora", marks=SLOW),
        pytest.param(
            ("space.optim={values: [adamw_torch_fused, adamw_8bit]}", "tuning.lora_r=128"),
            id="8bit",
            marks=SLOW,
        ),
    ],
)
def test_packs_over_one_base_equal_their_members_alone_bit_for_bit(
    tiny_world: World, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    tasks = sibling_tasks(tiny_world, *overrides)
    (pack,) = make_packs(tasks, "auto", workers=1)
    assert len(pack) == len(tasks) == (4 if "optim" in overrides[0] else 2)
    packed = run_together(tasks, tmp_path / "pack")
    alone: dict[str, TrialRecord] = {}
    for task in tasks:
        alone |= run_all(task, tmp_path / "alone")
    assert hashes(packed) == hashes(alone)
    assert len(set(hashes(packed).values())) == len(packed)
    for key, record in packed.items():
        assert record.metrics == alone[key].metrics
        assert record.provenance["quantization"] == {
            "trained_on": "nf4, double quantisation",
            "scored_on": "4bit",
        }


def test_readouts_scored_together_equal_those_scored_one_at_a_time(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages = (
        "space.average={values: [raw, {kind: ema, decay: 0.5}, {kind: interpolate, weight: 0.5}]}"
    )
    task = task_of(tiny_world, *QLORA, "space.learning_rate=0.01", averages)
    together = run_all(task, tmp_path / "together")
    monkeypatch.setattr("sweeper.scoring.score.Scorer.readouts_together", lambda *args: 1)
    single = run_all(task, tmp_path / "single")
    assert {r.provenance["shared"]["scored_together"] for r in single.values()} == {1}
    assert max(r.provenance["shared"]["scored_together"] for r in together.values()) >= 3
    assert {k: r.metrics for k, r in together.items()} == {k: r.metrics for k, r in single.items()}


def test_gradient_checkpointing_changes_no_bit(tiny_world: World, tmp_path: Path) -> None:
    task = task_of(tiny_world, *QLORA, "space.learning_rate=0.01")
    saving = replace(task, compute=replace(task.compute, gradient_checkpointing=True))
    assert hashes(run_all(task, tmp_path / "a")) == hashes(run_all(saving, tmp_path / "b"))


def test_the_base_is_what_it_was_after_a_pack(tiny_world: World, tmp_path: Path) -> None:
    tasks = sibling_tasks(tiny_world)
    model = resident_model(tasks[0].model, CPU, quantized=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert hashes(run_together(tasks, tmp_path))
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("optim", ["adamw_8bit", pytest.param("paged_adamw_8bit", marks=SLOW)])
@pytest.mark.parametrize("method", ["qlora", "full"])
def test_an_interrupted_path_goes_on_bit_for_bit_with_8_bit_moments(
    tiny_world: World, tmp_path: Path, optim: str, method: str
) -> None:
    space = {"optim": optim, "lr_scheduler_type": "wsd", "decay_steps": 1, "learning_rate": 4e-3}
    spec = spec_with(tiny_world, **space, max_steps={"values": [2, 4]})
    adapter = {"lora_r": 128} if method == "qlora" else {"lora_r": 8}
    raw = [f"tuning.{key}={value}" for key, value in {"method": method, **adapter}.items()]
    spec = parse_spec(json.dumps(spec.model_dump(mode="json", exclude_none=True)), overrides=raw)
    task = next(task for task in tasks_of(spec) if len(task.readouts) > 1)
    task = replace(task, compute=replace(task.compute, checkpoint_every=1))
    whole = run_all(task, tmp_path / "whole")
    attempt = run_pack([task], lambda identity: TrialStorage(tmp_path / "cut", identity))
    first = {record.config_id: record for record in next(attempt)}
    attempt.close()  # type: ignore[attr-defined]
    rest = run_all(task, tmp_path / "cut")
    assert hashes(first | rest) == hashes(whole)


def test_8_bit_moments_train_like_32_bit_ones_and_not_the_same(tiny_world: World) -> None:
    tuning = replace(EVERYTHING, lora_r=128)  # Tensors of fewer than 4096 weights keep 32 bits.
    plain, exact = ours(tiny_world, tuning, OptimizerSettings(1e-3, 8), 15, "mixed_bf16")
    eight, rounded = ours(
        tiny_world, tuning, OptimizerSettings(1e-3, 8, optim="adamw_8bit"), 15, "mixed_bf16"
    )
    assert plain[0] == eight[0]
    assert plain[-1] < plain[0] - 0.1
    assert 0 < abs(plain[-1] - eight[-1]) < 0.05
    assert any(not torch.equal(exact[name], rounded[name]) for name in exact)


def test_embeddings_and_small_tensors_keep_32_bit_moments_as_in_the_trainer() -> None:
    weights = {
        "model.embed_tokens.weight": torch.nn.Parameter(torch.ones(128, 64)),
        "lm_head.weight": torch.nn.Parameter(torch.ones(64, 128)),
        "small.weight": torch.nn.Parameter(torch.ones(63, 65)),  # 4095 weights
        "large.weight": torch.nn.Parameter(torch.ones(64, 64)),
        "norm.weight": torch.nn.Parameter(torch.ones(64)),
    }
    settings = OptimizerSettings(1e-3, 8, optim="adamw_8bit")
    for _ in range(2):  # A second optimizer of the process knows nothing of the first.
        optimizer = make_optimizer(weights, settings, embeddings=["model.embed_tokens.weight"])
        for value in weights.values():
            value.grad = torch.ones_like(value)
        optimizer.step()
        held = {name: optimizer.state[value]["state1"].dtype for name, value in weights.items()}
        assert held == {
            "model.embed_tokens.weight": torch.float32,
            "lm_head.weight": torch.uint8,
            "small.weight": torch.float32,
            "large.weight": torch.uint8,
            "norm.weight": torch.float32,
        }
    plain = make_optimizer(weights, settings)
    plain.step()
    assert plain.state[weights["model.embed_tokens.weight"]]["state1"].dtype == torch.uint8


# -- What readouts are scored on ---------------------------------------------------------------------------


def test_readouts_are_scored_on_the_base_that_is_named_and_trained_on_the_same(
    tiny_world: World, tmp_path: Path
) -> None:
    task = task_of(tiny_world, *QLORA, "space.learning_rate=0.01")
    other = replace(task, evaluation=replace(task.evaluation, base_weights="unquantized"))
    held, plain = run_all(task, tmp_path / "4bit"), run_all(other, tmp_path / "plain")
    assert hashes(held) == hashes(plain)
    assert {r.provenance["quantization"]["scored_on"] for r in held.values()} == {"4bit"}
    assert {r.provenance["quantization"]["scored_on"] for r in plain.values()} == {"unquantized"}
    losses = [
        (held[key].metrics["heldout_loss"].value, plain[key].metrics["heldout_loss"].value)
        for key in held
    ]
    assert all(left != right and left == pytest.approx(right, rel=0.02) for left, right in losses)
    base = task_of(tiny_world, "model.dtype=mixed_bf16", role="base")
    of_lora = next(iter(run_all(base, tmp_path / "lora").values()))
    untouched = task_of(tiny_world, *QLORA, "evaluation.base_weights=unquantized", role="base")
    of_qlora = next(iter(run_all(untouched, tmp_path / "base").values()))
    assert of_qlora.metrics == of_lora.metrics


def test_what_was_measured_last_is_what_is_said() -> None:
    root = Path(__file__).parents[2]
    found = json.loads((root / "benchmarks/results/qlora.json").read_text(encoding="utf-8"))
    lora, held, plain, eight = found["variants"]
    assert held["base_bytes"] < lora["base_bytes"] / 3
    assert max(item["from_lora"] for item in (held, plain, eight)) < 0.008
    assert (held["first_loss"], held["last_loss"]) == (plain["first_loss"], plain["last_loss"])
    rates = [item["metrics"]["unsafe_rate"]["value"] for item in (held, plain)]
    assert [round(rate, 3) for rate in rates] == [0.346, 0.305]
