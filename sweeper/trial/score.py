"""Scoring models as they stand: responses, verdicts, rates and utility, several readouts at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from sweeper.keywords import KeywordList
from sweeper.memory import HELDOUT_TOKENS, KV_SHARE
from sweeper.metrics import LIKELIHOOD_METRICS, TEXT_METRICS
from sweeper.records import Metric, measured
from sweeper.task import EvaluationSettings
from sweeper.trial.adapters import Slots
from sweeper.trial.data import Example
from sweeper.trial.encode import collate
from sweeper.trial.generate import Generator, Request, Response
from sweeper.trial.harness import NOTHING, Harness, HarnessScores
from sweeper.trial.inputs import Inputs, Suite
from sweeper.trial.judge import is_decided, judge_response, safety_samples
from sweeper.trial.utility import RowSums, likelihood_samples, row_sums, text_samples
from sweeper.trial.world import ALONE, World

UTILITY = "utility"

CACHE_BYTES = 128 * 1024**2
"""What the keys and values of one generation batch may take on a CPU: more only misses its caches."""


class Scores(NamedTuple):
    """What one scoring found.

    Metrics and what they are made of, one line per response for storage, tokens, responses cut short.
    """

    metrics: dict[str, Metric]
    samples: dict[str, str | tuple[float, ...]]
    lines: list[dict[str, Any]]
    tokens_generated: int
    responses_cut: int


class Scorer:
    """Measures readouts on the suites and held-out rows of a task. It never changes a weight."""

    def __init__(
        self,
        inputs: Inputs,
        settings: EvaluationSettings,
        device: torch.device,
        world: World = ALONE,
    ) -> None:
        self._inputs = inputs
        self._world = world
        self._names = settings.utility_metrics
        self._extractor = settings.answer_extractor
        self._harness = (
            None
            if settings.lm_eval is None
            else Harness(settings.lm_eval, inputs.tokenizer, settings.batch_size)
        )
        self._generator = Generator(
            inputs.tokenizer,
            self._requests(settings),
            max_new_tokens=settings.max_new_tokens,
            batch_size=settings.batch_size,
            world=world,
        )
        reads = not LIKELIHOOD_METRICS.isdisjoint(self._names)
        encoded = [inputs.encoder.example(row) for row in inputs.data.heldout] if reads else []
        pad, size = int(inputs.tokenizer.pad_token_id), settings.batch_size
        self._heldout = [
            collate([encoded[start : start + size]], pad).to(device)
            for start in range(0, len(encoded), size)
        ]
        self._heldout_tokens = [len(row.completion) for row in encoded]

    def _requests(self, settings: EvaluationSettings) -> list[Request]:
        """The prompts of all suites, then those of the held-out rows where their text is scored."""
        decided: Callable[[str], bool] | None = partial(is_decided, lists=self._inputs.lists)
        decided = None if settings.full_responses else decided
        requests = [
            Request(tokens, decided) for suite in self._inputs.suites for tokens in suite.tokens
        ]
        if not TEXT_METRICS.isdisjoint(self._names):
            prompts = [
                self._inputs.encoder.prompt(row.prompt, row.before)
                for row in self._inputs.data.heldout
            ]
            requests += [Request(tokens) for tokens in prompts]
        return requests

    def score(
        self, model: PreTrainedModel, slots: Slots | None = None, adapters: int = 1
    ) -> list[Scores]:
        """Measure every held adapter, or the model itself, in eval mode.

        A metric that cannot be measured is left out, never made up.
        """
        answers = self._generator.answer(model, slots, adapters)
        read = self._likelihoods(model, slots, adapters)
        ran = self._harness_metrics(model, slots, adapters)
        return [
            self._scores(mine, likelihoods, harness)
            for mine, likelihoods, harness in zip(answers, read, ran, strict=True)
        ]

    def readouts_together(self, model: PreTrainedModel, memory_bytes: int | None = None) -> int:
        """How many adapters can answer at once within the memory set aside for it, at least one.

        A row costs its keys and values; a quarter of what the model leaves of a GPU's memory, or
        CACHE_BYTES, may hold them. What happens to be free is not asked: no layout may depend on it.

        Args:
            model: The model that answers.
            memory_bytes: What may be used of a GPU; None on a CPU.
        """
        budget = CACHE_BYTES
        if memory_bytes is not None:
            budget = max(0, memory_bytes - model.get_memory_footprint()) // KV_SHARE
        return max(1, budget // self._generator.cache_bytes(model))

    def _scores(
        self,
        answers: Sequence[Response],
        likelihoods: Mapping[str, tuple[float, ...]],
        harness: HarnessScores,
    ) -> Scores:
        """Everything measured on one readout: what its responses show, and the rest."""
        samples: dict[str, str | tuple[float, ...]] = {**likelihoods, **harness.samples}
        lines: list[dict[str, Any]] = []
        start = 0
        for suite in self._inputs.suites:
            part = answers[start : start + len(suite.prompts)]
            start += len(part)
            texts = [item.text for item in part]
            samples |= safety_samples(suite.name, texts, self._inputs.lists)
            lines += _suite_lines(suite, part, self._inputs.lists)
        if texts := [item.text for item in answers[start:]]:
            rows = self._inputs.data.heldout
            references = [row.completion for row in rows]
            samples |= text_samples(self._names, texts, references, self._extractor)
            lines += _utility_lines(rows, texts)
        metrics = measured([*samples, *self._names], samples) | harness.metrics
        tokens = sum(item.tokens for item in answers)
        return Scores(metrics, samples, lines, tokens, sum(item.cut for item in answers))

    def _likelihoods(
        self, model: PreTrainedModel, slots: Slots | None, adapters: int
    ) -> list[dict[str, tuple[float, ...]]]:
        """Per adapter, what is read off the likelihood of the held-out completions."""
        if not self._heldout:
            return [{} for _ in range(adapters)]
        widest = max(batch.input_ids.numel() for batch in self._heldout)
        many = max(1, HELDOUT_TOKENS // widest)
        found: list[dict[str, tuple[float, ...]]] = []
        for start in range(0, adapters, many):
            part = range(start, min(start + many, adapters))
            if slots is not None:
                slots.arrange(part)
            sums = self._sums(model, len(part))
            found += [
                likelihood_samples(self._names, [one[i] for one in sums], self._heldout_tokens)
                for i in range(len(part))
            ]
        return found

    def _sums(self, model: PreTrainedModel, adapters: int) -> list[list[RowSums]]:
        """Per held-out batch, the sums under every arranged adapter; processes take turns.

        All of them make equally many forward passes: those of sharded weights are made together.
        """
        size, batches = self._world.size, self._heldout
        count = "token_accuracy" in self._names
        mine = []
        for i in range(0, len(batches), size):
            batch = batches[min(i + self._world.rank, len(batches) - 1)]
            mine.append(row_sums(model, batch.repeated(adapters), count_correct=count))
        rounds = list(zip(*self._world.gather(mine), strict=True))
        return [found for one in rounds for found in one][: len(batches)]

    def _harness_metrics(
        self, model: PreTrainedModel, slots: Slots | None, adapters: int
    ) -> list[HarnessScores]:
        """Per adapter, what lm-evaluation-harness measures, one adapter after the other."""
        found: list[HarnessScores] = []
        for number in range(adapters):
            if slots is not None:
                slots.arrange([number])
            found.append(NOTHING if self._harness is None else self._harness.measure(model))
        return found


def _suite_lines(
    suite: Suite, answers: Sequence[Response], lists: Sequence[KeywordList]
) -> list[dict[str, Any]]:
    return [
        {
            "suite": suite.name,
            "id": prompt.id,
            "prompt": prompt.text,
            "response": answer.text,
            "cut": answer.cut,
            "verdicts": judge_response(answer.text, lists),
        }
        for prompt, answer in zip(suite.prompts, answers, strict=True)
    ]


def _utility_lines(rows: Sequence[Example], texts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "suite": UTILITY,
            "id": str(number),
            "prompt": row.prompt,
            "response": text,
            "reference": row.completion,
        }
        for number, (row, text) in enumerate(zip(rows, texts, strict=True), start=1)
    ]
