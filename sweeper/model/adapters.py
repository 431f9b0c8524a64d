"""LoRA adapters that share one frozen base model, in training and in scoring.

Every target layer of the base model is wrapped once. A batch consists of equal blocks of rows, the slots,
and every slot adds the low-rank product of its own adapter to what the shared frozen layer gives:
`y = x W^T + scaling * (x A^T) B^T` (LoRA, arXiv 2106.09685), with A and B stacked over the slots. A slot
computes what it would compute alone: no operation mixes rows.

With DoRA (arXiv 2402.09353) each output is rescaled to a learned magnitude,
`y = magnitude / norm * (x W^T + scaling * (x A^T) B^T)`, where `norm` is the length of each row of
`W + scaling * B A` and no gradient flows through it (section 4.3 there).

peft decides which layers are targets and how factors are initialised and scaled; only the forward pass is
ours, because peft's mixed batches are for inference only.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from sweeper.errors import ModelError
from sweeper.model.flat import FlatWeights
from sweeper.model.quantized import plain_weight
from sweeper.model.targets import target_layers
from sweeper.task import ALL_LINEAR, Tuning

MAGNITUDE = "lora_magnitude_vector"
PARTS = ("lora_A", "lora_B", MAGNITUDE)
"""peft's names of an adapter's parameters in a layer, in our order."""


@dataclass(frozen=True)
class Adapter:
    """The factors of one adapter, per target layer in the model's order.

    A (rank, in) and B (out, rank), and with DoRA the magnitude (out,); all of them lie in `flat`.
    """

    factors: dict[str, tuple[torch.nn.Parameter, ...]]
    scaling: dict[str, float]
    dropout: float
    flat: FlatWeights

    def parameters(self) -> "AdapterWeights":
        """The trainable weights by name, layer by layer: A, then B, then the magnitude."""
        names = [
            f"{layer}.{name}"
            for layer, parts in self.factors.items()
            for name, _ in zip(PARTS, parts, strict=False)
        ]
        return AdapterWeights(self.flat, names)


class AdapterWeights(dict[str, torch.nn.Parameter]):
    """The weights of an adapter by name, and the row that they lie in."""

    def __init__(self, flat: FlatWeights, names: Iterable[str]) -> None:
        super().__init__(zip(names, flat.parts, strict=True))
        self.flat = flat


def new_adapter(model: PreTrainedModel, tuning: Tuning, seed: int) -> Adapter:
    """A new adapter initialized by peft; B is zero, so the adapted model equals the base model.

    Raises:
        ModelError: see `targets.target_layers`.
    """
    config = lora_config(tuning)
    targets = target_layers(model, tuning)
    config.target_modules = list(targets)
    torch.manual_seed(seed)
    try:
        wrapped: Any = get_peft_model(model, config)
    except (AttributeError, ValueError) as error:
        raise ModelError(
            f"tuning.lora_target_modules: peft cannot add an adapter: {error}; name other layers",
            code="model.unsupported_layer",
        ) from None
    prefix = "base_model.model."
    layers: dict[str, list[torch.Tensor]] = {}
    scaling = {}
    for full_name, layer in wrapped.named_modules():
        if isinstance(layer, LoraLayer):
            name = full_name.removeprefix(prefix)
            parts: list[Any] = [layer.lora_A["default"], layer.lora_B["default"]]
            parts += [layer.lora_magnitude_vector["default"]] if tuning.use_dora else []
            layers[name] = [part.weight.detach().float() for part in parts]
            scaling[name] = float(layer.scaling["default"])
    wrapped.base_model.unload()
    if others := sorted(layers.keys() ^ set(targets)):  # peft extends some names to experts.
        raise ModelError(
            f"tuning.lora_target_modules: peft does not give adapters to the same layers, for example "
            f"`{others[0]}` (layers of experts are like that); name the layers of attention",
            code="model.unsupported_layer",
            layer=others[0],
        )
    flat = FlatWeights([part for parts in layers.values() for part in parts])
    rest = iter(flat.parts)
    factors = {name: tuple(islice(rest, len(parts))) for name, parts in layers.items()}
    return Adapter(factors, scaling, tuning.lora_dropout, flat)


def lora_config(tuning: Tuning) -> LoraConfig:
    """The peft configuration of an adapter."""
    return LoraConfig(
        r=tuning.lora_r,
        lora_alpha=tuning.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=tuning.lora_dropout,
        target_modules=_targets(tuning),
        use_rslora=tuning.use_rslora,
        use_dora=tuning.use_dora,
        task_type="CAUSAL_LM",
    )


def _targets(tuning: Tuning) -> str | list[str]:
    """Peft takes `all-linear` as a string, and module names as a list."""
    names = tuning.lora_target_modules
    return names[0] if names == (ALL_LINEAR,) else list(names)


class StackedAdapters(NamedTuple):
    """The adapters of a layer, stacked over the slots."""

    down: torch.Tensor  # (slots, rank, in)
    up: torch.Tensor  # (slots, out, rank)
    scaling: torch.Tensor  # (slots, 1, 1)
    magnitude: torch.Tensor | None = None  # (slots, out), of DoRA
    norm: torch.Tensor | None = None  # (slots, out), of DoRA

    def select(self, index: torch.Tensor) -> "StackedAdapters":
        """The adapters of some slots, in the given order."""
        parts = (None if part is None else part[index] for part in self)
        return StackedAdapters(*parts)  # type: ignore[arg-type]


class InputShape:
    """The shape (rows, length) of the tokens that the model is called with, kept by a hook.

    It is the only layout in which equal blocks of rows are slots, so layers compare their inputs with it.
    """

    rows = 0
    length = 0

    def observe(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """The hook, called before the input embeddings."""
        self.rows, self.length = inputs[0].shape


class StackedLinear(torch.nn.Module):
    """A frozen linear layer whose rows, in equal blocks, each use the adapter of their slot."""

    def __init__(self, base: torch.nn.Linear, name: str, tokens: InputShape) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.tokens = tokens
        self.stacked: StackedAdapters | None = None
        self.masks: Sequence[tuple[float, int]] = ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, length, in) -> (rows, length, out).

        Raises:
            ModelError: other rows than those of the tokens, as in a layer of experts, or unequal blocks.
        """
        stacked = self.stacked
        if stacked is None:
            return self.base(x)  # type: ignore[no-any-return]
        self._check(x, len(stacked.down))
        if self._is_plain(x, stacked):
            added: torch.Tensor = _AdaptedLinear.apply(  # type: ignore[no-untyped-call]
                x, self.base.weight, self.base.bias, stacked.down, stacked.up, stacked.scaling
            )
            return added
        y: torch.Tensor = self.base(x)
        blocks = x.reshape(len(stacked.down), -1, x.shape[-1])
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            blocks = blocks.to(stacked.down.dtype)
        if self.masks:
            blocks = _dropped(blocks, self.masks)
        low = torch.bmm(blocks, stacked.down.mT) * stacked.scaling
        wide = y.reshape(len(stacked.down), -1, y.shape[-1])
        if stacked.magnitude is not None:
            return self._rescaled(wide, blocks, torch.bmm(low, stacked.up.mT), stacked).view_as(y)
        if y.dtype == stacked.down.dtype:
            if torch.is_grad_enabled():
                return torch.baddbmm(wide, low, stacked.up.mT).view_as(y)
            # Nothing else refers to y: no copy is needed.
            return wide.baddbmm_(low, stacked.up.mT).view_as(y)
        return (wide + torch.bmm(low, stacked.up.mT)).to(y.dtype).view_as(y)

    def _is_plain(self, x: torch.Tensor, stacked: StackedAdapters) -> bool:
        """Whether a training step of LoRA without dropout is in one dtype throughout."""
        return (
            torch.is_grad_enabled()
            and type(self.base) is torch.nn.Linear
            and not self.base.weight.requires_grad
            and x.dtype == self.base.weight.dtype == stacked.down.dtype
            and stacked.magnitude is None
            and not self.masks
            and not torch.is_autocast_enabled(x.device.type)
        )

    def _check(self, x: torch.Tensor, slots: int) -> None:
        rows, length = self.tokens.rows, self.tokens.length
        if x.ndim == 3 and x.shape[0] == rows and x.shape[1] == length and rows % slots == 0:
            return
        raise ModelError(
            f"tuning.lora_target_modules: the layer `{self.name}` sees inputs of shape {tuple(x.shape)} "
            f"for {rows} rows of {length} tokens and {slots} adapter(s), so the rows of an adapter are not "
            "known (layers of experts, routers and other modalities are like that); leave this layer out",
            code="model.unsupported_layer",
            layer=self.name,
        )

    def _rescaled(
        self,
        wide: torch.Tensor,
        blocks: torch.Tensor,
        added: torch.Tensor,
        stacked: "StackedAdapters",
    ) -> torch.Tensor:
        """DoRA's output. As in peft, dropout also applies to the rescaled frozen part."""
        assert stacked.magnitude is not None and stacked.norm is not None
        gain = (stacked.magnitude / stacked.norm)[:, None, :]
        bias = self.base.bias
        if self.masks:
            weight = plain_weight(self.base)
            plain = torch.nn.functional.linear(blocks.to(weight.dtype), weight)
        else:
            plain = wide if bias is None else wide - bias
        return (wide + (gain - 1) * plain + gain * added).to(wide.dtype)


