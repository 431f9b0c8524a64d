"""Names of configurations for people."""

import pytest

from sweeper.planning.configurations import configurations_of
from sweeper.spec import load_spec
from sweeper.spec.space import SpaceSpec
from sweeper.task import configuration_name

WORDS: dict[str, list[tuple[object, str]]] = {
    "learning_rate": [(4e-3, "lr 4e-3"), (2.5e-5, "lr 2.5e-5"), (0.05, "lr 5e-2"), (1.0, "lr 1")],
    "batch_size": [(16, "batch 16"), (1024, "batch 1024")],
    "max_steps": [(200, "200 steps"), (12345, "12345 steps")],
    "average": [
        ("raw", "unaveraged"),
        ("interpolate(0.15)", "15 % original"),
        ("interpolate(0.133253)", "13.3 % original"),
        ("ema(0.98)", "EMA 0.98"),
        ("ema(0.9995)", "EMA 0.9995"),
        ("ema(retention=0.5)", "EMA 50 % original"),
        ("bema", "BEMA"),
        ("bema(update_freq=5, lag=20)", "BEMA (update_freq 5, lag 20)"),
        ("feedback(0.9, every=4)", "feedback 0.9 every 4"),
        ("unknown(1)", "unknown(1)"),
    ],
    "lr_scheduler_type": [
        ("constant", "constant lr"),
        ("constant_with_warmup", "constant lr with warmup"),
        ("inverse_sqrt", "inverse sqrt lr"),
        ("warmup_stable_decay", "WSD"),
        ("linear", "linear decay"),
        ("cosine", "cosine decay"),
    ],
    "warmup_steps": [(20, "20 warmup steps"), (0, "0 warmup steps")],
    "decay_steps": [(10, "10 decay steps")],
    "weight_decay": [(0.0, "weight decay 0"), (0.01, "weight decay 0.01")],
    "adam_beta1": [(0.9, "beta1 0.9")],
    "adam_beta2": [(0.999, "beta2 0.999"), (0.9995, "beta2 0.9995")],
    "adam_epsilon": [(1e-8, "eps 1e-8")],
    "max_grad_norm": [(1.0, "clip 1"), (0.0, "no clipping")],
    "optim": [
        ("adamw_torch_fused", "AdamW"),
        ("adamw_8bit", "8-bit AdamW"),
        ("paged_adamw_8bit", "paged 8-bit AdamW"),
    ],
    "lora_r": [(8, "r 8")],
    "lora_alpha": [(16.0, "alpha 16"), (1024.0, "alpha 1024"), (0.005, "alpha 5e-3")],
    "lora_dropout": [(0.05, "dropout 0.05")],
    "lora_target_modules": [
        (["q_proj", "v_proj"], "q_proj+v_proj"),
        (["all-linear"], "all linear layers"),
    ],
    "use_rslora": [(True, "rsLoRA"), (False, "no rsLoRA")],
    "use_dora": [(True, "DoRA"), (False, "no DoRA")],
    "template": [
        ("llama2", "llama2 format"),
        (
            {"train": {"name": "chat", "system": "S"}, "test": {"name": "chat", "system": "S"}},
            "chat+system format",
        ),
        ({"train": {"name": "alpaca"}, "test": {"name": "chat"}}, "trained alpaca, scored chat"),
    ],
    "safety_share": [(0.1, "10 % safety rows"), (0.025, "2.5 % safety rows")],
}


def test_every_dimension_of_a_space_has_words() -> None:
    assert WORDS.keys() == set(SpaceSpec.model_fields) - {"num_epochs"}  # Epochs become steps.


@pytest.mark.parametrize(
    ("name", "value", "words"), [(name, *pair) for name, found in WORDS.items() for pair in found]
)
def test_words_of_a_value(name: str, value: object, words: str) -> None:
    assert configuration_name({name: value}, [name]) == words


def test_only_swept_settings_are_named_in_one_order() -> None:
    config = {
        "average": "interpolate(0.15)",
        "batch_size": 16,
        "learning_rate": 4e-3,
        "lora_r": 8,
        "max_steps": 200,
        "new": 3,
    }
    swept = ["average", "batch_size", "learning_rate", "max_steps"]
    assert configuration_name(config, swept) == "lr 4e-3, batch 16, 200 steps, 15 % original"
    assert configuration_name(config, [*swept, "lora_r"]).endswith(", r 8, 15 % original")
    assert configuration_name(config, ["new", "lora_r", "missing"]) == "r 8, new 3"
    assert configuration_name(config, []) == ""


def test_the_configurations_of_the_miniature_have_different_names() -> None:
    swept = ("learning_rate", "batch_size", "max_steps", "average")
    found = [c for c in configurations_of(load_spec("miniature")) if c.role == "candidate"]
    names = {configuration_name(item.values, swept) for item in found}
    assert len(names) == len(found) == 120
    assert "lr 8e-3, batch 4, 150 steps, unaveraged" in names
    assert max(map(len, names)) <= 45
