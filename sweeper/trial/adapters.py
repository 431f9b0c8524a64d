"""LoRA adapters that share one frozen base model, in training and in scoring.

Every target layer of the base model is wrapped once. A batch consists of equal blocks of rows, the slots,
and every slot adds the low-rank product of its own adapter to what the shared frozen layer gives:
`y = x W^T + scaling * (x A^T) B^T` (LoRA, arXiv 2106.09685), with A and B stacked over the slots. A slot
computes what it would compute alone: no operation mixes rows.

peft decides which layers are targets and how factors are initialised and scaled; only the forward pass is
ours, because peft's mixed batches are for inference only.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.task import Tuning


@dataclass(frozen=True)
class Adapter:
    """The factors of one adapter: per target layer A (rank, in) and B (out, rank), in the model's order."""

    factors: dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]
    scaling: dict[str, float]
    dropout: float

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trainable weights by name: A, then B, of one layer after the other."""
        return {
            f"{layer}.lora_{letter}": value
            for layer, pair in self.factors.items()
            for letter, value in zip("AB", pair, strict=True)
        }


def new_adapter(model: PreTrainedModel, tuning: Tuning, seed: int) -> Adapter:
    """A fresh adapter as peft makes it; B is zero, so the adapted model is the base model.

    Raises:
        ModelError: a LoRA target that the model does not have.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        r=tuning.lora_r,
        lora_alpha=tuning.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=tuning.lora_dropout,
        target_modules=list(tuning.lora_target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        wrapped: Any = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"tuning.lora_target_modules: {error}") from None
    prefix = "base_model.model."
    factors, scaling = {}, {}
    for full_name, layer in wrapped.named_modules():
        if isinstance(layer, LoraLayer):
            name = full_name.removeprefix(prefix)
            pair: Any = (layer.lora_A["default"], layer.lora_B["default"])
            factors[name] = (
                torch.nn.Parameter(pair[0].weight.detach()),
                torch.nn.Parameter(pair[1].weight.detach()),
            )
            scaling[name] = float(layer.scaling["default"])
    wrapped.base_model.unload()
    return Adapter(factors, scaling, tuning.lora_dropout)


class SlottedLinear(torch.nn.Module):
    """A frozen linear layer whose rows, in equal blocks, each use the adapter of their slot."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down: torch.Tensor | None = None  # (slots, rank, in)
        self.up: torch.Tensor | None = None  # (slots, out, rank)
        self.scaling: torch.Tensor = torch.ones(())  # (slots, 1, 1)
        self.masks: Sequence[tuple[float, torch.Generator]] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, length, in) -> (rows, length, out)."""
        y: torch.Tensor = self.base(x)
        if self.down is None or self.up is None:
            return y
        blocks = x.reshape(len(self.down), -1, x.shape[-1]).to(self.down.dtype)
        if self.masks:
            blocks = _dropped(blocks, self.masks)
        low = torch.bmm(blocks, self.down.mT) * self.scaling
        wide = y.reshape(len(self.down), -1, y.shape[-1])
        if y.dtype == self.down.dtype:
            if torch.is_grad_enabled():
                return torch.baddbmm(wide, low, self.up.mT).view_as(y)
            return wide.baddbmm_(low, self.up.mT).view_as(
                y
            )  # y is nobody else's: no copy is needed.
        return (wide + torch.bmm(low, self.up.mT)).to(y.dtype).view_as(y)


def _dropped(blocks: torch.Tensor, masks: Sequence[tuple[float, torch.Generator]]) -> torch.Tensor:
    """Dropout with a generator per slot, so that a slot's mask does not depend on its neighbours."""
    kept = [
        torch.rand(block.shape, generator=generator, device=block.device) >= rate
        for block, (rate, generator) in zip(blocks, masks, strict=True)
    ]
    scale = torch.tensor([1 / (1 - rate) for rate, _ in masks], device=blocks.device)
    return blocks * (torch.stack(kept) * scale[:, None, None].to(blocks.dtype))


