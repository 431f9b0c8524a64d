"""Which layers of a model get a LoRA adapter."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import torch
from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.task import ALL_LINEAR, Tuning

KEY = "tuning.lora_target_modules"


def target_layers(model: PreTrainedModel, tuning: Tuning) -> tuple[str, ...]:
    """The full names of the layers with an adapter, in the model's order.

    A target is the name of a layer or the end of it, from a dot on, as in peft. `all-linear` is every
    linear layer but the output layer. Only the language model counts, not the vision tower of a model that
    has one.

    Args:
        model: The model; its weights are not read, so they may be on the meta device.
        tuning: A tuning with `method: lora`.

    Raises:
        ModelError: a target that no layer has; one that matches the output layer, the embeddings or a layer
            that is not linear; `all-linear` beside others, or in a model without linear layers.
    """
    decoder = set(model.get_decoder().modules())
    modules = dict(model.named_modules())
    tables = {id(model.get_output_embeddings()), id(model.get_input_embeddings())}
    linear = {
        name: layer
        for name, layer in modules.items()
        if isinstance(layer, torch.nn.Linear) and layer in decoder and id(layer) not in tables
    }
    targets = tuning.lora_target_modules
    if ALL_LINEAR in targets:
        _check_all_linear(targets, linear, model)
        return tuple(linear)
    matches = {target: [name for name in modules if _matches(name, target)] for target in targets}
    _check_known(matches, linear, model)
    for target, names in matches.items():
        inside = [name for name in names if modules[name] in decoder]
        for name in inside or names:
            if name not in linear:
                _refuse(target, name, modules[name], id(modules[name]) in tables)
    wanted = {name for names in matches.values() for name in names}
    return tuple(name for name in linear if name in wanted)


def _matches(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _check_all_linear(
    targets: Sequence[str], linear: Mapping[str, object], model: PreTrainedModel
) -> None:
    if len(targets) > 1:
        raise ModelError(
            f"{KEY}: `{ALL_LINEAR}` already stands for every linear layer but the output layer, so no "
            f"other name goes with it (found {', '.join(targets)}); keep it alone, or name the layers",
            code="model.unknown_layer",
            layer=ALL_LINEAR,
        )
    if not linear:
        raise ModelError(
            f"{KEY}: `{model.config.model_type}` has no `torch.nn.Linear` layer that an adapter could be "
            "added to; use `tuning.method: full`, or another model",
            code="model.unsupported_layer",
            layer=ALL_LINEAR,
        )


def _check_known(
    matches: Mapping[str, Sequence[str]], linear: Mapping[str, object], model: PreTrainedModel
) -> None:
    unknown = [target for target, names in matches.items() if not names]
    if not unknown:
        return
    short = sorted({name.rpartition(".")[2] for name in linear})
    ends = {".".join(name.split(".")[-parts:]) for name in linear for parts in (1, 2, 4)}
    near = sorted({near for target in unknown for near in get_close_matches(target, ends, 2)})
    hint = f"; similar names are {', '.join(near)}" if near else ""
    named = ", ".join(f"`{target}`" for target in unknown)
    raise ModelError(
        f"{KEY}: no layer of this `{model.config.model_type}` model matches {named}{hint}; its linear "
        f"layers are {', '.join(short) or 'none'}, or use `{ALL_LINEAR}`",
        code="model.unknown_layer",
        layer=unknown[0],
        layers=unknown,
    )


def _refuse(target: str, name: str, layer: torch.nn.Module, table: bool) -> None:
    what = "the output layer or the embeddings" if table else f"a {type(layer).__name__}"
    what += (
        "" if table or not isinstance(layer, torch.nn.Linear) else " outside of the language model"
    )
    raise ModelError(
        f"{KEY}: `{target}` matches `{name}`, {what}; adapters are added to linear layers inside the "
        "blocks of the language model only: name those, or use `tuning.method: full`",
        code="model.unsupported_layer",
        layer=target,
    )
