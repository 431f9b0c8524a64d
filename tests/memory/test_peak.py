"""The share of the matrix peak that training reaches: how it is counted, and what was measured last."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.benchmarks import benchmark
from transformers import LlamaConfig, LlamaForCausalLM

from sweeper.data.encode import Encoded
from sweeper.task import ALL_LINEAR, Tuning

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "peak.json"
BLOCK, HEAD, NORMS = 4 * 16 * 16 + 3 * 16 * 24, 40 * 16, 3 * 16
"""Weights of the one block, of the output layer and of the norms of the model below."""


@pytest.mark.parametrize(
    ("tuning", "per_weight", "adapter"),
    [(Tuning("full"), 6, 0), (Tuning("lora", lora_r=2, lora_target_modules=(ALL_LINEAR,)), 4, 496)],
    ids=["full", "lora"],
)
def test_the_output_layer_counts_at_target_tokens_only(
    tuning: Tuning, per_weight: int, adapter: int
) -> None:
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    paths = SimpleNamespace(
        model=LlamaForCausalLM(config),
        tasks=[SimpleNamespace(tuning=tuning)] * 3,
        rows=lambda step: [Encoded((1, 2, 3), (4, 5))] * 2,
    )
    tokens, flops = benchmark("peak").needed_flops(paths, range(4))
    assert tokens == 3 * 4 * 2 * 5
    inside = per_weight * (BLOCK + NORMS) + 6 * adapter
    assert flops == pytest.approx(3 * 4 * 2 * (5 * inside + 2 * per_weight * HEAD))


def test_what_was_measured_last() -> None:
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    peak = found["matrix_peak_gflops"]["1 thread"]
    assert len(found["rows"]) == 8
    for row in found["rows"]:
        assert row["share"] == pytest.approx(row["gflops"] / peak, abs=0.002)
        assert row["activation_bytes"] == pytest.approx(row["activation_bytes_estimated"], rel=0.08)
        assert row["over_solo"] >= 1
