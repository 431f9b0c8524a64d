"""The model to fine-tune, and which of its weights are trained."""

from dataclasses import dataclass
from typing import Annotated, Literal

from sweeper.task.fields import (
    Before,
    Count,
    Doc,
    Dropout,
    Length,
    OneOf,
    Planned,
    Positive,
    Searched,
    Text,
    listed,
)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A local folder or hub id. `name` is what the spec says, `path` what is opened.

    `dtype` is `mixed_bf16` (trained weights in fp32, arithmetic in bf16 by autocast, frozen weights in
    bf16), `float32`, or `pure_bf16`. `attention` is transformers' `attn_implementation`.
    """

    path: Annotated[Text, Doc("A hub id, a local folder, or `builtin:miniature/model`.")]
    revision: Annotated[str | None, Doc("Branch, tag or commit of a hub model.")] = None
    dtype: Annotated[
        str,
        OneOf("mixed_bf16", "float32", "pure_bf16"),
        Doc("`mixed_bf16`: trained weights in fp32, arithmetic in bf16, frozen weights in bf16."),
    ] = "mixed_bf16"
    attention: Annotated[
        str, OneOf("sdpa", "eager"), Doc("The `attn_implementation` of transformers.")
    ] = "sdpa"
    name: Annotated[str, Planned()] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.path)


ALL_LINEAR = "all-linear"
"""peft's name for every linear layer but the output layer."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Which weights are trained. The other fields are peft's and matter with an adapter only.

    `lora_target_modules` of `("all-linear",)` means every linear layer but the output layer.
    """

    method: Annotated[
        Literal["lora", "qlora", "full"],
        Doc(
            "`full` trains every weight; `lora` trains an adapter with the fields of peft's LoraConfig; "
            "`qlora` trains one over a base model in 4 bits, extra `qlora`."
        ),
    ]
    lora_r: Annotated[Count, Searched(), Doc("Rank of the adapter.")] = 8
    lora_alpha: Annotated[
        Positive, Searched(), Doc("Scale of the adapter, divided by `lora_r`.")
    ] = 16.0
    lora_dropout: Annotated[Dropout, Searched(), Doc("Dropout before the adapter.")] = 0.0
    lora_target_modules: Annotated[
        tuple[str, ...],
        Length(1),
        Before(listed),
        Searched(),
        Doc("Layers with an adapter; `all-linear` is every linear layer but the output layer."),
    ] = ("q_proj", "v_proj")
    use_rslora: Annotated[
        bool, Searched(), Doc("Divide `lora_alpha` by the square root of `lora_r`.")
    ] = False
    use_dora: Annotated[bool, Searched(), Doc("Weight-decomposed adapters (DoRA).")] = False

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter is trained, over frozen weights."""
        return self.method != "full"

    @property
    def quantized(self) -> bool:
        """Whether the frozen weights are held in 4 bits (QLoRA, arXiv 2305.14314)."""
        return self.method == "qlora"


FULL_TUNING = Tuning("full", lora_alpha=16, lora_target_modules=())
"""Full fine-tuning as it enters ids: adapter fields do not matter there."""
