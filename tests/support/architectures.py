"""Tiny models of several architectures, built in code."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from support.world import World

SIZES: dict[str, Any] = {
    "vocab_size": 352,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "attention_dropout": 0.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": None},
    "qwen3": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16, "sliding_window": 96, "query_pre_attn_scalar": 16},
    "phi3": {"sliding_window": None, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": _EXPERTS,
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 16},
}
"""What each `model_type` has beside `SIZES`."""


def build(kind: str, **changes: Any) -> PreTrainedModel:
    """A model with seeded random weights, in fp32."""
    config = AutoConfig.for_model(kind, **{**SIZES, **ARCHITECTURES[kind], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    built: PreTrainedModel = model.eval()
    return built


def model_folder(world: World, folder: Path, kind: str, **changes: Any) -> Path:
    """A folder with such a model and the tokenizer of the tiny world."""
    transformers.utils.logging.disable_progress_bar()
    build(kind, **changes).save_pretrained(folder)
    for path in world.model.iterdir():
        if path.name not in ("config.json", "model.safetensors", "generation_config.json"):
            shutil.copy(path, folder / path.name)
    return folder
