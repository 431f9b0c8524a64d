"""Usefulness on held-out task rows: completion loss, ROUGE-L, exact match."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from sweeper.errors import MissingExtraError
from sweeper.records import Metric
from sweeper.trial.encode import Batch
from sweeper.trial.logits import as_logits, chosen_states
from sweeper.trial.shards import inside

LOGIT_ROWS = 4096
"""Logits of a wide vocabulary are made at most this many rows at a time, in equal pieces."""


@torch.no_grad()
def token_losses(model: torch.nn.Module, batch: Batch) -> list[float]:
    """Per slot, the summed negative log likelihood (nats) of the target tokens of a batch.

    Args:
        model: A causal language model in eval mode.
        batch: Rows with their targets.
    """
    losses = inside(model, partial(_losses, batch))
    return torch.stack([part.sum() for part in losses.split(batch.counts)]).tolist()


def _losses(batch: Batch, model: torch.nn.Module) -> torch.Tensor:
    """(targets,): the loss of every target token."""
    states = chosen_states(model, batch)
    pieces = -(-len(states) // LOGIT_ROWS)
    parts = zip(states.tensor_split(pieces), batch.targets.tensor_split(pieces), strict=True)
    return torch.cat(
        [
            torch.nn.functional.cross_entropy(as_logits(model, some), targets, reduction="none")
            for some, targets in parts
        ]
    )


def loss_metric(total: float, tokens: int) -> Metric | None:
    """Mean completion loss in nats per token, or None where it is not finite."""
    value = total / tokens
    return Metric(value, tokens) if math.isfinite(value) else None


def text_metrics(
    names: Sequence[str], responses: Sequence[str], references: Sequence[str]
) -> dict[str, Metric]:
    """ROUGE-L F1 (mean over rows, stemming off, package rouge-score) and exact match, in [0, 1].

    Args:
        names: Which of `rouge_l` and `exact_match` to measure.
        responses: One response per row.
        references: The held-out completion of each row.

    Raises:
        MissingExtraError: `rouge_l` is asked for and rouge-score is not installed.
    """
    metrics: dict[str, Metric] = {}
    n = len(references)
    pairs = list(zip(responses, references, strict=True))
    if "rouge_l" in names:
        scores = _rouge_l(pairs)
        metrics["rouge_l"] = Metric(math.fsum(scores) / n, n)
    if "exact_match" in names:
        equal = sum(text.strip() == reference.strip() for text, reference in pairs)
        metrics["exact_match"] = Metric.rate(equal, n)
    return metrics


def _rouge_l(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """ROUGE-L F1 of each (response, reference)."""
    try:  # Imported here: a machine with torch, transformers and peft alone still trains and scores.
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise MissingExtraError(
            "the metric rouge_l needs the package rouge-score; install `sweeper[train]`, or leave "
            "rouge_l out of evaluation.utility_metrics"
        ) from None
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return [scorer.score(reference, text)["rougeL"].fmeasure for text, reference in pairs]
