"""The cost model: parameters, memory, rates, schedule; each against a count made in another way."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_record, make_spec
from support.shapes import PUBLISHED, facts

from sweeper.errors import ModelError, SweeperError
from sweeper.estimate import (
    GPUS,
    Rates,
    Tokens,
    analytic_rates,
    cpu,
    duration_text,
    estimate,
    makespan,
    memory_facts,
    peak_memory,
    spent,
)
from sweeper.estimate.measured_rates import two_rates
from sweeper.memory import (
    FAMILIES,
    GIB,
    ModelShape,
    activation_bytes,
    bytes_per_weight,
    memory,
    read_shape,
    shape_of,
    train_flops,
)
from sweeper.planning import make_plan
from sweeper.task import Tuning

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

SMALL: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}

VARIANTS: list[dict[str, Any]] = [
    {},
    {"num_key_value_heads": 1},
    {"num_key_value_heads": 2, "tie_word_embeddings": True},
    {"head_dim": 10, "num_key_value_heads": 2},
    {"attention_bias": True, "num_key_value_heads": 2},
    {"mlp_bias": True, "tie_word_embeddings": True},
]

"""Shapes of the published config.json files and the parameter counts of their model cards' weights."""

TOKENS = Tokens(50.0, 60, 10, 200.0, 30, 80.0, 300.0, "given")


def rates(**changes: Any) -> Rates:
    given: dict[str, Any] = {
        "train_token_seconds": 1e-3,
        "step_seconds": 0.1,
        "generate_token_seconds": 1e-2,
        "readout_seconds": 0.5,
        "load_seconds": 2.0,
        "startup_seconds": 7.0,
        "source": "analytic",
        "device": "given",
    }
    return Rates(**{**given, **changes})


def test_a_pack_multiplies_what_every_path_owns_and_nothing_else() -> None:
    tuning = Tuning("lora", lora_r=2, lora_target_modules=("q_proj",))
    one, four = (memory(facts(tuning=tuning, paths=n)) for n in (1, 4))
    for part in ("gradients", "moments", "shadows", "theta_0"):
        assert getattr(four, part) == 4 * getattr(one, part) > 0
    assert four.activations == one.activations
    assert four.weights - one.weights == 3 * one.theta_0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    shape, parameters = PUBLISHED[name]
    assert shape.parameters == parameters


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_parameters_are_those_transformers_makes(changes: dict[str, Any]) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**{**SMALL, **changes})
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
    shape = shape_of(config.to_dict())
    assert shape.parameters == sum(value.numel() for value in model.parameters())
    table = 0 if shape.tied else model.get_input_embeddings().weight.numel()
    assert shape.matmul_parameters == shape.parameters - table


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_of_other_families_are_those_transformers_makes(tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    for family in FAMILIES:
        config = AutoConfig.for_model(
            family, **SMALL, num_key_value_heads=2, tie_word_embeddings=tied
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        expected = sum(value.numel() for value in model.parameters())
        assert shape_of(config.to_dict()).parameters == expected, family


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "down_proj"), ALL_LINEAR])
def test_adapter_parameters_are_those_peft_makes(targets: tuple[str, ...]) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SMALL, num_key_value_heads=2)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        adapted = get_peft_model(model, LoraConfig(r=5, target_modules=list(targets)))
    count = sum(value.numel() for value in adapted.parameters() if value.requires_grad)
    tuning = Tuning("lora", lora_r=5, lora_target_modules=targets)
    assert shape_of(config.to_dict()).trainable(tuning) == count


def saved_bytes_per_token(
    layers: int, tuning: Tuning, dtype: str, kv_heads: int = 2, checkpointing: bool = False
) -> float:
    """What autograd keeps for the backward pass of a real Llama, weights and their copies left out."""
    few, many = (
        saved_bytes(layers, tuning, dtype, rows, kv_heads, checkpointing) for rows in (4, 8)
    )
    return (many - few) / (4 * 32)


