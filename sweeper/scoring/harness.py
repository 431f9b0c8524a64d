"""Runs tasks of lm-evaluation-harness on the model in memory. The only module that imports lm_eval.

Prompts are those of the tasks, without a chat template; responses are greedy. It calls `lm_eval.evaluate`
instead of `simple_evaluate`, which seeds all generators of the process, queries the hub for the model's
commit and collects machine information at each call.
"""

import difflib
import io
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sweeper.errors import DataError, MissingExtraError
from sweeper.metrics import harness_metric, is_harness
from sweeper.store.records import Metric
from sweeper.store.samples import TOLERANCE, bits
from sweeper.task import HarnessSettings

WHERE = "evaluation.lm_eval"

FEWSHOT_SEED = 1234
"""`lm_eval.defaults.DEFAULT_OTHER_SEED`: the few-shot examples in a prompt are part of a task."""

ANSWER_TOKENS = 256
"""`HFLM.max_gen_toks`: the maximum length of a response if its task does not set one."""


class HarnessScores(NamedTuple):
    """Metrics of tasks and groups, and the per-document scores whose means they are."""

    metrics: dict[str, Metric]
    samples: dict[str, str | tuple[float, ...]]


NO_SCORES = HarnessScores({}, {})


class Harness:
    """Evaluates a model on the tasks of a sweep, without changing weights or random states."""

    def __init__(
        self, settings: HarnessSettings, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        self._loaded = load_tasks(settings)
        self._limit = settings.limit
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    def measure(self, model: PreTrainedModel) -> HarnessScores:
        """Compute every metric of every task and group; values that are not finite are omitted.

        In a trial with several processes each answers all prompts, which keeps them synchronized.

        Args:
            model: In eval mode, with its adapters loaded, under the autocast of the trial.
        """
        from lm_eval.evaluator import evaluate  # Optional, and slow to import; see `load_tasks`.

        for task in self._loaded["tasks"].values():
            task.set_fewshot_seed(FEWSHOT_SEED)
        with _undisturbed(), redirect_stderr(io.StringIO()):  # Its progress bars go there.
            results = evaluate(
                lm=self._wrapped(model),
                task_dict=self._loaded,
                limit=self._limit,
                bootstrap_iters=0,
            )
        single, samples = _task_scores(results)
        groups = _group_metrics(results["results"], self._loaded["groups"], single)
        return HarnessScores(single | groups, samples)

    def _wrapped(self, model: PreTrainedModel) -> Any:
        """The model wrapped for the harness, in the trial's precision (by default it disables autocast)."""
        from lm_eval.models.huggingface import HFLM

        kind = model.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        logger = logging.getLogger(HFLM.__module__)
        level = logger.level
        logger.setLevel(logging.ERROR)  # It warns that the model is already loaded.
        try:
            return HFLM(
                pretrained=model,
                tokenizer=self._tokenizer,
                backend="causal",
                batch_size=self._batch_size,
                mixed_precision_dtype=autocast,
                softmax_dtype="float32",
            )
        finally:
            logger.setLevel(level)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore the state of all random generators afterwards: tasks may run custom code."""
    states = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _task_scores(results: Mapping[str, Any]) -> HarnessScores:
    """The metrics of every single task, with k if every document scored 0 or 1.

    Document scores are stored as samples if the metric is their mean.
    """
    metrics: dict[str, Metric] = {}
    samples_of: dict[str, str | tuple[float, ...]] = {}
    for task, samples in results["samples"].items():
        for metric, filtered, value in _values(results["results"][task]):
            scores = [s[metric] for s in samples if s["filter"] == filtered and metric in s]
            if scores:
                name, values = harness_metric(task, metric, filtered), _numbers(scores)
                k = int(sum(values)) if values and set(values) <= {0.0, 1.0} else None
                metrics[name] = _metric(value, len(scores), k)
                if metrics[name].k is not None:
                    samples_of[name] = bits(score == 1 for score in values)
                elif values and _is_mean(value, values):
                    samples_of[name] = values
    return HarnessScores(metrics, samples_of)


def _numbers(scores: Sequence[object]) -> tuple[float, ...]:
    """Scores as numbers; empty if one is not a number, for example a list to be pooled."""
    numbers = tuple(float(score) for score in scores if isinstance(score, Real | np.bool_))
    return numbers if len(numbers) == len(scores) else ()


def _is_mean(value: float, values: Sequence[float]) -> bool:
    mean = math.fsum(values) / len(values)
    return math.isclose(value, mean, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _group_metrics(
    values: Mapping[str, Any], groups: Mapping[str, Any], single: Mapping[str, Metric]
) -> dict[str, Metric]:
    """The metrics of groups of tasks; n is the number of all their documents."""
    found = {}
    for name, group in groups.items():
        tasks = [task.task_name for task in group.get_all_tasks()]
        for metric, filtered, value in _values(values.get(name, {})):
            names = [harness_metric(task, metric, filtered) for task in tasks]
            parts = [single[part] for part in names if part in single]
            counts = [part.k for part in parts if part.k is not None]
            k = sum(counts) if len(counts) == len(parts) else None
            if parts:
                n = sum(part.n or 0 for part in parts)
                found[harness_metric(name, metric, filtered)] = _metric(value, n, k)
    return found


def _values(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(metric, filter, value) of the keys `metric,filter`, except standard errors."""
    for key, value in scores.items():
        metric, comma, filtered = key.partition(",")
        number = float(value) if isinstance(value, Real) else math.nan
        if comma and not metric.endswith("_stderr") and math.isfinite(number):
            yield metric, filtered, number


def _metric(value: float, n: int, k: int | None) -> Metric:
    """A rate if the value equals k / n, else a plain value."""
    if k is not None and math.isclose(value, k / n, rel_tol=1e-9, abs_tol=1e-12):
        return Metric.rate(k, n)
    return Metric(value, n)


@lru_cache(maxsize=1)
def load_tasks(settings: HarnessSettings) -> dict[str, Any]:
    """Load the tasks and groups by name, with their data; cached for later trials in this process.

    Raises:
        MissingExtraError: lm_eval is not installed.
        DataError: a task is unknown to lm_eval, cannot be loaded, or is not supported here.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError(
            f"{WHERE} needs the package lm-eval ({error}); install `sweeper-llm[eval]`, or remove the "
            "block"
        ) from None
    if settings.include_path is not None and not Path(settings.include_path).is_dir():
        raise DataError(
            f"{WHERE}.include_path: {settings.include_path} is not a folder; give a folder of task files",
            code="data.lm_eval",
            key="include_path",
            path=settings.include_path,
        )
    manager = _manager(TaskManager, settings)
    _check_known(settings, manager.all_tasks)
    with _runs(settings.tasks):
        loaded: dict[str, Any] = manager.load(list(settings.tasks))
    for name, task in loaded["tasks"].items():
        _check_answerable(name, task)
        shots = settings.num_fewshot
        if shots is not None and task.get_config("num_fewshot") != 0:  # A task's own 0 is kept.
            task.set_config(key="num_fewshot", value=shots)
    return loaded


def _manager(manager: Callable[..., Any], settings: HarnessSettings) -> Any:
    """A task manager: of the `include_path` folder alone if it has all tasks, else also of lm_eval.

    Indexing the tasks of the package takes ten seconds.
    """
    if settings.include_path is not None:
        own = manager(include_path=settings.include_path, include_defaults=False)
        if set(settings.tasks) <= set(own.all_subtasks):
            return own
    return manager(include_path=settings.include_path)


def _check_known(settings: HarnessSettings, known: Sequence[str]) -> None:
    for name in settings.tasks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" (did you mean `{near[0]}`?)" if near else ""
            place = f" and the folder {settings.include_path}" if settings.include_path else ""
            raise DataError(
                f"{WHERE}.tasks: lm-eval {version('lm_eval')}{place} has no task `{name}`{hint}; "
                "`lm-eval ls tasks` lists all tasks",
                code="data.lm_eval",
                key="tasks",
                task=name,
            )


@contextmanager
def _runs(names: Sequence[str]) -> Iterator[None]:
    """Convert any error of a task's data or code to a DataError that names the task."""
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError

    try:
        with redirect_stderr(io.StringIO()):
            yield
    except (
        AssertionError,
        AttributeError,
        DatasetsError,
        ImportError,
        LookupError,
        OSError,
        RuntimeError,
        TemplateError,
        TypeError,
        ValueError,
    ) as error:
        text = (str(error).strip() or "no message").splitlines()[0]
        raise DataError(
            f"{WHERE}.tasks: cannot load {', '.join(names)}: {type(error).__name__}: {text}; a task's "
            "data set must be a local file, in the cache of `datasets`, or on a reachable hub",
            code="data.lm_eval",
            key="tasks",
            tasks=names,
        ) from None


def _check_answerable(name: str, task: Any) -> None:
    """Reject tasks that are unsafe or not comparable with the other metrics.

    Raises:
        DataError: a task that executes generated code, needs images or sound, or samples responses.
    """
    options = _generation(task)
    reason = None
    if getattr(task, "UNSAFE_CODE", False):
        reason = "executes code generated by the model"
    elif getattr(task, "MULTIMODAL", False):
        reason = "needs images or sound"
    elif options.get("do_sample"):
        reason = "samples responses (do_sample), but a sweep uses greedy decoding"
    if reason is not None:
        raise DataError(
            f"{WHERE}.tasks: `{name}` {reason}; remove it",
            code="data.lm_eval",
            key="tasks",
            task=name,
        )


def _generation(task: Any) -> dict[str, Any]:
    """The generation arguments of a task, as normalized by the harness; empty if it generates nothing."""
    from lm_eval.models.utils import normalize_gen_kwargs

    if task.OUTPUT_TYPE != "generate_until":
        return {}
    given = task.get_config("generation_kwargs") or {}
    return dict(normalize_gen_kwargs(given, ANSWER_TOKENS))


def check_harness(settings: HarnessSettings, window: int | None, objectives: Sequence[str]) -> None:
    """Check the tasks, and objectives among their metrics, before anything is launched.

    Args:
        settings: The tasks.
        window: The model's context window in tokens; None if unknown.
        objectives: Names of metrics, of the harness or others.

    Raises:
        MissingExtraError, DataError: see `load_tasks`; or a task's first prompt cannot be built, a response
            may exceed the window, or no task measures an objective.
    """
    loaded = load_tasks(settings)
    for name, task in loaded["tasks"].items():
        with _runs([name]):
            task.set_fewshot_seed(FEWSHOT_SEED)
            task.build_all_requests(limit=1)
        longest = _generation(task).get("max_gen_toks", 0)
        if window is not None and longest >= window:
            raise DataError(
                f"{WHERE}.tasks: `{name}` generates up to {longest} tokens, but the model has "
                f"a window of {window}; set generation_kwargs.max_gen_toks in a custom task",
                code="data.too_long",
                task=name,
                tokens=longest,
                limit=window,
            )
    known = _names(loaded)
    for objective in objectives:
        if is_harness(objective) and objective not in known:
            raise DataError(
                f"objectives: no task measures {objective}; the tasks measure {', '.join(known)}",
                code="data.lm_eval",
                key="objectives",
                objective=objective,
            )


def _names(loaded: Mapping[str, Any]) -> list[str]:
    """Our names of the metrics that the tasks and groups declare."""
    declared = {
        name: [(m, f.name) for f in getattr(task, "_filters", ()) for m in task.aggregation()]
        for name, task in loaded["tasks"].items()
    }
    for name, group in loaded["groups"].items():
        wanted = {each.metric for each in group.aggregate_metric_list or ()}
        parts = [pair for task in group.get_all_tasks() for pair in declared[task.task_name]]
        declared[name] = [pair for pair in dict.fromkeys(parts) if pair[0] in wanted]
    return [harness_metric(name, *pair) for name, pairs in declared.items() for pair in pairs]
