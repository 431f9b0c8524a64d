"""Exports parsed by their targets' own classes, and the callback against a hand-written loop."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support.factories import base_record, make_config, make_lora_config, make_record, make_spec

from sweeper.analysis import Candidate, find_front
from sweeper.errors import ExportError, RunFolderError, SweeperError
from sweeper.export import FORMATS, Origin, export, formats_of
from sweeper.export.header import one_line
from sweeper.export.job import split_batch
from sweeper.keywords.lists import LIMITS, load_keyword_list
from sweeper.store.records import TrialRecord
from sweeper.task import Bema

TRL_OWN_KEYS = {
    # ModelConfig
    "model_name_or_path",
    "model_revision",
    "dtype",
    "use_peft",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "lora_task_type",
    "use_rslora",
    "use_dora",
    "attn_implementation",
    # SFTConfig beyond TrainingArguments
    "max_length",
    "completion_only_loss",
    "packing",
    "shuffle_dataset",
}


def candidate(record: TrialRecord | None = None, **changes: Any) -> Candidate:
    record = record or make_record(identity="abc", **changes)
    return find_front([record], make_spec()).candidates[0]


def text_of(paths: tuple[Path, ...], ending: str) -> str:
    (path,) = (path for path in paths if path.name.endswith(ending))
    return path.read_text(encoding="utf-8")


def values_of(paths: tuple[Path, ...], ending: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text_of(paths, ending)))


@pytest.mark.parametrize("scheduler", ["constant", "warmup_stable_decay", "cosine"])
def test_transformers_takes_every_key(tmp_path: Path, scheduler: str) -> None:
    transformers = pytest.importorskip("transformers")
    item = candidate(
        lr_scheduler_type=scheduler, warmup_steps=10, decay_steps=32, learning_rate=2e-5
    )
    values = values_of(export(item, make_spec(), "transformers", tmp_path), ".transformers.yaml")
    values["output_dir"] = str(tmp_path / "out")
    arguments = transformers.TrainingArguments(**values, use_cpu=True)
    assert arguments.learning_rate == 2e-5
    assert arguments.max_steps == 320
    assert arguments.warmup_steps == 10
    assert arguments.lr_scheduler_type == scheduler
    assert arguments.max_grad_norm == 1.0
    assert arguments.adam_epsilon == 1e-8
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 8
    decay = values.get("lr_scheduler_kwargs")
    assert decay == ({"num_decay_steps": 32} if scheduler == "warmup_stable_decay" else None)


def test_trl_gets_known_keys_only(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    known = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    item = candidate(config=make_lora_config(revision="abc123", attention="eager"))
    values = values_of(export(item, make_spec(), "trl", tmp_path), ".trl.yaml")
    assert set(values) <= known | TRL_OWN_KEYS
    assert set(values) & TRL_OWN_KEYS == TRL_OWN_KEYS
    assert values["lora_alpha"] == 16
    assert isinstance(values["lora_alpha"], int)
    assert values["lora_target_modules"] == ["q_proj", "v_proj"]
    assert (values["dtype"], values["bf16"]) == ("float32", False)
    full = values_of(export(candidate(), make_spec(), "trl", tmp_path), ".trl.yaml")
    assert "use_peft" not in full
    assert "model_revision" not in full


def test_peft_takes_the_adapter(tmp_path: Path) -> None:
    item = candidate(config=make_lora_config())
    paths = export(item, make_spec(), "transformers", tmp_path)
    values = values_of(paths, ".lora.yaml")
    assert values == {
        "r": 8,
        "lora_alpha": 16.0,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "task_type": "CAUSAL_LM",
    }
    peft = pytest.importorskip("peft")
    assert peft.LoraConfig(**values).r == 8


@pytest.mark.parametrize(
    ("method", "dtype", "held", "autocast"),
    [
        ("full", "float32", "float32", False),
        ("full", "mixed_bf16", "float32", True),
        ("full", "pure_bf16", "bfloat16", False),
        ("lora", "float32", "float32", False),
        ("lora", "mixed_bf16", "bfloat16", True),
        ("lora", "pure_bf16", "bfloat16", False),
    ],
)
def test_the_precision_of_the_sweep_is_asked_for(
    tmp_path: Path, method: str, dtype: str, held: str, autocast: bool
) -> None:
    made = make_lora_config if method == "lora" else make_config
    paths = export(candidate(config=made(dtype=dtype)), make_spec(), "trl", tmp_path)
    values = values_of(paths, ".trl.yaml")
    assert (values["dtype"], values["bf16"], values["fp16"]) == (held, autocast, False)
    text = text_of(export(candidate(config=made(dtype=dtype)), make_spec(), "yaml", tmp_path), "l")
    assert f"loaded with dtype={held}" in text
    assert ("under bf16 autocast" in text) is autocast


@pytest.mark.parametrize("asked", [True, False])
def test_gradient_checkpointing_is_said_either_way(tmp_path: Path, asked: bool) -> None:
    spec = make_spec(f"compute.gradient_checkpointing={str(asked).lower()}")
    for fmt in ("trl", "transformers"):
        paths = export(candidate(), spec, fmt, tmp_path)
        assert values_of(paths[:1], ".yaml")["gradient_checkpointing"] is asked


@pytest.mark.parametrize(
    ("targets", "layers"),
    [
        (["v_proj"], {"v_proj"}),
        (["self_attn.q_proj"], {"q_proj"}),
        (["q_proj", "down_proj"], {"q_proj", "down_proj"}),
        (
            ["all-linear"],
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
    ],
)
def test_trl_adapts_the_layers_of_the_sweep(
    tmp_path: Path, targets: list[str], layers: set[str]
) -> None:
    transformers, trl = pytest.importorskip("transformers"), pytest.importorskip("trl")
    peft = pytest.importorskip("peft")
    changes = {"lora_target_modules": targets, "use_dora": True, "use_rslora": True}
    spec = make_spec("compute.gradient_checkpointing=true")
    config = make_lora_config(
        **changes, dtype="mixed_bf16", lr_scheduler_type="warmup_stable_decay", decay_steps=32
    )
    paths = export(candidate(config=config), spec, "trl", tmp_path)
    parser = trl.TrlParser((trl.SFTConfig, trl.ModelConfig))
    words = ["--config", str(paths[0]), "--use_cpu", "true", "--output_dir", str(tmp_path / "out")]
    args, model = parser.parse_args_and_config(words)
    assert (args.bf16, args.gradient_checkpointing, args.packing) == (True, True, False)
    assert args.lr_scheduler_kwargs == {"num_decay_steps": 32}
    adapter = trl.get_peft_config(model)
    assert (adapter.r, adapter.lora_alpha, adapter.lora_dropout) == (8, 16, 0.05)
    assert (adapter.use_dora, adapter.use_rslora, adapter.bias) == (True, True, "none")
    small = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    plain = export(candidate(config=config), spec, "transformers", tmp_path)
    for found in (adapter, peft.LoraConfig(**values_of(plain, ".lora.yaml"))):
        made = peft.get_peft_model(transformers.LlamaForCausalLM(small), found)
        names = [n for n, layer in made.named_modules() if hasattr(layer, "lora_A")]
        assert {name.rpartition(".")[2] for name in names} == layers
        assert len(names) == 2 * len(layers)


@pytest.mark.parametrize("fmt", list(FORMATS))
def test_headers_name_both_templates(tmp_path: Path, fmt: str) -> None:
    same = export(candidate(), make_spec(), fmt, tmp_path)[0].read_text(encoding="utf-8")
    assert "Training template chat, test template chat" in same
    template = {"train": {"name": "alpaca"}, "test": {"name": "llama2", "system": "Be\ngood."}}
    item = candidate(config=make_config(template=template))
    text = export(item, make_spec(), fmt, tmp_path)[0].read_text(encoding="utf-8")
    text = text.replace("\\\\", "\\") if fmt == "card" else text
    said = "Training template alpaca, test template llama2 with the system prompt 'Be\\ngood.'"
    assert said in text


def test_a_builtin_model_is_named_by_its_folder_where_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_CACHE", str(tmp_path))
    item = candidate(config=make_config(model="builtin:miniature/model"))
    values = values_of(export(item, make_spec(), "trl", tmp_path / "ex"), ".yaml")
    assert values["model_name_or_path"] == "builtin:miniature/model"
    built = tmp_path / "miniature-1" / "model"
    built.mkdir(parents=True)
    values = values_of(export(item, make_spec(), "trl", tmp_path / "ex"), ".yaml")
    assert values["model_name_or_path"] == str(built)


def test_the_script_brings_the_callback_only_where_it_is_needed(tmp_path: Path) -> None:
    for average, callbacks in (("raw", "None"), ("ema(0.99)", "[WeightAveraging()]")):
        paths = export(candidate(average=average), make_spec(), "trl", tmp_path)
        text = text_of(paths, ".trl.py")
        compile(text, "script", "exec")
        assert f"callbacks={callbacks}," in text
        assert ("import WeightAveraging" in text) == (average != "raw")
        assert "unsafe_rate 0.8 % (2/256, 95 % interval 0.2 to 2.8 %)" in text


@pytest.mark.parametrize("rate", [2e-5, 1e-4, 3.1622776601683795e-05, 1.0, 123456.789e-12])
def test_floats_come_back_bit_for_bit_and_never_as_text(tmp_path: Path, rate: float) -> None:
    paths = export(candidate(learning_rate=rate), make_spec(), "transformers", tmp_path)
    read = values_of(paths, ".yaml")["learning_rate"]
    assert isinstance(read, float)
    assert read == rate


def test_plain_export_holds_everything(tmp_path: Path) -> None:
    item = candidate(average="ema(0.99)")
    paths = export(item, make_spec(), "yaml", tmp_path)
    assert [path.name for path in paths] == ["synthetic-abc.yaml", "ema_callback.py"]
    values = values_of(paths, ".yaml")
    assert values["hyperparameters"] == make_config(average="ema(0.99)")
    assert values["averaging"] == {
        "kind": "ema",
        "decay": 0.99,
        "weight": None,
        "every": None,
        "bema": None,
    }
    assert values["measured"]["unsafe_rate"] == [{"seed": 0, "value": 2 / 256, "n": 256, "k": 2}]
    assert values["batch"] == {"per_device": 8, "accumulation": 1, "world_size": 1}


@pytest.mark.parametrize("fmt", list(FORMATS))
@pytest.mark.parametrize("average", ["raw", "ema(0.99)", "interpolate(0.5)"])
def test_headers_say_what_was_measured_and_what_it_takes(
    tmp_path: Path, fmt: str, average: str
) -> None:
    paths = export(candidate(average=average), make_spec(), fmt, tmp_path, world_size=2)
    text = paths[0].read_text(encoding="utf-8").replace("\\", "")
    assert "Configuration abc of sweep synthetic" in text
    assert "rouge_l 0.85 (95 % interval 0.7652 to 0.9079, n=96)" in text
    assert "unsafe_rate 0.8 % (2/256, 95 % interval 0.2 to 2.8 %)" in text
    assert f"Verdicts by the keyword list sweeper ({load_keyword_list('sweeper').digest})" in text
    assert "Measured with torch 2.13.0, transformers 5.23.0" in text
    averaged = average != "raw"
    assert (tmp_path / "ema_callback.py").exists() == (averaged and fmt != "card")
    if fmt != "card":
        assert "Effective batch 8 = 4 per device x 1 accumulated x 2 device(s)" in text
        assert ("THE NUMBERS DO NOT HOLD" in text) == averaged


def test_comments_cannot_be_left(tmp_path: Path) -> None:
    hostile = "x\nevil_key: 1\r\u2028more: 2\x85end"
    item = candidate(config=make_config(model=hostile, template=hostile))
    values = values_of(export(item, make_spec(), "trl", tmp_path), ".yaml")
    assert values["model_name_or_path"] == hostile
    assert "evil_key" not in values
    assert one_line(hostile) == "x evil_key: 1 more: 2 end"


@pytest.mark.parametrize(
    ("batch", "world", "micro", "expected"),
    [
        (8, 1, None, (8, 1)),
        (32, 1, None, (8, 4)),
        (32, 4, 2, (2, 4)),
        (12, 2, None, (6, 1)),
        (7, 1, None, (7, 1)),
        (22, 1, None, (2, 11)),
    ],
)
def test_batches_split_exactly(
    batch: int, world: int, micro: int | None, expected: tuple[int, int]
) -> None:
    split = split_batch(batch, world, micro)
    assert (split.per_device, split.accumulation) == expected
    assert split.per_device * split.accumulation * world == batch


def test_batches_that_do_not_divide_are_refused_with_what_fits() -> None:
    with pytest.raises(SweeperError, match="use 1, 2, 4 or 8 devices"):
        split_batch(8, 3, None)
    with pytest.raises(SweeperError, match="use 1, 2 or 4 rows per device"):
        split_batch(8, 2, 3)
    with pytest.raises(SweeperError, match="use 1 devices"):
        split_batch(1, 0, None)


def test_the_sweeps_own_micro_batch_is_preferred(tmp_path: Path) -> None:
    spec = make_spec("compute.micro_batch_size=2")
    values = values_of(export(candidate(), spec, "transformers", tmp_path), ".yaml")
    assert values["per_device_train_batch_size"] == 2
    assert values["gradient_accumulation_steps"] == 4


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    spec = make_spec()
    with pytest.raises(SweeperError, match="no export format `tune`; formats: trl"):
        export(candidate(), spec, "tune", tmp_path)
    with pytest.raises(SweeperError, match="untouched base model"):
        export(candidate(base_record()), spec, "yaml", tmp_path)
    with pytest.raises(SweeperError, match="cannot be part of a file name"):
        export(candidate(make_record(identity="../up")), spec, "yaml", tmp_path)
    with pytest.raises(SweeperError, match="not among the averages"):
        export(candidate(average="feedback(0.5, every=2)"), spec, "yaml", tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunFolderError, match="choose another with --out"):
        export(candidate(), spec, "yaml", blocked)


def test_an_incomplete_configuration_says_so(tmp_path: Path) -> None:
    text = text_of(export(candidate(status="unscored"), make_spec(), "yaml", tmp_path), ".yaml")
    assert "# NOT COMPLETE: unscored under seed 0" in text


# The callback, driven as transformers' CallbackHandler drives it.

STEPS = 7


def callback_of(tmp_path: Path, average: str, record: TrialRecord | None = None) -> Any:
    item = candidate(record) if record else candidate(average=average)
    source = text_of(export(item, make_spec(), "transformers", tmp_path), "ema_callback.py")
    names: dict[str, Any] = {}
    exec(compile(source, "ema_callback.py", "exec"), names)
    return names["WeightAveraging"]()


def walk(callback: Any, dtype: Any) -> tuple[list[Any], Any, Any]:
    """Train a tiny module by SGD under the callback. Returns its paths' weights and the end's."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2).to(dtype)
    module.bias.requires_grad_(False)
    state = SimpleNamespace(global_step=0)
    start = module.weight.detach().clone()
    callback.on_train_begin(None, state, None, model=module)
    path = []
    for _ in range(STEPS):
        inputs = torch.randn(4, 3, dtype=dtype)
        module(inputs).square().sum().backward()
        with torch.no_grad():
            module.weight -= 0.05 * module.weight.grad
            module.weight.grad = None
        path.append(module.weight.detach().clone())
        state.global_step += 1
        callback.on_step_end(None, state, None, model=module)
    callback.on_train_end(None, state, None, model=module)
    return path, start, module.weight.detach()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shadow_is_a_running_average_in_full_precision(tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    path, start, end = walk(callback_of(tmp_path, "ema(0.99)"), getattr(torch, dtype))
    shadow = start.double()
    for weights in path:
        shadow = 0.99 * shadow + 0.01 * weights.double()
    expected = shadow.to(end.dtype)
    assert torch.allclose(end, expected, rtol=1e-6 if dtype == "float32" else 8e-3, atol=1e-7)
    assert not torch.equal(end, path[-1])


def test_interpolation_happens_at_the_end_alone(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    path, start, end = walk(callback_of(tmp_path, "interpolate(0.25)"), torch.float32)
    assert torch.allclose(end, 0.75 * path[-1] + 0.25 * start, atol=1e-7)
    plain, _, _ = walk(callback_of(tmp_path, "ema(0.99)"), torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(path, plain, strict=True))


def test_feedback_replaces_the_weights_every_few_steps(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    callback = callback_of(tmp_path, "feedback(0.9, every=4)")
    path, start, end = walk(callback, torch.float32)
    shadow, current = start.double(), start.double()
    for step, weights in enumerate(path, start=1):
        shadow = 0.9 * shadow + 0.1 * weights.double()
        current = shadow if step % 4 == 0 else weights.double()
    assert torch.allclose(end.double(), current, atol=1e-7)
    # The step after a replacement starts from the average: a small step away from it.
    plain, _, _ = walk(callback_of(tmp_path, "ema(0.99)"), torch.float32)
    assert torch.equal(path[3], plain[3])
    assert not torch.equal(path[4], plain[4])


def test_the_callback_agrees_with_the_sweeps_own_averaging(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    averaging = pytest.importorskip("sweeper.model.averaging")
    path, start, end = walk(callback_of(tmp_path, "ema(0.99)"), torch.float32)
    shadow = averaging.Shadow([start], 0.99)
    for weights in path:
        shadow.update([weights], 1)
    assert torch.equal(shadow.values[0], end)


def test_a_bema_callback_agrees_with_the_sweeps_own_averaging(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    averaging = pytest.importorskip("sweeper.model.averaging")
    path, start, end = walk(callback_of(tmp_path, "bema(update_freq=7)"), torch.float32)
    bema = Bema(update_freq=7)
    shadow = averaging.Shadow([start], bema)
    for step, weights in enumerate(path, start=1):
        shadow.update([weights], step)
    expected = averaging.bias_corrected(
        shadow.values, [path[-1]], [start], bema.correction(len(path))
    )
    assert torch.equal(expected[0], end)
    assert not torch.equal(end, path[-1])


def test_the_exact_decay_is_written_not_its_label(tmp_path: Path) -> None:
    item = candidate(average="ema(retention=0.5)")
    source = text_of(export(item, make_spec(), "trl", tmp_path), "ema_callback.py")
    assert f"DECAY = {0.5 ** (1 / 320)!r}\n" in source


def test_a_resumed_training_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    callback = callback_of(tmp_path, "ema(0.99)")
    with pytest.raises(RuntimeError, match="not part of a checkpoint"):
        callback.on_train_begin(
            None, SimpleNamespace(global_step=3), None, model=torch.nn.Linear(1, 1)
        )


def test_a_real_trainer_runs_the_callback(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch = pytest.importorskip("torch")
    config = transformers.LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    start = model.lm_head.weight.detach().clone()
    item = candidate(average="interpolate(0.5)", max_steps=3, learning_rate=0.01)
    paths = export(item, make_spec(), "transformers", tmp_path)
    values = values_of(paths, ".transformers.yaml") | {"output_dir": str(tmp_path / "out")}
    names: dict[str, Any] = {}
    exec(compile(text_of(paths, ".py"), "ema_callback.py", "exec"), names)
    seen: list[Any] = []

    def look(*_: Any, model: Any, **__: Any) -> None:
        seen.append(model.lm_head.weight.detach().clone())

    last = type("Last", (transformers.TrainerCallback,), {"on_step_end": look})
    rows = [{"input_ids": [1, 2, 3, i % 16], "labels": [1, 2, 3, i % 16]} for i in range(32)]
    transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**values, use_cpu=True, disable_tqdm=True),
        train_dataset=rows,
        callbacks=[names["WeightAveraging"](), last()],
    ).train()
    assert len(seen) == 3
    assert torch.allclose(model.lm_head.weight, 0.5 * seen[-1] + 0.5 * start, atol=1e-7)
    assert not torch.allclose(seen[-1], start)


# The further targets; what their own classes make of these files, tests/export/targets/ looks at.


def settings_of(paths: tuple[Path, ...]) -> dict[str, Any]:
    return dict(yaml.safe_load(paths[0].read_text(encoding="utf-8")))


EVERY = {
    "learning_rate": 2e-5,
    "batch_size": 32,
    "max_steps": 77,
    "weight_decay": 0.013,
    "adam_beta1": 0.87,
    "adam_beta2": 0.985,
    "adam_epsilon": 3e-9,
    "max_grad_norm": 0.7,
    "warmup_steps": 9,
    "max_length": 384,
    "lr_scheduler_type": "cosine",
}


@pytest.mark.parametrize(
    ("optim", "of_axolotl"),
    [
        ("adamw_torch_fused", "adamw_torch_fused"),
        ("adamw_8bit", "adamw_bnb_8bit"),
        ("paged_adamw_8bit", "paged_adamw_8bit"),
    ],
)
def test_a_base_in_4_bits_and_8_bit_moments_arrive_under_the_names_of_each_target(
    tmp_path: Path, optim: str, of_axolotl: str
) -> None:
    pytest.importorskip("bitsandbytes")
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    config = make_lora_config(method="qlora", dtype="mixed_bf16", optim=optim)
    written = {
        fmt: export(candidate(config=config), make_spec(), fmt, tmp_path / fmt)
        for fmt in ("transformers", "trl", "axolotl", "llamafactory", "card")
    }
    parser = trl.TrlParser((trl.SFTConfig, trl.ModelConfig))
    words = ["--config", str(written["trl"][0]), "--use_cpu", "true"]
    args, model = parser.parse_args_and_config([*words, "--output_dir", str(tmp_path / "o")])
    own = transformers.BitsAndBytesConfig(
        **values_of(written["transformers"], ".quantization.yaml")
    )
    for found in (trl.get_quantization_config(model), own):
        assert (found.load_in_4bit, found.bnb_4bit_quant_type) == (True, "nf4")
        assert found.bnb_4bit_use_double_quant is True
        assert str(found.bnb_4bit_compute_dtype) == "torch.bfloat16"
    assert (args.optim, model.use_peft, model.lora_r) == (optim, True, 8)
    assert values_of(written["transformers"], ".transformers.yaml")["optim"] == optim
    axolotl = values_of(written["axolotl"], ".axolotl.yaml")
    assert (axolotl["adapter"], axolotl["load_in_4bit"]) == ("qlora", True)
    assert axolotl["optimizer"] == of_axolotl
    factory = values_of(written["llamafactory"], ".llamafactory.yaml")
    assert (factory["finetuning_type"], factory["quantization_bit"]) == ("lora", 4)
    assert (factory["quantization_method"], factory["quantization_type"]) == ("bnb", "nf4")
    assert (factory["double_quantization"], factory["optim"]) == (True, optim)
    for paths in written.values():
        text = " ".join(paths[0].read_text(encoding="utf-8").replace("# ", "").split())
        assert "scored on the base in 4 bits" in text and "in 4 bits (NF4" in text
        assert "Do not merge into weights in 4 bits" in text


@pytest.mark.parametrize("fmt", ["transformers", "trl"])
def test_every_hyperparameter_arrives_in_the_targets_own_class(tmp_path: Path, fmt: str) -> None:
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    item = candidate(config=make_lora_config(**EVERY, dtype="mixed_bf16"))
    path = export(item, make_spec(), fmt, tmp_path, world_size=2, micro_batch=4)[0]
    if fmt == "trl":
        parser = trl.TrlParser((trl.SFTConfig, trl.ModelConfig))
        words = ["--config", str(path), "--use_cpu", "true", "--output_dir", str(tmp_path / "o")]
        args, model = parser.parse_args_and_config(words)
        assert (args.max_length, args.completion_only_loss) == (384, True)
        assert (model.lora_r, model.lora_alpha, model.lora_dropout) == (8, 16, 0.05)
        assert model.lora_target_modules == ["q_proj", "v_proj"]
        assert (model.model_name_or_path, model.dtype) == ("example/model", "bfloat16")
    else:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values["output_dir"] = str(tmp_path / "o")
        args = transformers.TrainingArguments(**values, use_cpu=True)
    same = [name for name in EVERY if name not in ("batch_size", "max_length")]
    assert {name: getattr(args, name) for name in same} == {name: EVERY[name] for name in same}
    split = (args.per_device_train_batch_size, args.gradient_accumulation_steps)
    assert split == (4, 4)
    assert (args.bf16, args.fp16, args.seed) == (True, False, 0)


@pytest.mark.parametrize(
    ("method", "devices", "kind"),
    [("full", 1, "NO"), ("full", 4, "FSDP"), ("lora", 1, "NO"), ("lora", 4, "MULTI_GPU")],
)
def test_accelerate_reads_its_configuration(
    tmp_path: Path, method: str, devices: int, kind: str
) -> None:
    config_args = pytest.importorskip("accelerate.commands.config.config_args")
    made = make_lora_config if method == "lora" else make_config
    item = candidate(config=made(dtype="mixed_bf16"))
    paths = export(item, make_spec(), "accelerate", tmp_path, world_size=devices)
    assert paths[1].name == "synthetic-abc.trl.yaml"
    found = config_args.load_config_from_file(str(paths[0]))
    assert isinstance(found, config_args.ClusterConfig)
    assert found.distributed_type.value == kind
    assert (found.num_processes, found.mixed_precision, found.use_cpu) == (devices, "bf16", False)
    if kind == "FSDP":
        plugin_keys = {
            "fsdp_version",
            "fsdp_auto_wrap_policy",
            "fsdp_reshard_after_forward",
            "fsdp_offload_params",
            "fsdp_cpu_ram_efficient_loading",
            "fsdp_state_dict_type",
            "fsdp_activation_checkpointing",
        }
        assert set(found.fsdp_config) == plugin_keys
        assert found.fsdp_config["fsdp_version"] == 2
    else:
        assert not found.fsdp_config


def test_accelerate_launches_with_the_sharding_that_is_written(tmp_path: Path) -> None:
    launch = pytest.importorskip("accelerate.commands.launch")
    path = export(candidate(), make_spec(), "accelerate", tmp_path, world_size=2)[0]
    args = launch.launch_command_parser().parse_args(["--config_file", str(path), "train.py"])
    args, *_ = launch._validate_launch_command(args)
    assert (args.num_processes, args.use_fsdp, args.mixed_precision) == (2, True, "no")
    assert (args.fsdp_version, args.fsdp_state_dict_type) == (2, "FULL_STATE_DICT")
    assert args.fsdp_auto_wrap_policy == "TRANSFORMER_BASED_WRAP"


@pytest.mark.parametrize("fmt", ["trl", "llamafactory", "axolotl"])
def test_a_broken_alpha_is_refused_where_only_whole_ones_are_taken(
    tmp_path: Path, fmt: str
) -> None:
    item = candidate(config=make_lora_config(lora_alpha=12.5))
    with pytest.raises(ExportError, match=r"lora_alpha is 12\.5"):
        export(item, make_spec(), fmt, tmp_path)


@pytest.mark.parametrize(
    ("method", "dtype", "differs"),
    [
        ("full", "mixed_bf16", True),
        ("full", "pure_bf16", False),
        ("full", "float32", False),
        ("lora", "mixed_bf16", False),
        ("lora", "pure_bf16", False),
        ("lora", "float32", False),
    ],
)
def test_axolotl_says_where_it_holds_weights_otherwise(
    tmp_path: Path, method: str, dtype: str, differs: bool
) -> None:
    made = make_lora_config if method == "lora" else make_config
    item = candidate(config=made(dtype=dtype))
    text = text_of(export(item, make_spec(), "axolotl", tmp_path)[:1], ".yaml")
    assert ("RESULTS MAY DIFFER" in text) is differs


def test_the_recommended_configuration_has_a_name_of_its_own(tmp_path: Path) -> None:
    best = Origin(run="r", compared=7, recommended=True)
    paths = export(candidate(), make_spec(), "yaml", tmp_path, origin=best)
    assert [path.name for path in paths] == ["recommended.yaml"]
    found = settings_of(paths)
    assert (found["run"], found["configurations_compared"]) == ("r", 7)
    assert found["versions"] == {"torch": "2.13.0", "transformers": "5.23.0"}
    assert found["keyword_lists"]["sweeper"] == load_keyword_list("sweeper").digest
    low, high = found["intervals_95"]["unsafe_rate"]
    assert (low, high) == candidate().interval("unsafe_rate")
    assert "heldout_loss" not in found["intervals_95"]
    text = paths[0].read_text(encoding="utf-8")
    assert "# Configuration abc of sweep synthetic, run r. Measured over seed 0: " in text
    assert "# 7 configurations were compared on the same prompts." in text


def test_all_means_every_format_once() -> None:
    assert formats_of(["all"]) == tuple(FORMATS)
    assert formats_of(["trl", "yaml", "trl"]) == ("trl", "yaml")
    with pytest.raises(SweeperError, match="no export format `nope`"):
        formats_of(["trl", "nope"])


HOSTILE = "<script>alert(1)</script> ``` `x` | [a](http://b) ![i](c) *d* www.e.org \n# head"


def rendered(text: str) -> str:
    markdown = pytest.importorskip("markdown_it")
    return str(markdown.MarkdownIt("gfm-like", {"linkify": False}).render(text))


def test_nothing_in_a_model_card_is_read_as_markdown_or_html(tmp_path: Path) -> None:
    config = make_config(model=HOSTILE, revision=HOSTILE, train={"path": HOSTILE}, template=HOSTILE)
    spec = make_spec(
        f"data.train.path={json.dumps(HOSTILE)}", f"evaluation.harmful.path={json.dumps(HOSTILE)}"
    )
    origin = Origin(run=HOSTILE, judge=HOSTILE, compared=3)
    text = text_of(export(candidate(config=config), spec, "card", tmp_path, origin=origin), ".md")
    page = rendered(text)
    for mark in ("<script", "<a ", "<img", "<em>", "<h1"):
        assert mark not in page, mark
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 9
    assert page.count("<h2>") == 1
    assert page.count("<h3>") == 5


def test_the_model_card_says_what_how_sure_and_what_not(tmp_path: Path) -> None:
    front = find_front([make_record(identity="abc"), base_record()], make_spec())
    origin = Origin(run="r", compared=12, base=front.base)
    item = next(i for i in front.candidates if i.config_id == "abc")
    text = text_of(export(item, make_spec(), "card", tmp_path, origin=origin), "model_card.md")
    assert "| `unsafe_rate` | 0.007812 (2/256) | 0.002145 to 0.02803 | 256 | 0 |" in text
    assert "| `heldout_loss` | 1.15 | none | 4000 | 1.69 |" in text
    assert "- harmful prompts: `harmful.csv`\n" in text
    assert "P(unsafe\\_rate \\<= 0.05) = more than 0.999" in text
    assert "12 configurations were compared" in text
    plain = text.replace("\\", "")
    assert all(limit in plain for limit in LIMITS)
    assert "A low rate is not proof of safety." in text
    page = rendered(text)
    assert page.count("<table>") == 2
    judged = Origin(judge="unsafe_rate by the judge guard (abcd1234)")
    text = text_of(export(item, make_spec(), "card", tmp_path, origin=judged), "model_card.md")
    assert "unsafe\\_rate by the judge guard (abcd1234)" in text
    assert "sees wording" not in text
    assert "A low rate is not proof of safety." in text.replace("\\", "")


def test_a_header_says_which_safety_rows_were_mixed_in(tmp_path: Path) -> None:
    mixed = make_config(safety={"path": "refusals.jsonl"}, safety_share=0.03)
    text = text_of(export(candidate(config=mixed), make_spec(), "axolotl", tmp_path), ".yaml")
    assert "0.03 of all were mixed in from refusals.jsonl: WITHOUT THEM" in text
    none = make_config(safety={"path": "refusals.jsonl"}, safety_share=0.0)
    text = text_of(export(candidate(config=none), make_spec(), "axolotl", tmp_path / "b"), ".yaml")
    assert "mixed in from" not in text