def saved_bytes(
    layers: int, tuning: Tuning, dtype: str, rows: int, kv_heads: int, checkpointing: bool
) -> int:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from sweeper.model.adapters import AdapterStack, new_adapter
    from sweeper.model.load import FROZEN_DTYPES, TRAINED_DTYPES, precision
    from sweeper.task import ModelSource

    types = TRAINED_DTYPES if tuning.method == "full" else FROZEN_DTYPES

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    model = LlamaForCausalLM._from_config(config, dtype=types[dtype], attn_implementation="sdpa")
    model.train().requires_grad_(tuning.method == "full")
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    if tuning.method == "lora":
        adapter = new_adapter(model, tuning, seed=0)
        slots = AdapterStack(model, adapter.factors)
        slots.load([adapter], seeds=[0])
        weights |= {v.untyped_storage().data_ptr() for v in adapter.parameters().values()}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(0, 50, (rows, 32))
    autocast = precision(ModelSource("m", dtype=dtype), torch.device("cpu"))
    with autocast, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(input_ids=ids, use_cache=False).logits
    assert output.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "mixed_bf16", "pure_bf16"])
@pytest.mark.parametrize(
    "tuning",
    [
        Tuning("full"),
        Tuning("lora", lora_target_modules=("q_proj", "v_proj")),
        Tuning("lora", lora_target_modules=ALL_LINEAR),
        Tuning("lora", lora_target_modules=("all-linear",), lora_dropout=0.1),
    ],
    ids=["full", "two", "all", "dropout"],
)
def test_activations_are_what_autograd_keeps(tuning: Tuning, dtype: str) -> None:
    two, four = (saved_bytes_per_token(layers, tuning, dtype) for layers in (2, 4))
    shapes = [ModelShape(layers, 128, 320, 4, 2, 32, 50) for layers in (2, 4)]
    ours = [activation_bytes(shape, tuning, dtype) for shape in shapes]
    assert (ours[1] - ours[0]) / (four - two) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bf16"])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_keys_and_values_are_kept_as_wide_as_they_are(dtype: str, kv_heads: int) -> None:
    full = Tuning("full")
    two, four = (saved_bytes_per_token(layers, full, dtype, kv_heads) for layers in (2, 4))
    shapes = [ModelShape(layers, 128, 320, 4, kv_heads, 32, 50) for layers in (2, 4)]
    ours = [activation_bytes(shape, full, dtype) for shape in shapes]
    assert (ours[1] - ours[0]) / (four - two) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bf16", "pure_bf16"])
@pytest.mark.parametrize(
    "tuning", [Tuning("full"), Tuning("lora", lora_target_modules=ALL_LINEAR)], ids=["full", "lora"]
)
def test_checkpointing_keeps_the_input_of_every_block_and_one_block(
    tuning: Tuning, dtype: str
) -> None:
    two, four = (saved_bytes_per_token(n, tuning, dtype, checkpointing=True) for n in (2, 4))
    shapes = [ModelShape(layers, 128, 320, 4, 2, 32, 50) for layers in (1, 2, 4)]
    one, *ours = (activation_bytes(shape, tuning, dtype, True) for shape in shapes)
    assert ours[1] - ours[0] == four - two
    whole = activation_bytes(shapes[0], tuning, dtype)
    assert one == whole + 128 * bytes_per_weight(tuning, dtype)


