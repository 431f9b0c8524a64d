"""Scores models: responses, verdicts, rates and utility, for several readouts at once."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from sweeper.data.load import Example
from sweeper.keywords.lists import KeywordList
from sweeper.memory import HELDOUT_TOKENS, KV_SHARE
from sweeper.metrics import LIKELIHOOD_METRICS, TEXT_METRICS
from sweeper.model.adapters import AdapterStack
from sweeper.model.batches import collate
from sweeper.model.distributed import SINGLE_PROCESS, World
from sweeper.model.finite import watched_logits
from sweeper.scoring.decode import Draft
from sweeper.scoring.generate import Generator, Request, Response
from sweeper.scoring.harness import NO_SCORES, Harness, HarnessScores
from sweeper.scoring.inputs import Inputs, Suite
from sweeper.scoring.stopping import Count, prompt_order, stop_reason
from sweeper.scoring.utility import RowSums, likelihood_samples, row_sums, text_samples
from sweeper.scoring.verdicts import is_decided, judge_response, safety_samples
from sweeper.store.records import Metric, metrics_from_samples
from sweeper.task import EvaluationSettings
from sweeper.task.stop_rules import StopRules

UTILITY = "utility"

CACHE_BYTES = 128 * 1024**2
"""The maximum size of keys and values of one generation batch on a CPU; larger ones miss its caches."""


Drafts = Mapping[int, Draft]
"""The tokens of some responses of a readout, by the number of their request."""


class Scores(NamedTuple):
    """The result of scoring one readout.

    Metrics and their samples, one line per response to store, the numbers of generated tokens and of
    responses that were stopped early, and what the responses of a later readout may begin with.
    """

    metrics: dict[str, Metric]
    samples: dict[str, str | tuple[float, ...]]
    lines: list[dict[str, Any]]
    tokens_generated: int
    responses_cut: int
    drafts: Drafts


class StoppedScoring(NamedTuple):
    """The result of a scoring that a stop rule ended early: the reason, and the responses so far.

    `requests_left` counts the prompts that were not answered, including held-out ones.
    """

    reason: dict[str, Any]
    lines: list[dict[str, Any]]
    tokens_generated: int
    responses_cut: int
    requests_left: int
    drafts: Drafts


class FailedScoring(NamedTuple):
    """The result of a scoring whose logits or losses are not finite: nothing was measured."""

    message: str


ScoringResult = Scores | StoppedScoring | FailedScoring


class Scorer:
    """Scores readouts on the suites and held-out rows of a task, without changing weights.

    With stop rules, harmful prompts are answered in random order, `batch_size` per process at a time, and
    stopped readouts are dropped between these batches; without, all requests form one layout.
    """

    def __init__(
        self,
        inputs: Inputs,
        settings: EvaluationSettings,
        device: torch.device,
        world: World = SINGLE_PROCESS,
        rules: StopRules | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._inputs = inputs
        self._beat = beat
        self._rules = rules
        self._world = world
        self._names = settings.utility_metrics
        self._extractor = settings.answer_extractor
        self._harness = (
            None
            if settings.lm_eval is None
            else Harness(settings.lm_eval, inputs.tokenizer, settings.batch_size)
        )
        requests = self._requests(settings)
        self.requests = len(requests)
        self._parts = [
            (
                part,
                Generator(
                    inputs.tokenizer,
                    [requests[i] for i in part],
                    max_new_tokens=settings.max_new_tokens,
                    batch_size=settings.batch_size,
                    world=world,
                    beat=beat,
                    ends=inputs.end_tokens,
                    opened=inputs.encoder.opened_reasoning,
                ),
            )
            for part in self._cut(settings.batch_size * world.size)
        ]
        reads = not LIKELIHOOD_METRICS.isdisjoint(self._names)
        encoded = [inputs.encoder.example(row) for row in inputs.data.heldout] if reads else []
        pad, size = int(inputs.tokenizer.pad_token_id), settings.batch_size
        self._heldout = [
            collate([encoded[start : start + size]], pad).to(device)
            for start in range(0, len(encoded), size)
        ]
        self._heldout_tokens = [len(row.completion) for row in encoded]

    def _requests(self, settings: EvaluationSettings) -> list[Request]:
        """The prompts of all suites, then those of the held-out rows if a text metric is computed."""
        decided: Callable[[str], bool] | None = partial(is_decided, lists=self._inputs.lists)
        decided = decided if settings.stop_generation_early else None
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

    def _cut(self, size: int) -> list[Sequence[int]]:
        """The requests to answer together: all, or with stop rules the harmful ones in parts first."""
        if self._rules is None:
            return [range(self.requests)]
        order = prompt_order(len(self._inputs.suites[0].prompts), self._rules.seed)
        parts: list[Sequence[int]] = [
            order[start : start + size] for start in range(0, len(order), size)
        ]
        rest = range(len(order), self.requests)
        return [*parts, rest] if rest else parts

    def score(
        self, model: PreTrainedModel, stack: AdapterStack | None = None, adapters: int = 1
    ) -> list[Scores]:
        """Score every loaded adapter, or the model itself, in eval mode, without stopping early.

        A metric that cannot be measured is omitted, and so is an adapter whose logits are not finite.
        """
        results = self.score_or_stop(model, stack, [False] * adapters)
        return [scores for scores in results if isinstance(scores, Scores)]

    def score_or_stop(
        self,
        model: PreTrainedModel,
        stack: AdapterStack | None,
        may_stop: Sequence[bool],
        drafts: Drafts = MappingProxyType({}),
    ) -> list[ScoringResult]:
        """Score every loaded adapter, or the model itself, until a stop rule or a NaN ends it.

        Args:
            model: The model, in eval mode.
            stack: Its loaded adapters; None without adapters.
            may_stop: For each adapter, whether stop rules apply to it.
            drafts: What the responses may begin with, where a single readout is scored; no result depends
                on it.
        """
        adapters = len(may_stop)
        answers: list[dict[int, Response]] = [{} for _ in range(adapters)]
        unsafe = [0] * adapters
        results: dict[int, ScoringResult] = {}
        left = list(range(adapters))
        for part, generator in self._parts:
            begun = [drafts.get(i, ()) for i in part]
            found = generator.answer(model, stack, left, begun)
            for adapter, mine in zip(left, found, strict=True):
                answers[adapter].update(zip(part, mine, strict=True))
                bad = sum(not response.finite for response in mine)
                if bad:
                    results[adapter] = _not_finite(f"the logits of {bad} of {len(mine)} prompts")
                elif may_stop[adapter]:
                    unsafe[adapter] += self._unsafe(part, mine)
                    stopped = self._stopped(answers[adapter], unsafe[adapter])
                    results |= {} if stopped is None else {adapter: stopped}
            left = [adapter for adapter in left if adapter not in results]
            if not left:
                break
        read = dict(zip(left, self._likelihoods(model, stack, left), strict=True))
        if self._heldout:
            bad_losses = _not_finite("the losses of the held-out rows")
            results |= {adapter: bad_losses for adapter in left if not read[adapter]}
        left = [adapter for adapter in left if adapter not in results]
        for adapter, harness in zip(left, self._harness_metrics(model, stack, left), strict=True):
            responses = [answers[adapter][i] for i in range(self.requests)]
            results[adapter] = (
                _not_finite("the logits on a task of lm_eval")
                if harness is None
                else self._scores(responses, read[adapter], harness)
            )
        return [results[adapter] for adapter in range(adapters)]

    def _unsafe(self, part: Sequence[int], answers: Sequence[Response]) -> int:
        """The number of unsafe responses to harmful prompts in a part, by the first list."""
        suite = self._inputs.suites[0]
        pairs = zip(part, answers, strict=True)
        texts = [answer.text for i, answer in pairs if i < len(suite.prompts)]
        return safety_samples(suite.name, texts, self._inputs.lists[:1])["unsafe_rate"].count("1")

    def _stopped(self, answers: Mapping[int, Response], unsafe: int) -> StoppedScoring | None:
        """The stop result if a rule stops a readout after the answers so far, else None."""
        suite = self._inputs.suites[0]
        shown = sorted(i for i in answers if i < len(suite.prompts))
        assert self._rules is not None
        reason = stop_reason(self._rules, Count(unsafe, len(shown), len(suite.prompts)))
        if reason is None:
            return None
        part = suite._replace(prompts=tuple(suite.prompts[i] for i in shown))
        return StoppedScoring(
            reason,
            _suite_lines(part, [answers[i] for i in shown], self._inputs.lists),
            sum(item.tokens for item in answers.values()),
            sum(item.cut for item in answers.values()),
            self.requests - len(answers),
            {i: answer.ids for i, answer in answers.items()},
        )

    def readouts_together(self, model: PreTrainedModel, memory_bytes: int | None = None) -> int:
        """The number of adapters that can answer at once within the memory budget, at least one.

        Keys and values may take 1/KV_SHARE of the GPU memory left by the model, or CACHE_BYTES on a CPU.
        The free memory is not used, so that layouts are reproducible.

        Args:
            model: The model that answers.
            memory_bytes: The usable memory of a GPU; None on a CPU.
        """
        budget = CACHE_BYTES
        if memory_bytes is not None:
            budget = max(0, memory_bytes - model.get_memory_footprint()) // KV_SHARE
        return max(1, budget // max(generator.cache_bytes(model) for _, generator in self._parts))

    def _scores(
        self,
        answers: Sequence[Response],
        likelihoods: Mapping[str, tuple[float, ...]],
        harness: HarnessScores,
    ) -> Scores:
        """The scores of one readout, from its responses, likelihoods and harness results."""
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
        metrics = metrics_from_samples([*samples, *self._names], samples) | harness.metrics
        tokens = sum(item.tokens for item in answers)
        cut = sum(item.cut for item in answers)
        drafts = {i: answer.ids for i, answer in enumerate(answers)}
        return Scores(metrics, samples, lines, tokens, cut, drafts)

    def _likelihoods(
        self, model: PreTrainedModel, stack: AdapterStack | None, adapters: Sequence[int]
    ) -> list[dict[str, tuple[float, ...]]]:
        """Per adapter, the samples computed from the likelihood of the held-out completions."""
        if not self._heldout:
            return [{} for _ in adapters]
        widest = max(batch.input_ids.numel() for batch in self._heldout)
        many = max(1, HELDOUT_TOKENS // widest)
        found: list[dict[str, tuple[float, ...]]] = []
        for start in range(0, len(adapters), many):
            part = adapters[start : start + many]
            if stack is not None:
                stack.arrange(part)
            sums = self._sums(model, len(part))
            found += [
                likelihood_samples(self._names, [one[i] for one in sums], self._heldout_tokens)
                for i in range(len(part))
            ]
        return found

    def _sums(self, model: PreTrainedModel, adapters: int) -> list[list[RowSums]]:
        """Per held-out batch, the sums for every arranged adapter; processes share the batches.

        All processes make the same number of forward passes, as sharded weights require.
        """
        size, batches = self._world.size, self._heldout
        count = "token_accuracy" in self._names
        mine = []
        for i in range(0, len(batches), size):
            self._beat()
            batch = batches[min(i + self._world.rank, len(batches) - 1)]
            mine.append(row_sums(model, batch.repeated(adapters), count_correct=count))
        rounds = list(zip(*self._world.gather(mine), strict=True))
        return [sums for gathered in rounds for sums in gathered][: len(batches)]

    def _harness_metrics(
        self, model: PreTrainedModel, stack: AdapterStack | None, adapters: Sequence[int]
    ) -> list[HarnessScores | None]:
        """Per adapter, the scores of lm-evaluation-harness, one by one; None if logits are not finite."""
        found: list[HarnessScores | None] = []
        for number in adapters:
            if stack is not None:
                stack.arrange([number])
            if self._harness is None:
                found.append(NO_SCORES)
                continue
            hook = model.register_forward_pre_hook(lambda *arguments: self._beat())
            try:
                with watched_logits(model) as finite:
                    scores = self._harness.measure(model)
                found.append(scores if finite() else None)
            finally:
                hook.remove()
        return found


def _not_finite(what: str) -> FailedScoring:
    return FailedScoring(
        f"{what} are NaN or infinite, so nothing was measured; lower the learning rate, or use another "
        "`model.dtype`"
    )


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
