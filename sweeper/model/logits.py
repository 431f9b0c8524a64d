"""Computes logits only at the positions of target tokens."""

from typing import TypeGuard

import torch
from transformers import PreTrainedModel

from sweeper.model.batches import Batch
from sweeper.model.sharding import run_unsharded

PLAIN_HEADS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures whose logits are just the output layer applied to the decoder's last hidden state."""


def target_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The logits (targets, vocabulary), fp32, that predict the target tokens of a batch.

    The output layer is the widest layer: on prompt tokens, which are not targets, it would take most of the
    memory and much of the time.
    """
    return run_unsharded(model, lambda whole: to_logits(whole, target_states(whole, batch)))


def target_states(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The hidden states (targets, width) that `to_logits` turns into the target logits."""
    if _has_plain_head(model):
        states = model.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    else:
        states = model(input_ids=batch.input_ids, use_cache=False).logits
    selected: torch.Tensor = states.flatten(0, 1).index_select(0, batch.places)
    return selected


def to_logits(model: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """The fp32 logits of some of the `target_states`."""
    logits: torch.Tensor = (
        model.get_output_embeddings()(states) if _has_plain_head(model) else states
    )
    return logits.float()


def compiled_part(model: PreTrainedModel) -> torch.nn.Module:
    """The module that training calls, to be compiled by torch.compile."""
    part: torch.nn.Module = model.get_decoder() if _has_plain_head(model) else model
    return part


def _has_plain_head(model: torch.nn.Module) -> TypeGuard[PreTrainedModel]:
    return isinstance(model, PreTrainedModel) and model.config.model_type in PLAIN_HEADS