def test_memory_parts_by_hand_for_full_tuning() -> None:
    parts = memory(facts())
    # One block: q 8x8, k and v 8x4, o 8x8, three of 8x16, two norms of 8; two tables of 10x8, a norm.
    block = 64 + 32 + 32 + 64 + 3 * 128 + 16
    n = 2 * block + 2 * 80 + 8
    assert facts().shape.parameters == n == 1352
    assert (parts.weights, parts.gradients, parts.moments) == (4 * n, 4 * n, 8 * n)
    assert (parts.shadows, parts.theta_0, parts.fork) == (2 * 4 * n, 4 * n, 0)
    assert parts.runtime == GIB
    assert parts.logits == 3 * 5 * 10 * 12
    assert parts.heldout_logits == 2 * 6 * 10 * 12
    # Two prompts fill a tile of 16; tokens x layers x (k, v) x width x bytes.
    assert parts.kv_cache == (16 * 7) * 2 * 2 * 4 * 4
    assert parts.readout_copies == 4 * n + 4 * n  # the weights kept aside, the interpolation
    assert parts.checkpoint_copies == 0  # Written from a GPU straight to memory of the host.
    assert memory(facts(device="cpu")).checkpoint_copies == 3 * 4 * n + 2 * 4 * n
    # Per token and block: two fp32 norm inputs, 4h, 2 (q + kv) and 4i; then 4h + 2h for the last norm.
    per_token = 2 * (2 * 4 * 8 + 4 * (4 * 8 + 2 * (8 + 4) + 4 * 16)) + 4 * 8 + 2 * 8 * 4
    assert parts.activations == 3 * 5 * per_token
    held = 4 * n * (1 + 1 + 2 + 2 + 1) + GIB
    assert parts.resident_bytes == held
    assert parts.peak_phase == "generate"
    reading = parts.readout_copies + parts.forward + parts.kv_cache
    assert parts.peak_bytes == held + reading == sum(parts.at_peak().values())
    on_cpu = memory(facts(device="cpu", evaluation_rows=1, generation_length=1, heldout_length=1))
    assert on_cpu.peak_phase == "checkpoint"


def test_memory_of_an_adapter_is_fp32_on_a_bf16_model() -> None:
    tuning = Tuning("lora", lora_r=2, lora_target_modules=("q_proj", "v_proj"))
    parts = memory(facts(tuning=tuning, dtype="pure_bf16", interpolates=False, forks=True))
    trainable = 2 * 2 * ((8 + 8) + (8 + 4))
    assert parts.weights == 2 * 1352 + 4 * trainable
    assert (parts.gradients, parts.moments) == (4 * trainable, 8 * trainable)
    assert (parts.shadows, parts.theta_0) == (8 * trainable, 4 * trainable)
    assert parts.fork == (12 + 8) * trainable
    assert parts.readout_copies == 4 * trainable
    assert parts.kv_cache == (16 * 7) * 2 * 2 * 4 * 2


def test_moments_of_a_pure_bf16_model_are_bf16_and_shadows_are_not() -> None:
    parts = memory(facts(dtype="pure_bf16"))
    assert (parts.moments, parts.shadows) == (4 * 1352, 8 * 1352)


def test_mixed_precision_trains_fp32_weights_and_freezes_bf16_ones() -> None:
    from sweeper.memory.parts import FROZEN_BYTES, TRAINED_BYTES
    from sweeper.model.load import FROZEN_DTYPES, TRAINED_DTYPES

    assert {k: v.itemsize for k, v in TRAINED_DTYPES.items()} == TRAINED_BYTES
    assert {k: v.itemsize for k, v in FROZEN_DTYPES.items()} == FROZEN_BYTES
    full, plain = (memory(facts(dtype=dtype)) for dtype in ("mixed_bf16", "float32"))
    assert (full.weights, full.gradients, full.moments) == (4 * 1352, 4 * 1352, 8 * 1352)
    assert full.kv_cache == plain.kv_cache * 3 // 4  # Keys stay fp32 behind fp32 rotations.
    # A bf16 copy of what is multiplied: all but the input embedding.
    copies = 2 * (1352 - 80)
    assert full.forward == plain.forward // 2 + copies
    per_token = 2 * (4 * 4 * 8 + 2 * (5 * 8 + 2 * (8 + 4) + 4 * 16)) + 4 * 8 + 2 * 8 * 2
    assert full.activations == 3 * 5 * per_token + copies
    tuning = Tuning("lora", lora_r=2, lora_target_modules=("q_proj", "v_proj"))
    lora = memory(facts(tuning=tuning, dtype="mixed_bf16"))
    assert lora.weights == memory(facts(tuning=tuning, dtype="pure_bf16")).weights
    assert lora.forward == full.forward - copies


