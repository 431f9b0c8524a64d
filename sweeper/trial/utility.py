"""Usefulness on held-out task rows: likelihood of the completions, ROUGE-L, exact match."""

import math
import re
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch

from sweeper.errors import DataError, MissingExtraError
from sweeper.memory import LOGIT_ROWS
from sweeper.records import Metric
from sweeper.trial.encode import Batch
from sweeper.trial.logits import as_logits, chosen_states
from sweeper.trial.shards import inside

MARKER = "####"
"""What stands before the final answer in GSM8K."""


class TokenSums(NamedTuple):
    """Sums over target tokens: their negative log likelihood, in nats, and the right predictions.

    A prediction is right where the most likely token after the true ones before it is the target;
    `correct` is 0 where nobody asked.
    """

    loss: float
    correct: int


@torch.no_grad()
def token_sums(
    model: torch.nn.Module, batch: Batch, *, count_correct: bool = False
) -> list[TokenSums]:
    """Per slot, the sums over the target tokens of a batch, from one forward pass.

    Args:
        model: A causal language model in eval mode.
        batch: Rows with their targets.
        count_correct: Whether to count the targets that are the most likely token.
    """
    losses, hits = inside(model, partial(_per_target, batch, count_correct))
    parts = zip(losses.split(batch.counts), hits.split(batch.counts), strict=True)
    sums = [torch.stack([part.sum().double(), hit.sum().double()]) for part, hit in parts]
    return [TokenSums(loss, int(correct)) for loss, correct in torch.stack(sums).tolist()]


def _per_target(
    batch: Batch, count_correct: bool, model: torch.nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """(targets,) twice: the loss of every target token, and whether it is the most likely one."""
    states = chosen_states(model, batch)
    pieces = -(-len(states) // LOGIT_ROWS)
    losses, hits = [], []
    for some, targets in zip(
        states.tensor_split(pieces), batch.targets.tensor_split(pieces), strict=True
    ):
        logits = as_logits(model, some)
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
        right = logits.argmax(dim=-1) == targets if count_correct else torch.zeros_like(targets)
        hits.append(right)
    return torch.cat(losses), torch.cat(hits)


def likelihood_metrics(
    names: Sequence[str], sums: Sequence[TokenSums], tokens: int
) -> dict[str, Metric]:
    """Mean loss in nats per token, its exponential, and the share of tokens predicted right.

    Nothing where the loss is not finite: then the predictions mean nothing either. No perplexity where
    it is beyond the largest float.

    Args:
        names: Which of `heldout_loss`, `perplexity` and `token_accuracy` to give.
        sums: Of all held-out batches.
        tokens: Their target tokens.
    """
    loss = sum(part.loss for part in sums) / tokens
    if not math.isfinite(loss):
        return {}
    found = {
        "heldout_loss": Metric(loss, tokens),
        "token_accuracy": Metric.rate(sum(part.correct for part in sums), tokens),
    }
    if loss < math.log(sys.float_info.max):
        found["perplexity"] = Metric(math.exp(loss), tokens)
    return {name: found[name] for name in names if name in found}


def text_metrics(
    names: Sequence[str],
    responses: Sequence[str],
    references: Sequence[str],
    extractor: str = "none",
) -> dict[str, Metric]:
    """ROUGE-L F1 (mean over rows, stemming off, package rouge-score) and exact match, in [0, 1].

    Args:
        names: Which of `rouge_l` and `exact_match` to measure.
        responses: One response per row.
        references: The held-out completion of each row.
        extractor: What of a text exact match compares; see `extracted`.

    Raises:
        MissingExtraError: `rouge_l` is asked for and rouge-score is not installed.
        DataError: see `reference_answers`.
    """
    metrics: dict[str, Metric] = {}
    n = len(references)
    if "rouge_l" in names:
        scores = _rouge_l(list(zip(responses, references, strict=True)))
        metrics["rouge_l"] = Metric(math.fsum(scores) / n, n)
    if "exact_match" in names:
        wanted = reference_answers(references, extractor)
        pairs = zip(responses, wanted, strict=True)
        metrics["exact_match"] = Metric.rate(
            sum(extracted(text, extractor) == answer for text, answer in pairs), n
        )
    return metrics


def reference_answers(references: Sequence[str], extractor: str) -> list[str]:
    """What exact match compares responses with.

    Raises:
        DataError: a reference without an answer, with the number of its held-out row.
    """
    answers = []
    for number, reference in enumerate(references, start=1):
        answer = extracted(reference, extractor)
        if answer is None:
            raise DataError(
                f"evaluation.answer_extractor: {extractor}: the completion of held-out row {number} "
                f"has no answer after `{MARKER}`: {reference[-80:]!r}; mend the row, leave it out, or "
                "set answer_extractor: none"
            )
        answers.append(answer)
    return answers


def extracted(text: str, extractor: str) -> str | None:
    """The part of a text that exact match compares; None where there is none, which is never right.

    `none` takes all of it, white space at the ends aside. `gsm8k` takes what follows the last `####` on
    its line, without commas, dollar signs, and dots at the end: the form of the answers of GSM8K (Cobbe
    et al. 2021, arXiv 2110.14168; `extract_answer` in openai/grade-school-math,
    grade_school_math/dataset.py, takes the first `####` and removes commas alone).

    Raises:
        ValueError: another extractor.
    """
    if extractor == "none":
        return text.strip()
    if extractor != "gsm8k":
        raise ValueError(f"answer_extractor must be none or gsm8k, but got {extractor!r}")
    _, marker, rest = text.rpartition(MARKER)
    line = rest.strip().partition("\n")[0]
    answer = re.sub(r"[,$]", "", line).strip().rstrip(".").strip()
    return answer or None if marker else None


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
