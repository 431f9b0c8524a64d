"""Everything that changes a gradient step; each field but `feedback` is a dimension of the space."""

from dataclasses import dataclass
from typing import Annotated, Any

from sweeper.task.fields import (
    Before,
    Count,
    Doc,
    NonNegative,
    OneOf,
    Planned,
    Positive,
    Stated,
    Steps,
    UnitFloat,
    Whole,
)


@dataclass(frozen=True, slots=True)
class Feedback:
    """Lookahead-style feedback: every `every` steps, the weights are replaced by their running EMA."""

    decay: float
    every: int


def _scheduler(raw: Any) -> Any:
    """Read the short name of a schedule."""
    return "warmup_stable_decay" if raw == "wsd" else raw


Scheduler = Annotated[
    str,
    OneOf(
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
        "linear",
        "cosine",
    ),
    Before(_scheduler),
]


def _optimizer(raw: Any) -> Any:
    """Read transformers' other name of an optimizer."""
    return "adamw_8bit" if raw == "adamw_bnb_8bit" else raw


ADAMW = "adamw_torch_fused"
"""The optimizer where none is named."""

EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")
"""AdamW with blockwise 8-bit moments, by bitsandbytes (arXiv 2110.02861)."""


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """Settings of the optimizer. Names are those of `transformers.TrainingArguments`.

    `batch_size` is the effective batch in rows. `warmup_steps` and `decay_steps` are counted steps
    here: the planner has already resolved ratios.
    """

    learning_rate: Annotated[Positive, Doc("Peak learning rate of AdamW.")]
    batch_size: Annotated[
        Count, Doc("Rows of an optimizer step, over all devices and micro-batches.")
    ]
    lr_scheduler_type: Annotated[
        Scheduler, Doc("Schedule of the learning rate; `wsd` is short for `warmup_stable_decay`.")
    ] = "constant"
    warmup_steps: Annotated[
        Whole, Stated(Steps, 0.0), Doc("Warmup steps, or below 1 a fraction of `max_steps`.")
    ] = 0
    decay_steps: Annotated[
        Whole,
        Stated(Steps, 0.1),
        Doc("Decay steps of `warmup_stable_decay`, or below 1 a fraction of `max_steps`."),
    ] = 0
    weight_decay: Annotated[NonNegative, Doc("Decoupled weight decay of AdamW.")] = 0.0
    adam_beta1: Annotated[UnitFloat, Doc("Decay of the first moment.")] = 0.9
    adam_beta2: Annotated[UnitFloat, Doc("Decay of the second moment.")] = 0.999
    adam_epsilon: Annotated[Positive, Doc("Added to the root of the second moment.")] = 1e-8
    max_grad_norm: Annotated[NonNegative, Doc("Maximal gradient norm; 0: no clipping.")] = 1.0
    optim: Annotated[
        str,
        OneOf(ADAMW, *EIGHT_BIT),
        Before(_optimizer),
        Doc("AdamW with moments in 32 bits, or in 8 (paged: spilled to the CPU), extra `qlora`."),
    ] = ADAMW
    feedback: Annotated[Feedback | None, Planned()] = None