def test_more_of_anything_never_needs_less() -> None:
    least = memory(facts())
    for name, value in {
        "shadows": 3,
        "forks": True,
        "train_rows": 4,
        "train_length": 6,
        "evaluation_rows": 3,
        "heldout_length": 9,
        "generation_length": 9,
    }.items():
        assert memory(facts(**{name: value})).peak_bytes >= least.peak_bytes, name


def test_memory_facts_follow_the_plan() -> None:
    spec = make_spec("compute.micro_batch_size=2", "evaluation.batch_size=4")
    shape = PUBLISHED["Llama-3.2-1B"][0]
    found = {
        (item.shadows, item.interpolates)
        for trajectory in make_plan(spec).trajectories
        for item in [memory_facts(trajectory, spec, shape, TOKENS, "cuda")]
        if item.train_rows == 2 and item.evaluation_rows == 4
    }
    # Two decays and an interpolation on the shared paths; one fed-back EMA; controls have neither.
    assert found == {(2, True), (1, False), (0, False)}
    without = make_spec("evaluation.utility_metrics=[rouge_l]")
    trajectory = make_plan(without).trajectories[0]
    assert memory_facts(trajectory, without, shape, TOKENS, "cuda").heldout_length == 0
    peak = peak_memory(make_plan(spec), spec, shape, TOKENS, "cuda")
    assert peak.shadows == 2 * 4 * shape.parameters


def test_a_decay_tail_keeps_the_trunk_aside() -> None:
    spec = make_spec("space.lr_scheduler_type=wsd")
    shape = PUBLISHED["Llama-3.2-1B"][0]
    assert peak_memory(make_plan(spec), spec, shape, TOKENS, "cuda").fork > 0
    assert peak_memory(make_plan(make_spec()), make_spec(), shape, TOKENS, "cuda").fork == 0


def best_makespan(seconds: tuple[float, ...], workers: int) -> float:
    return min(
        max(
            sum(s for s, place in zip(seconds, places, strict=True) if place == w)
            for w in range(workers)
        )
        for places in itertools.product(range(workers), repeat=len(seconds))
    )


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize(
    "seconds", [(3.0,), (5, 5, 4, 4, 3, 3, 3), (7, 1, 1, 1, 1, 1, 1), (2, 2, 2, 2), (9, 8, 1)]
)
def test_the_makespan_is_within_grahams_bound_of_the_best(
    seconds: tuple[float, ...], workers: int
) -> None:
    best = best_makespan(seconds, workers)
    assert best <= makespan(seconds, workers) <= best * (4 / 3 - 1 / (3 * workers)) + 1e-12


def test_makespans_by_hand() -> None:
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # The best is 6: this is Graham's example.
    assert makespan([], 3) == 0
    assert makespan([1, 2], 5) == 2
    for workers in (0, -1):
        with pytest.raises(SweeperError, match=f"at least one worker .* workers={workers}"):
            makespan([1.0], workers)


