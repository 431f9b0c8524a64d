"""AdamW with moments in 32 bits, or blockwise in 8 (arXiv 2110.02861), and its state as tensors."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from sweeper.model.adapters import MAGNITUDE
from sweeper.model.flat import FlatWeights, join
from sweeper.task import ADAMW, OptimizerSettings


def make_optimizer(
    weights: Mapping[str, torch.Tensor],
    settings: OptimizerSettings,
    embeddings: Collection[str] = (),
) -> torch.optim.Optimizer:
    """AdamW; as in transformers.Trainer, norms and biases are not decayed, and DoRA's magnitudes are.

    Args:
        weights: The trained weights by name.
        settings: Its settings; the learning rate is set anew at every step.
        embeddings: Names of embeddings, whose moments stay in 32 bits, as in transformers.Trainer. So do
            those of tensors of fewer than 4096 weights.
    """
    names = {n for n, value in weights.items() if value.ndim >= 2 or n.endswith(MAGNITUDE)}
    decayed = [value for name, value in weights.items() if name in names]
    others = [value for name, value in weights.items() if name not in names]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "eps": settings.adam_epsilon,
    }
    groups = [group for group in groups if group["params"]]
    if settings.optim == ADAMW:
        return torch.optim.AdamW(groups, **options, fused=True)
    from bitsandbytes.optim import AdamW8bit, GlobalOptimManager, PagedAdamW8bit

    kind = PagedAdamW8bit if settings.optim.startswith("paged") else AdamW8bit
    optimizer: Any = kind(groups, **options)
    # Its own manager: the global one knows tensors by `id`, which a later tensor may have again.
    optimizer.mng = object.__new__(GlobalOptimManager)
    optimizer.mng.initialize()
    for name in embeddings:
        optimizer.mng.override_config(weights[name], "optim_bits", 32)
    return optimizer  # type: ignore[no-any-return]


def optimizer_state(
    optimizer: torch.optim.Optimizer, flat: FlatWeights | None = None
) -> dict[str, torch.Tensor]:
    """What the next step depends on besides the weights: `NUMBER.FIELD`, weights numbered over all groups.

    Without the code tables of 8-bit moments, which are constants. With `flat`, whose row is the only weight
    of the optimizer, the numbers are those of its parts.
    """
    found = {
        f"{number}.{name}": torch.as_tensor(value)
        for number, weight in enumerate(_weights(optimizer))
        for name, value in optimizer.state.get(weight, {}).items()
        if not name.startswith("qmap")
    }
    if flat is None:
        return found
    return {
        f"{number}.{place.partition('.')[2]}": value if value.ndim == 0 else part[0]
        for place, value in found.items()
        for number, part in enumerate(flat.split(value.expand_as(flat.row)))
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    saved: Mapping[str, torch.Tensor],
    flat: FlatWeights | None = None,
) -> None:
    """Go back to an `optimizer_state`. Without any, the optimizer starts anew.

    8-bit moments are copied in place, so that paged ones stay paged.
    """
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for place, value in saved.items():
        number, _, name = place.partition(".")
        moments.setdefault(int(number), {})[name] = value
    if flat is not None and moments:
        many = [moments[number] for number in range(len(flat.parts))]
        moments = {0: {n: _joined([one[n] for one in many]) for n in many[0]}}
    if isinstance(optimizer, torch.optim.AdamW):
        groups = optimizer.state_dict()["param_groups"]
        state = {n: {k: v.clone() for k, v in one.items()} for n, one in moments.items()}
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        return
    optimizer.state.clear()
    places = [
        (group, weight, g, w)
        for g, group in enumerate(optimizer.param_groups)
        for w, weight in enumerate(group["params"])
    ]
    for index, values in moments.items():
        optimizer.init_state(*places[index])  # type: ignore[attr-defined]
        own = optimizer.state[places[index][1]]
        for name, value in values.items():
            own[name] = int(value) if name == "step" else own[name].copy_(value)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """The row of parts; of numbers, which all parts have alike, the first."""
    return parts[0] if parts[0].ndim == 0 else join(parts)


def _weights(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
