"""Loads and checks the inputs of trials, which are the same for all trajectories of a sweep."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sweeper.data.control_tokens import control_token_error
from sweeper.data.encode import Encoder, TrainingData, check_prompt, load_training_data
from sweeper.data.load import Prompt, data_hash, load_suite, scored_prompt_hashes
from sweeper.data.split import load_safety_filter
from sweeper.errors import DataError, ModelError
from sweeper.keywords.lists import KeywordList, load_keyword_list
from sweeper.model.architecture import check_architecture
from sweeper.model.files import check_model
from sweeper.model.load import load_tokenizer, model_hash
from sweeper.model.quantized import check_bitsandbytes
from sweeper.scoring.harness import check_harness
from sweeper.scoring.utility import reference_answers, text_metrics
from sweeper.scoring.verdicts import HARMFUL, HARMLESS
from sweeper.stats import largest_passing_count
from sweeper.store.provenance import source_hash
from sweeper.task import (
    DataSettings,
    EvaluationSettings,
    ModelSource,
    PromptSuite,
    TrajectoryTask,
)
from sweeper.task.stop_rules import StopRules


class Suite(NamedTuple):
    """The harmful or the harmless prompts, as text and tokens."""

    name: str
    prompts: tuple[Prompt, ...]
    tokens: tuple[tuple[int, ...], ...]


class Inputs(NamedTuple):
    """The inputs read from files, the same for all trajectories of a sweep.

    `encoder` encodes evaluation prompts; training rows are already encoded, with the training template.
    `end_tokens` are those with which the training and the evaluation template end an answer.
    """

    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    data: TrainingData
    suites: tuple[Suite, ...]
    lists: tuple[KeywordList, ...]
    hashes: dict[str, str | None]
    end_tokens: tuple[int, ...] = ()


def load_inputs(task: TrajectoryTask) -> Inputs:
    """Read and encode the data of a task; cached for the next task of the same sweep in this process.

    Raises:
        DataError, ModelError: the data, the tokenizer or the keyword lists cannot be loaded.
    """
    return _load_inputs(task.model, _Hashable(task.data), _Hashable(task.evaluation))


class _Hashable:
    """A cache key for settings that hold dictionaries."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self._key = repr(value)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self._key == other._key


@lru_cache(maxsize=4)  # Paths of one sweep may differ in their rows and templates.
def _load_inputs(model: ModelSource, data_key: _Hashable, evaluation_key: _Hashable) -> Inputs:
    settings: DataSettings = data_key.value
    evaluation: EvaluationSettings = evaluation_key.value
    tokenizer = load_tokenizer(model)
    length, sides = settings.max_length, settings.template
    trained = Encoder(tokenizer, sides.train.name, length, sides.train.system)
    encoder = Encoder(tokenizer, sides.test.name, length, sides.test.system)
    ends = tuple(sorted({trained.end_token, encoder.end_token}))
    data = load_training_data(settings, trained, encoder, scored_prompt_hashes(evaluation))
    suites_of = {HARMFUL: evaluation.harmful, HARMLESS: evaluation.harmless}
    suites = [
        _suite(name, sources, settings, encoder) for name, sources in suites_of.items() if sources
    ]
    rows = {"train": settings.train, "heldout": settings.heldout, "safety": settings.safety}
    shown = [tokens for suite in suites for tokens in suite.tokens]
    if unknown := sum(map(encoder.has_unknown, shown)):
        data.counts["prompts_with_unknown_characters"] = unknown
    hashes = {name: data_hash(item) for name, item in rows.items() if item is not None}
    for name, sources in suites_of.items():
        hashes |= {f"{name}/{item.name}": data_hash(item) for item in sources}
    hashes["model"] = model_hash(model)
    if evaluation.lm_eval is not None and evaluation.lm_eval.include_path is not None:
        hashes["lm_eval"] = source_hash(evaluation.lm_eval.include_path)
    if settings.filter_safety_rows:
        hashes["safety_filter"] = load_safety_filter().digest
    lists = tuple(load_keyword_list(name) for name in evaluation.keyword_lists)
    return Inputs(tokenizer, encoder, data, tuple(suites), lists, hashes, ends)


def _suite(
    name: str, sources: Sequence[PromptSuite], settings: DataSettings, encoder: Encoder
) -> Suite:
    prompts = load_suite(sources)
    _refuse_control_tokens(name, sources, prompts, settings, encoder)
    tokens = []
    for prompt in prompts:
        what = f"{name} prompt {prompt.id}"
        tokens.append(encoder.named_prompt(what, prompt.text))
        check_prompt(settings, encoder, tokens[-1], what)
    return Suite(name, tuple(prompts), tuple(tokens))


def _refuse_control_tokens(
    name: str,
    sources: Sequence[PromptSuite],
    prompts: Sequence[Prompt],
    settings: DataSettings,
    encoder: Encoder,
) -> None:
    """Reject prompts with control tokens, unless `data.control_tokens` is `keep`.

    Raises:
        DataError: names the suite, its first such prompt and the tokens.
    """
    found = {
        f"prompt {one.id}": held for one in prompts if (held := encoder.control_tokens(one.text))
    }
    if found and settings.control_tokens != "keep":
        raise control_token_error(
            found,
            f"{len(prompts):,} {name} prompts ({', '.join(source.name for source in sources)})",
            encoder.tokenizer_name,
            "remove them from the text, or set `data.control_tokens: keep` to score such prompts",
        )