class Slots:
    """The wrapped target layers of a base model, and what their slots hold.

    Install, use, `remove`: afterwards the model is what it was. Not thread-safe.
    """

    def __init__(self, model: PreTrainedModel, layers: Iterable[str]) -> None:
        self._model = model
        self._layers: dict[str, SlottedLinear] = {}
        self._stacks: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        self._scalings: dict[tuple[float, ...], torch.Tensor] = {}
        for name in layers:
            base = model.get_submodule(name)
            assert isinstance(base, torch.nn.Linear)
            self._layers[name] = SlottedLinear(base)
            self._put(name, self._layers[name])

    def remove(self) -> None:
        """Put the model's own layers back."""
        for name, layer in self._layers.items():
            self._put(name, layer.base)
        self._layers = {}

    def _put(self, name: str, layer: torch.nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self._model.get_submodule(parent), child, layer)

    def hold(
        self,
        adapters: Sequence[Adapter],
        values: Sequence[Sequence[torch.Tensor] | None] | None = None,
        generators: Sequence[torch.Generator] = (),
    ) -> None:
        """Give every slot an adapter; lower ranks are filled up with zeros, which change nothing.

        Args:
            adapters: One per slot.
            values: Weights to use in place of an adapter's own, in the order of `parameters`.
            generators: One per slot, for dropout; none switches dropout off.
        """
        values = values or [None] * len(adapters)
        own = [list(adapter.parameters().values()) for adapter in adapters]
        used = [
            mine if theirs is None else theirs for mine, theirs in zip(own, values, strict=True)
        ]
        masks = tuple(zip((adapter.dropout for adapter in adapters), generators, strict=False))
        for number, (name, layer) in enumerate(self._layers.items()):
            dtype = own[0][2 * number].dtype
            down = _stacked([weights[2 * number].to(dtype) for weights in used], dim=0)
            up = _stacked([weights[2 * number + 1].to(dtype) for weights in used], dim=1)
            scaling = self._scaling(tuple(item.scaling[name] for item in adapters), down)
            self._stacks[name] = (down, up, scaling)
            layer.down, layer.up, layer.scaling = down, up, scaling
            layer.masks = masks if any(rate for rate, _ in masks) else ()

    def _scaling(self, factors: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
        """(slots, 1, 1). Kept, because copying numbers to a GPU in every layer and step takes time."""
        if factors not in self._scalings:
            made = torch.tensor(factors, device=like.device, dtype=like.dtype)
            self._scalings[factors] = made[:, None, None]
        return self._scalings[factors]

    def arrange(self, owners: Sequence[int]) -> None:
        """Let equal blocks of rows use the held adapters `owners`, one per block."""
        for name, layer in self._layers.items():
            stacks = self._stacks[name]
            if list(owners) != list(range(len(stacks[0]))):
                index = torch.tensor(owners, device=stacks[0].device)
                stacks = (stacks[0][index], stacks[1][index], stacks[2][index])
            layer.down, layer.up, layer.scaling = stacks

    def clear(self) -> None:
        """Let go of all adapters: the model is the base model."""
        self._stacks = {}
        for layer in self._layers.values():
            layer.down = layer.up = None
            layer.masks = ()

    @contextmanager
    def holding(
        self, adapters: Sequence[Adapter], values: Sequence[Sequence[torch.Tensor] | None]
    ) -> Iterator[None]:
        """Hold weights for a while."""
        self.hold(adapters, values)
        try:
            yield
        finally:
            self.clear()


def _stacked(factors: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """Stack factors, filled up with zeros along the rank axis `dim`."""
    if len(factors) == 1:
        return factors[0].unsqueeze(0)
    rank = max(factor.shape[dim] for factor in factors)
    if any(factor.shape[dim] < rank for factor in factors):
        factors = [_filled(factor, rank, dim) for factor in factors]
    return torch.stack(list(factors))


def _filled(factor: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    missing = rank - factor.shape[dim]
    after = [0, missing] if dim == 1 else [0, 0, 0, missing]
    return torch.nn.functional.pad(factor, after)