def test_an_estimate_by_hand() -> None:
    spec = make_spec(
        "space.learning_rate=1e-3",
        "space.batch_size=8",
        "space.max_steps={values: [2, 4]}",
        "space.average=raw",
        "compute.cpus_per_trial=3",
    )
    plan = make_plan(spec)
    shape = PUBLISHED["Llama-3.2-1B"][0]
    assert sorted((t.steps, len(t.configurations)) for t in plan.trajectories) == [
        (0, 1),  # the base
        (4, 1),  # the default
        (4, 2),
    ]
    found = estimate(plan, spec, shape, rates(), TOKENS, 2, device="cuda")
    step, readout = 0.1 + 1e-3 * 50 * 8, 0.5 + 1e-2 * 80
    assert found.train_seconds == pytest.approx(8 * step)
    assert found.evaluate_seconds == pytest.approx(4 * readout)
    assert (found.load_seconds, found.startup_seconds) == (6.0, 14.0)
    total = 8 * step + 4 * readout + 6 + 14
    assert found.worker_seconds == pytest.approx(total)
    longest, middle, base = 4 * step + 2 * readout + 2, 4 * step + readout + 2, readout + 2
    assert found.wall_seconds == pytest.approx(7 + max(longest, middle + base))
    assert found.gpu_hours == pytest.approx(total / 3600)
    assert found.cpu_core_hours == pytest.approx(3 * total / 3600)
    assert found.peak_memory_bytes == found.memory.peak_bytes
    alone = estimate(plan, spec, shape, rates(), TOKENS, 1, device="cpu", measured_memory_bytes=5)
    assert alone.wall_seconds == pytest.approx(alone.worker_seconds)
    assert (alone.gpu_hours, alone.peak_memory_bytes) == (0, 5)
    many = estimate(plan, spec, shape, rates(), TOKENS, 99, device="cuda")
    assert many.startup_seconds == 3 * 7  # No more workers start than there are trajectories.
    half = make_spec("compute.gpus_per_trial=0.5")
    shared = estimate(make_plan(half), half, shape, rates(), TOKENS, 1, device="cuda")
    assert shared.gpu_hours == pytest.approx(shared.worker_seconds / 7200)
    with pytest.raises(SweeperError, match="at least one worker"):
        estimate(plan, spec, shape, rates(), TOKENS, 0, device="cpu")
    assert (
        json.loads(json.dumps(found.to_data()))["memory"]["peak_bytes"] == found.memory.peak_bytes
    )


def test_flops_per_token() -> None:
    shape = PUBLISHED["Llama-2-7B"][0]
    adapter = Tuning("lora", lora_r=8, lora_target_modules=("q_proj", "v_proj"))
    weights = 6_738_415_616 - 32000 * 4096
    assert train_flops(shape, Tuning("full")) == 6 * weights
    assert train_flops(shape, adapter) == 4 * weights + 6 * (32 * 8 * 4 * 4096)


def test_analytic_rates_follow_the_device() -> None:
    shape, full = PUBLISHED["Llama-3.1-8B"][0], Tuning("full")
    a100, h100 = (gpu for gpu in GPUS if "100" in gpu.name)
    found = analytic_rates(shape, full, "pure_bf16", a100, TOKENS, 32)
    weights = 8_030_261_248 - 128256 * 4096
    assert found.train_token_seconds == pytest.approx(6 * weights / (312e12 * 0.3))
    assert found.readout_seconds == pytest.approx(2 * weights * 500 / (312e12 * 0.3))
    faster = analytic_rates(shape, full, "pure_bf16", h100, TOKENS, 32)
    assert faster.train_token_seconds < found.train_token_seconds
    assert faster.generate_token_seconds < found.generate_token_seconds
    slower = analytic_rates(shape, full, "float32", a100, TOKENS, 32)
    assert slower.train_token_seconds > found.train_token_seconds
    two, one = (analytic_rates(shape, full, "float32", cpu(cores), TOKENS, 32) for cores in (2, 1))
    assert one.train_token_seconds == pytest.approx(2 * two.train_token_seconds)
    assert (one.device, two.device) == ("CPU, 1 core", "CPU, 2 cores")


def test_two_rates_are_found_again_and_never_negative() -> None:
    rows = [(3.0, 100.0, 3 * 0.2 + 100 * 0.01), (5.0, 900.0, 5 * 0.2 + 900 * 0.01)]
    assert two_rates(rows) == pytest.approx((0.2, 0.01))
    assert two_rates([(1, 10, 4.0), (2, 20, 8.0)]) == pytest.approx((0, 0.4))  # proportional
    step, token = two_rates([(1, 10, 1.0), (1, 100, 0.5)])  # more tokens, less time: noise
    assert step == pytest.approx(0.75) and token == 0
    step, token = two_rates([(10, 10, 1.0), (1, 100, 20.0)])
    assert step == 0 and token == pytest.approx((10 + 2000) / (100 + 10000))
    assert two_rates([(1, 0, 0.0), (1, 0, 0.0)]) == (0, 0)