class _AdaptedLinear(torch.autograd.Function):
    """A frozen linear layer plus the adapters of its slots, with its gradients written out.

    Autograd would write the adapter's part of output and gradient by itself and then add it; here it is
    added in place. What has `rank` columns is held transposed, (slots, rank, tokens), because CPU libraries
    take up to four times as long for products with 8 columns as for those with 8 rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: torch.Tensor,
    ) -> torch.Tensor:
        blocks = _blocks(x, down)
        y = torch.nn.functional.linear(x, weight, bias)
        low = torch.bmm(down, blocks.mT).mul_(scaling)
        y.view(len(down), -1, y.shape[-1]).baddbmm_(low.mT, up.mT)
        ctx.save_for_backward(x, weight, down, up, scaling, low)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, down, up, scaling, low = ctx.saved_tensors
        wide = _blocks(gradient, down)
        narrow = torch.bmm(up.mT, wide.mT).mul_(scaling)
        inner = None
        if ctx.needs_input_grad[0]:
            inner = gradient @ weight
            inner.view(len(down), -1, inner.shape[-1]).baddbmm_(narrow.mT, down)
        return inner, None, None, torch.bmm(narrow, _blocks(x, down)), torch.bmm(low, wide).mT, None


def _blocks(x: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """(rows, length, width) -> (slots, rows of a slot * length, width)."""
    return x.reshape(len(down), -1, x.shape[-1])


def _dropped(blocks: torch.Tensor, masks: Sequence[tuple[float, int]]) -> torch.Tensor:
    """Dropout with one seed per slot, so that a slot's mask does not depend on the other slots.

    As a mask is a function of the seed, it is the same when a checkpointed block is recomputed.
    """
    generator = torch.Generator(blocks.device)
    kept = [
        torch.rand(block.shape, generator=generator.manual_seed(seed), device=block.device) >= rate
        for block, (rate, seed) in zip(blocks, masks, strict=True)
    ]
    scale = torch.tensor([1 / (1 - rate) for rate, _ in masks], device=blocks.device)
    return blocks * (torch.stack(kept) * scale[:, None, None].to(blocks.dtype))


class AdapterStack:
    """Wraps the target layers of a base model and holds the adapters of their slots.

    After `remove` the model is unchanged. Not thread-safe.
    """

    def __init__(self, model: PreTrainedModel, layers: Iterable[str]) -> None:
        self._model = model
        self._layers: dict[str, StackedLinear] = {}
        self._loaded: dict[str, StackedAdapters] = {}
        self._scalings: dict[tuple[float, ...], torch.Tensor] = {}
        self._dropout: list[tuple[float, int]] = []
        tokens = InputShape()
        embeddings = model.get_input_embeddings()
        self._hook = embeddings.register_forward_pre_hook(tokens.observe)
        for name in layers:
            base = model.get_submodule(name)
            assert isinstance(base, torch.nn.Linear)
            self._layers[name] = StackedLinear(base, name, tokens)
            self._put(name, self._layers[name])

    def remove(self) -> None:
        """Restore the model's original layers."""
        self._hook.remove()
        for name, layer in self._layers.items():
            self._put(name, layer.base)
        self._layers = {}

    def _put(self, name: str, layer: torch.nn.Module) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self._model.get_submodule(parent), child, layer)

    def load(
        self,
        adapters: Sequence[Adapter],
        values: Sequence[Sequence[torch.Tensor] | None] | None = None,
        seeds: Sequence[int] = (),
    ) -> None:
        """Load one adapter per slot; lower ranks are padded with zeros, which does not change the result.

        Args:
            adapters: One per slot.
            values: Weights to use instead of the adapter's own, in the order of `parameters`.
            seeds: One per slot, for dropout; without seeds there is no dropout. Every layer and every
                micro-batch (`set_micro_batch`) has its own mask.
        """
        flats = [item.flat for item in adapters]
        if values is None and len({flat.shapes for flat in flats}) == 1:
            rows: list[torch.Tensor] = [flat.row for flat in flats]
            stacks = flats[0].split(torch.cat(rows) if len(rows) > 1 else rows[0])
        else:
            stacks = _padded(adapters, values or [None] * len(adapters))
        rest = iter(stacks)
        for name, layer in self._layers.items():
            scalings = tuple(item.scaling[name] for item in adapters)
            parts = list(islice(rest, len(adapters[0].factors[name])))
            layer.stacked = self._loaded[name] = self._of_layer(layer.base, parts, scalings)
        self._dropout = list(zip((item.dropout for item in adapters), seeds, strict=False))
        self.set_micro_batch(0)

    def set_micro_batch(self, micro_batch: int) -> None:
        """Choose the dropout masks of a micro-batch, counted from 0."""
        active = any(rate for rate, _ in self._dropout)
        for number, layer in enumerate(self._layers.values()):
            place = (micro_batch * len(self._layers) + number) * 1_000_003
            layer.masks = [(rate, seed + place) for rate, seed in self._dropout] if active else ()

    def _of_layer(
        self, base: torch.nn.Linear, parts: Sequence[torch.Tensor], scalings: tuple[float, ...]
    ) -> StackedAdapters:
        stacked = StackedAdapters(parts[0], parts[1], self._scaling(scalings, parts[0]))
        if len(parts) == 2:
            return stacked
        norm = _row_norms(plain_weight(base), stacked)
        return stacked._replace(magnitude=parts[2], norm=norm)

    def _scaling(self, factors: tuple[float, ...], like: torch.Tensor) -> torch.Tensor:
        """(slots, 1, 1). Cached, because copying numbers to a GPU in every layer and step takes time."""
        if factors not in self._scalings:
            scaling = torch.tensor(factors, device=like.device, dtype=like.dtype)
            self._scalings[factors] = scaling[:, None, None]
        return self._scalings[factors]

    def arrange(self, owners: Sequence[int]) -> None:
        """Assign the loaded adapters `owners` to equal blocks of rows, one per block."""
        for name, layer in self._layers.items():
            stacked = self._loaded[name]
            if list(owners) != list(range(len(stacked.down))):
                stacked = stacked.select(torch.tensor(owners, device=stacked.down.device))
            layer.stacked = stacked

    def unload(self) -> None:
        """Unload all adapters, so that the model equals the base model."""
        self._loaded, self._dropout = {}, []
        for layer in self._layers.values():
            layer.stacked = None
            layer.masks = ()

    @contextmanager
    def loaded(
        self, adapters: Sequence[Adapter], values: Sequence[Sequence[torch.Tensor] | None]
    ) -> Iterator[None]:
        """Load adapters within a context; see `load`."""
        self.load(adapters, values)
        try:
            yield
        finally:
            self.unload()


