"""The name of a configuration for people: `lr 4e-3, batch 16, 200 steps, 15 % original`."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sweeper.task.model import ALL_LINEAR
from sweeper.task.optimizer import ADAMW


def configuration_name(config: Mapping[str, Any], swept: Collection[str]) -> str:
    """The swept hyperparameters of a configuration in short words, those of every sweep first.

    Values that differ after their third significant digit only have one name: show the id beside it
    where configurations have to be told apart.

    Args:
        config: The values of a configuration, as plans and records state them.
        swept: The hyperparameters to name; one that `config` does not have is left out.

    Returns:
        The words, separated by commas; empty where nothing is swept.
    """
    names = [*(name for name in _WORDS if name in swept), *(n for n in swept if n not in _WORDS)]
    return ", ".join(
        _WORDS[name](config[name]) if name in _WORDS else f"{name} {value_text(config[name])}"
        for name in names
        if name in config
    )


def value_text(value: Any) -> str:
    """A value as people write it: `4e-3`, `0.05`, `200`; a float has three significant digits.

    A decay such as 0.9995, and what is not below 1000, has six. Lists and mappings are compact JSON.
    """
    if isinstance(value, float):
        if 0 < abs(value) < 0.01:
            return _scientific(value)
        return f"{value:.3g}" if abs(value) <= 0.9 or 1 <= abs(value) < 1000 else f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _scientific(value: float) -> str:
    """`4e-3`, `2.5e-5`: no zeros that say nothing."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _learning_rate(value: float) -> str:
    """Always with an exponent below 1, so that the rates of one sweep are written alike."""
    return f"lr {_scientific(value) if 0 < value < 1 else value_text(float(value))}"


def _before(word: str) -> Callable[[Any], str]:
    return lambda value: f"{word} {value_text(value)}"


def _after(word: str) -> Callable[[Any], str]:
    return lambda value: f"{value_text(value)} {word}"


def _share(word: str) -> Callable[[float], str]:
    return lambda value: f"{100 * value:.3g} % {word}"


def _switch(word: str) -> Callable[[bool], str]:
    return lambda value: word if value else f"no {word}"


def _one_of(words: Mapping[str, str]) -> Callable[[str], str]:
    return lambda value: words.get(value, value)


def _clipping(value: float) -> str:
    return f"clip {value_text(value)}" if value else "no clipping"


def _layers(value: Any) -> str:
    names = [value] if isinstance(value, str) else value
    return "all linear layers" if list(names) == [ALL_LINEAR] else "+".join(names)


def _template(value: Any) -> str:
    """The format, or that of training and of scoring; `+system` where it has its own system prompt."""
    if isinstance(value, str):
        return f"{value} format"
    sides = [
        side["name"] + ("+system" if side.get("system") is not None else "")
        for side in (value["train"], value["test"])
    ]
    return (
        f"{sides[0]} format" if sides[0] == sides[1] else f"trained {sides[0]}, scored {sides[1]}"
    )


def _average(label: str) -> str:
    """The label of an average in words: `interpolate(0.15)` is `15 % original`."""
    kind, _, inside = label.removesuffix(")").partition("(")
    settings = inside.replace("=", " ")
    if kind == "interpolate":
        return _share("original")(float(inside))
    if kind == "ema" and inside.startswith("retention="):
        return f"EMA {_share('original')(float(inside.removeprefix('retention=')))}"
    if kind in ("ema", "feedback"):
        return f"{'EMA' if kind == 'ema' else kind} {settings.replace(',', '')}"
    if kind == "bema":
        return f"BEMA ({settings})" if settings else "BEMA"
    return "unaveraged" if kind == "raw" else label


_SCHEDULES = {
    "constant": "constant lr",
    "constant_with_warmup": "constant lr with warmup",
    "inverse_sqrt": "inverse sqrt lr",
    "warmup_stable_decay": "WSD",
    "linear": "linear decay",
    "cosine": "cosine decay",
}

_OPTIMIZERS = {ADAMW: "AdamW", "adamw_8bit": "8-bit AdamW", "paged_adamw_8bit": "paged 8-bit AdamW"}

_WORDS: dict[str, Callable[[Any], str]] = {
    "learning_rate": _learning_rate,
    "batch_size": _before("batch"),
    "max_steps": _after("steps"),
    "lr_scheduler_type": _one_of(_SCHEDULES),
    "warmup_steps": _after("warmup steps"),
    "decay_steps": _after("decay steps"),
    "weight_decay": _before("weight decay"),
    "adam_beta1": _before("beta1"),
    "adam_beta2": _before("beta2"),
    "adam_epsilon": _before("eps"),
    "max_grad_norm": _clipping,
    "optim": _one_of(_OPTIMIZERS),
    "lora_r": _before("r"),
    "lora_alpha": _before("alpha"),
    "lora_dropout": _before("dropout"),
    "lora_target_modules": _layers,
    "use_rslora": _switch("rsLoRA"),
    "use_dora": _switch("DoRA"),
    "template": _template,
    "safety_share": _share("safety rows"),
    "average": _average,
}
"""A hyperparameter -> its value in words; the order is that of a name."""