def test_a_shape_is_read_from_a_folder_and_from_the_hub_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_type": "llama", **SMALL}
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = ModelShape(3, 24, 40, 4, 4, 6, 101)
    assert read_shape(str(tmp_path)) == expected
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError, match=r"some/llama: no local folder and not in the hub cache"):
        read_shape("some/llama")
    model = tmp_path / "hub" / "models--some--llama"
    (model / "snapshots" / "abc").mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc\n")
    (model / "snapshots" / "abc" / "config.json").write_text(json.dumps(config))
    assert read_shape("some/llama") == read_shape("some/llama", "abc") == expected
    with pytest.raises(ModelError):
        read_shape("some/llama", "def")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no config.json"),
        ("{", "config.json as JSON"),
        ("[]", "model_type is None"),
        (
            json.dumps({"model_type": "gpt2"}),
            "model_type is 'gpt2', but the cost model supports only llama",
        ),
        (json.dumps({"model_type": "llama"}), "the key 'num_attention_heads' is missing"),
        (json.dumps({"model_type": "llama", **SMALL, "vocab_size": "x"}), "not the shape"),
        (json.dumps({"model_type": "llama", **SMALL, "num_attention_heads": 0}), "not the shape"),
    ],
)
def test_a_bad_model_folder_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_shape(str(tmp_path))


def test_an_unknown_adapter_target_is_named() -> None:
    shape = PUBLISHED["Llama-2-7B"][0]
    with pytest.raises(ModelError, match=r"linear layer `c_attn`; known layers: q_proj"):
        shape.trainable(Tuning("lora", lora_target_modules=("c_attn",)))
    dotted = Tuning("lora", lora_r=1, lora_target_modules=("self_attn.q_proj",))
    assert shape.trainable(dotted) == 32 * 2 * 4096


def timed(load: float, train: float, evaluate: float, **changes: Any) -> Any:
    record = make_record(**changes)
    seconds = {"load": load, "train": train, "evaluate": evaluate}
    object.__setattr__(record, "provenance", {"seconds": seconds})
    return record


def test_what_a_run_has_cost_counts_each_attempt_once() -> None:
    first = [timed(1.0, train, 2.0, max_steps=step) for step, train in ((40, 3.0), (80, 6.0))]
    again = [timed(1.5, train, 2.0, max_steps=step) for step, train in ((160, 4.0), (320, 9.0))]
    other = [timed(0.5, 7.0, 1.0, learning_rate=1e-3)]
    failed = [timed(0.5, 8.0, 1.0, learning_rate=1e-3, status="failed", max_steps=80)]
    found = spent([*first, *other, *failed, *again])
    assert found.load_seconds == 1.0 + 1.5 + 0.5
    assert found.train_seconds == 6.0 + 9.0 + 8.0
    assert found.evaluate_seconds == 4 * 2.0 + 1.0  # The failed one was not evaluated.
    assert (found.records, found.seconds) == (6, 35.0)
    lost = make_record(status="failed")
    object.__setattr__(lost, "provenance", {})
    assert spent([lost]) == (0, 0, 0, 0)


def test_durations_as_people_say_them() -> None:
    texts = [duration_text(seconds) for seconds in (0.5, 42, 450, 7200, 3.6e7)]
    assert texts == ["0.5 s", "42 s", "7.5 min", "2.0 h", "10,000.0 h"]


def test_a_pack_is_counted_with_the_rows_of_all_its_paths() -> None:
    spec = make_spec("tuning={method: lora}", "space.average=raw", "space.batch_size=4")
    plan = make_plan(spec)
    longest = max(plan.trajectories, key=lambda item: item.steps)
    tokens = Tokens(20.0, 40, 8, 80.0, 20, 64.0, 100.0, "given")
    shape = ModelShape(2, 8, 16, 2, 1, 4, 10)
    one, three = (memory_facts(longest, spec, shape, tokens, "cpu", n) for n in (1, 3))
    assert (one.train_rows, three.train_rows) == (4, 12)
    largest = peak_memory(plan, spec, shape, tokens, "cpu")
    assert largest.moments == memory(three).moments == 3 * memory(one).moments