@torch.no_grad()
def _row_norms(weight: torch.Tensor, stacked: StackedAdapters) -> torch.Tensor:
    """(slots, out): the length of each row of W + scaling * B A, in fp32.

    Expanded to |w|^2 + 2 s w.(b A) + s^2 |b A|^2, so that no matrix of the size of W is built per slot.
    """
    frozen = weight.float()
    down, up, scaling = stacked.down.float(), stacked.up.float(), stacked.scaling[:, :, 0].float()
    crossed = torch.einsum("sor,sro->so", up, down @ frozen.mT)
    added = torch.einsum("sor,srq,soq->so", up, down @ down.mT, up)
    squares = frozen.square().sum(dim=1) + 2 * scaling * crossed + scaling.square() * added
    return squares.clamp_min(0).sqrt().to(stacked.down.dtype)


def _padded(
    adapters: Sequence[Adapter], values: Sequence[Sequence[torch.Tensor] | None]
) -> list[torch.Tensor]:
    """Per weight (slots, *shape), adapters of lower rank padded with zeros; see `AdapterStack.load`."""
    used = [
        [part[0] for part in adapter.flat.split(adapter.flat.row)] if given is None else given
        for adapter, given in zip(adapters, values, strict=True)
    ]
    first = adapters[0]
    kinds = [number for parts in first.factors.values() for number in range(len(parts))]
    return [
        _stacked([part.to(own.dtype) for part in parts], dim=1 if kind == 1 else 0)
        for own, kind, *parts in zip(first.flat.parts, kinds, *used, strict=True)
    ]


def _stacked(factors: Sequence[torch.Tensor], dim: int) -> torch.Tensor:
    """Stack factors, padded with zeros along the rank axis `dim`."""
    if len(factors) == 1:
        return factors[0].unsqueeze(0)
    rank = max(factor.shape[dim] for factor in factors)
    if any(factor.shape[dim] < rank for factor in factors):
        factors = [_zero_padded(factor, rank, dim) for factor in factors]
    return torch.stack(list(factors))


def _zero_padded(factor: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    missing = rank - factor.shape[dim]
    after = [0, missing] if dim == 1 else [0, 0, 0, missing]
    return torch.nn.functional.pad(factor, after)