def preflight(task: TrajectoryTask, others: Iterable[TrajectoryTask] = ()) -> dict[str, int]:
    """Check the inputs of a sweep before anything is launched; returns the row counts of a task's data.

    Args:
        task: A task whose sources are pinned.
        others: All tasks of the sweep: what differs from `task`, adapters and axes of the data, is checked
            with its sources.

    Raises:
        DataError, ModelError: the data, the model folder or the keyword lists are invalid.
        MissingExtraError: a package that the task needs is not installed.
    """
    by_share = sorted(others, key=lambda other: other.data.safety_share)
    # Of those with one adapter and template, the last has the most rows.
    kinds = {(other.tuning, other.data.template): other for other in by_share}
    for other in kinds.values():
        data, share = other.data, other.data.safety_share
        data = replace(task.data, template=data.template, safety_share=share)
        one = replace(task, tuning=other.tuning, data=data)
        if (one.tuning, one.data) != (task.tuning, task.data):
            _preflight(one)
    return _preflight(task)


def _preflight(task: TrajectoryTask) -> dict[str, int]:
    check_bitsandbytes(task.tuning, [task.optimizer.optim])
    headers = check_model(task.model)
    text_metrics(task.evaluation.utility_metrics, ["a"], ["a"])
    window, vocabulary = check_architecture(task.model, task.tuning, headers)
    if task.evaluation.lm_eval is not None:
        check_harness(task.evaluation.lm_eval, window, task.objectives)
    inputs = load_inputs(task)
    if task.stop is not None:
        _check_limits(task.stop, len(inputs.suites[0].prompts))
    _check_vocabulary(task, inputs, vocabulary)
    if "exact_match" in task.evaluation.utility_metrics:
        references = [row.completion for row in inputs.data.heldout]
        reference_answers(references, task.evaluation.answer_extractor)
    if window is not None:
        _check_window(task, inputs, window)
    return dict(inputs.data.counts)


def _check_limits(rules: StopRules, prompts: int) -> None:
    """Reject limits that would stop every candidate at its first prompts.

    Raises:
        DataError: a limit cannot be met even with no unsafe response.
    """
    for limit in rules.limits:
        if largest_passing_count(prompts, limit.max, limit.confidence) is None:
            raise DataError(
                f"search.stop: with {prompts} harmful prompts, even 0 unsafe responses do not show that "
                f"unsafe_rate <= {limit.max:g} with confidence {limit.confidence:g}, so every candidate "
                "would be stopped; use more prompts, a larger max, or a lower confidence",
                code="data.too_few_prompts",
                key="search.stop",
                prompts=prompts,
            )


def _check_vocabulary(task: TrajectoryTask, inputs: Inputs, rows: int) -> None:
    """Reject texts with tokens that the embeddings have no row for; unused tokens do not matter.

    Raises:
        ModelError: the tokenizer does not belong to the model.
    """
    tokenizer, data = inputs.tokenizer, inputs.data
    used = {int(token) for token in (tokenizer.pad_token_id, tokenizer.eos_token_id)}
    used.update(token for row in data.train for part in row for token in part)
    used.update(token for suite in inputs.suites for ids in suite.tokens for token in ids)
    used.update(
        token for row in data.heldout for part in inputs.encoder.example(row) for token in part
    )
    if beyond := sorted(token for token in used if token >= rows):
        names = ", ".join(f"`{tokenizer.convert_ids_to_tokens(one)}` ({one})" for one in beyond[:5])
        raise ModelError(
            f"{task.model.name}: the tokenizer gives {len(beyond)} tokens that are beyond the {rows} rows "
            f"of the model's embeddings, for example {names}; use the tokenizer of this model, or resize "
            "the embeddings (`model.resize_token_embeddings(len(tokenizer))`) and save the model",
            code="model.mismatch",
            path=task.model.path,
            tokens=beyond,
        )


def _check_window(task: TrajectoryTask, inputs: Inputs, window: int) -> None:
    """Reject sequences longer than the model's context window.

    Raises:
        DataError: `max_length`, or the longest prompt plus its answer, exceeds the window.
    """
    prompts = [len(tokens) for suite in inputs.suites for tokens in suite.tokens]
    prompts += [len(inputs.encoder.prompt(row.prompt)) for row in inputs.data.heldout]
    longest = max(prompts) + task.evaluation.max_new_tokens
    for what, tokens in (
        ("data.max_length", task.data.max_length),
        ("the longest prompt and evaluation.max_new_tokens together", longest),
    ):
        if tokens > window:
            raise DataError(
                f"{what}: {tokens} tokens, but {task.model.name} has a window of {window}; lower "
                "data.max_length or evaluation.max_new_tokens",
                code="data.too_long",
                row=what,
                tokens=tokens,
                limit=window,
            )
