"""Utility metrics on held-out rows: likelihood of the completions, similarity of responses, exact match."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch

from sweeper.errors import DataError
from sweeper.keywords.reasoning import answer_of
from sweeper.memory import LOGIT_ROWS
from sweeper.model.batches import Batch
from sweeper.model.logits import target_states, to_logits
from sweeper.model.sharding import run_unsharded
from sweeper.scoring.similarity import chrf, rouge_l
from sweeper.store.records import Metric, metrics_from_samples
from sweeper.store.samples import CORRECT, LOSS, TOKENS, bits

T = TypeVar("T")

ANSWER_MARKER = "####"
"""What precedes the final answer in GSM8K."""


class RowSums(NamedTuple):
    """For each row, sums over its target tokens: negative log likelihood in nats, and correct predictions.

    A prediction is correct if the most likely token, given the true preceding ones, is the target;
    `correct` is all 0 if it is not needed.
    """

    loss: tuple[float, ...]
    correct: tuple[int, ...]


@torch.no_grad()
def row_sums(model: torch.nn.Module, batch: Batch, *, count_correct: bool = False) -> list[RowSums]:
    """Per slot, the sums over the target tokens of each row of a batch, from one forward pass.

    Token losses are fp32 and summed exactly, so that a sum does not depend on the other rows.

    Args:
        model: A causal language model in eval mode.
        batch: Rows with their targets, equally many rows for each slot.
        count_correct: Whether to count the targets that are the most likely token.
    """
    losses, hits = run_unsharded(model, partial(_per_target, batch, count_correct))
    rows, length = batch.input_ids.shape
    counts = torch.bincount(batch.places.cpu() // length, minlength=rows).tolist()
    loss = [math.fsum(part) for part in _split(losses.tolist(), counts)]
    correct = [sum(part) for part in _split(hits.int().tolist(), counts)]
    each = rows // len(batch.counts)
    return [
        RowSums(tuple(loss[start : start + each]), tuple(correct[start : start + each]))
        for start in range(0, rows, each)
    ]


def _split(values: list[T], counts: Sequence[int]) -> Iterator[list[T]]:
    start = 0
    for count in counts:
        yield values[start : start + count]
        start += count


def _per_target(
    batch: Batch, count_correct: bool, model: torch.nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two tensors (targets,): the loss of each target token, and whether it is the most likely token."""
    states = target_states(model, batch)
    pieces = -(-len(states) // LOGIT_ROWS)
    losses, hits = [], []
    for some, targets in zip(
        states.tensor_split(pieces), batch.targets.tensor_split(pieces), strict=True
    ):
        logits = to_logits(model, some)
        losses.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
        right = logits.argmax(dim=-1) == targets if count_correct else torch.zeros_like(targets)
        hits.append(right)
    return torch.cat(losses), torch.cat(hits)


def likelihood_samples(
    names: Sequence[str], sums: Sequence[RowSums], tokens: Sequence[int]
) -> dict[str, tuple[float, ...]]:
    """The per-row samples of `heldout_loss`, `perplexity` and `token_accuracy`.

    Empty if a loss is not finite, because then the predictions are meaningless, too.

    Args:
        names: The metrics to measure.
        sums: The sums of all held-out batches, in order.
        tokens: The target tokens of each row.
    """
    loss = tuple(value for part in sums for value in part.loss)
    if not math.isfinite(sum(loss)):
        return {}
    samples: dict[str, tuple[float, ...]] = {LOSS: loss, TOKENS: tuple(tokens)}
    if "token_accuracy" in names:
        samples[CORRECT] = tuple(value for part in sums for value in part.correct)
    return samples


def text_samples(
    names: Sequence[str],
    responses: Sequence[str],
    references: Sequence[str],
    extractor: str = "none",
) -> dict[str, str | tuple[float, ...]]:
    """ROUGE-L, chrF (see `similarity`) and exact match of each row, in [0, 1].

    Answers are compared: reasoning (`sweeper.keywords.reasoning`) is left out on both sides.

    Args:
        names: Which of `rouge_l`, `chrf` and `exact_match` to measure.
        responses: One response per row.
        references: The held-out completion of each row.
        extractor: The part of a text that exact match compares; see `extract_answer`.

    Raises:
        MissingExtraError: `rouge_l` or `chrf` needs a package that is not installed.
        DataError: see `reference_answers`.
    """
    samples: dict[str, str | tuple[float, ...]] = {}
    responses, references = (list(map(answer_of, texts)) for texts in (responses, references))
    pairs = list(zip(responses, references, strict=True))
    if "rouge_l" in names:
        samples["rouge_l"] = tuple(rouge_l(pairs))
    if "chrf" in names:
        samples["chrf"] = tuple(chrf(pairs))
    if "exact_match" in names:
        wanted = reference_answers(references, extractor)
        samples["exact_match"] = bits(
            extract_answer(text, extractor) == answer
            for text, answer in zip(responses, wanted, strict=True)
        )
    return samples


def text_metrics(
    names: Sequence[str],
    responses: Sequence[str],
    references: Sequence[str],
    extractor: str = "none",
) -> dict[str, Metric]:
    """The means over rows of `text_samples`."""
    samples = text_samples(names, responses, references, extractor)
    return metrics_from_samples(samples, samples)


def reference_answers(references: Sequence[str], extractor: str) -> list[str]:
    """The answers that exact match compares responses with.

    Raises:
        DataError: a reference has no answer; the message names its held-out row.
    """
    answers = []
    for number, reference in enumerate(references, start=1):
        answer = extract_answer(reference, extractor)
        if answer is None:
            raise DataError(
                f"evaluation.answer_extractor: {extractor}: the completion of held-out row {number} "
                f"has no answer after `{ANSWER_MARKER}`: {reference[-80:]!r}; fix or remove the row, "
                "or set `answer_extractor: none`",
                code="data.answer",
                row=number,
            )
        answers.append(answer)
    return answers


def extract_answer(text: str, extractor: str) -> str | None:
    """The part of a text that exact match compares; None if there is none, which is never correct.

    `none` takes the whole text without surrounding white space. `gsm8k` takes what follows the last `####`
    on its line, without commas, dollar signs and trailing dots: the format of answers in GSM8K (Cobbe
    et al. 2021, arXiv 2110.14168; `extract_answer` in openai/grade-school-math,
    grade_school_math/dataset.py, takes the first `####` and removes commas alone).

    Raises:
        ValueError: another extractor.
    """
    if extractor == "none":
        return text.strip()
    if extractor != "gsm8k":
        raise ValueError(f"answer_extractor must be none or gsm8k, but got {extractor!r}")
    _, marker, rest = text.rpartition(ANSWER_MARKER)
    line = rest.strip().partition("\n")[0]
    answer = re.sub(r"[,$]", "", line).strip().rstrip(".").strip()
    return answer or None if marker else None
