"""Exports parsed by their targets' own classes, and the callback against a hand-written loop."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from factories import base_record, make_config, make_lora_config, make_record, make_spec

from sweeper.errors import RunFolderError, SweeperError
from sweeper.export import FORMATS, export
from sweeper.export.header import one_line
from sweeper.export.job import split_batch
from sweeper.front import Candidate, find_front
from sweeper.keywords import load_keyword_list
from sweeper.records import TrialRecord

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
        assert "unsafe_rate 2/256 = 0.8 % (95 % interval 0.2 to 2.8 %)" in text


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
    assert values["averaging"] == {"kind": "ema", "decay": 0.99, "weight": None, "every": None}
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
    assert "unsafe_rate 2/256 = 0.8 % (95 % interval 0.2 to 2.8 %)" in text
    assert f"Verdicts by the keyword list sweeper ({load_keyword_list('sweeper').digest})" in text
    assert "Measured with torch 2.13.0, transformers 5.23.0" in text
    averaged = average != "raw"
    brings = fmt not in ("card", "torchtune")
    assert (tmp_path / "ema_callback.py").exists() == (averaged and brings)
    if fmt != "card":
        assert "Effective batch 8 = 4 per device x 1 accumulated x 2 device(s)" in text
        assert ("THE NUMBERS DO NOT HOLD" in text) == averaged
    assert ("HAS NO HOOK FOR THAT" in text) == (averaged and fmt == "torchtune")


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
    with pytest.raises(SweeperError, match="no export format `tune`; there are trl"):
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
    averaging = pytest.importorskip("sweeper.trial.averaging")
    path, start, end = walk(callback_of(tmp_path, "ema(0.99)"), torch.float32)
    shadow = averaging.Shadow([start], 0.99)
    for weights in path:
        shadow.update([weights])
    assert torch.equal(shadow.values[0], end)


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
