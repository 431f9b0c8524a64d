"""Tasks of lm-evaluation-harness on the model in memory. The only file that imports lm_eval.

Prompts are those of the tasks, without a chat template; responses are greedy. `lm_eval.evaluate` is
called and not `simple_evaluate`, which seeds every generator of the process, asks the hub for the
model's commit and describes the machine at each call.
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
"""`lm_eval.defaults.DEFAULT_OTHER_SEED`: which examples stand in a prompt is part of a task."""

ANSWER_TOKENS = 256
"""`HFLM.max_gen_toks`: how long a response may be where its task does not say it."""


class HarnessScores(NamedTuple):
    """Metrics of tasks and groups, and the scores of single documents that they are the mean of."""

    metrics: dict[str, Metric]
    samples: dict[str, str | tuple[float, ...]]


NO_SCORES = HarnessScores({}, {})


class Harness:
    """Measures a model on the tasks of a sweep. It changes no weight and no state of a generator."""

    def __init__(
        self, settings: HarnessSettings, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        self._loaded = load_tasks(settings)
        self._limit = settings.limit
        self._tokenizer = tokenizer
        self._batch_size = batch_size

    def measure(self, model: PreTrainedModel) -> HarnessScores:
        """Every metric of every task and group; what is not a finite number is left out.

        In a trial of several processes all of them answer all prompts, and so stay in step.

        Args:
            model: In eval mode, with whatever adapters are loaded, under the autocast of the trial.
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
        """The model as the harness takes it, in the trial's precision: it would switch autocast off."""
        from lm_eval.models.huggingface import HFLM

        kind = model.device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        logger = logging.getLogger(HFLM.__module__)
        level = logger.level
        logger.setLevel(logging.ERROR)  # It warns that the model is loaded already.
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
    """Give all generators back as they were: tasks may bring code of their own."""
    states = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _task_scores(results: Mapping[str, Any]) -> HarnessScores:
    """The metrics of every single task, with k where every document scored 0 or 1.

    Scores of documents are samples where the metric is their mean.
    """
    found: dict[str, Metric] = {}
    kept: dict[str, str | tuple[float, ...]] = {}
    for task, samples in results["samples"].items():
        for metric, filtered, value in _values(results["results"][task]):
            scores = [s[metric] for s in samples if s["filter"] == filtered and metric in s]
            if scores:
                name, values = harness_metric(task, metric, filtered), _numbers(scores)
                k = int(sum(values)) if values and set(values) <= {0.0, 1.0} else None
                found[name] = _metric(value, len(scores), k)
                if found[name].k is not None:
                    kept[name] = bits(score == 1 for score in values)
                elif values and _is_mean(value, values):
                    kept[name] = values
    return HarnessScores(found, kept)


def _numbers(scores: Sequence[object]) -> tuple[float, ...]:
    """Scores as numbers; nothing where one is something else, a list to be pooled, say."""
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
                n = sum(part.n for part in parts)
                found[harness_metric(name, metric, filtered)] = _metric(value, n, k)
    return found


def _values(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """(metric, filter, value) of what stands as `metric,filter`, standard errors aside."""
    for key, value in scores.items():
        metric, comma, filtered = key.partition(",")
        number = float(value) if isinstance(value, Real) else math.nan
        if comma and not metric.endswith("_stderr") and math.isfinite(number):
            yield metric, filtered, number


def _metric(value: float, n: int, k: int | None) -> Metric:
    """A rate where the value is the share of the counts and not something else made of them."""
    if k is not None and math.isclose(value, k / n, rel_tol=1e-9, abs_tol=1e-12):
        return Metric.rate(k, n)
    return Metric(value, n)


@lru_cache(maxsize=1)
def load_tasks(settings: HarnessSettings) -> dict[str, Any]:
    """The tasks and groups by name, with their data; kept for the next trial in this process.

    Raises:
        MissingExtraError: lm_eval is not installed.
        DataError: a task that lm_eval does not know, that it cannot load, or that is refused here.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtraError(
            f"{WHERE} needs the package lm-eval ({error}); install `sweeper-llm[eval]`, or leave the "
            "block out"
        ) from None
    if settings.include_path is not None and not Path(settings.include_path).is_dir():
        raise DataError(
            f"{WHERE}.include_path: {settings.include_path} is no folder",
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
    """Tasks of a folder alone are tried first: indexing those of the package takes ten seconds.

    A group may be made of both, so that it needs both.
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
                f"{WHERE}.tasks: `{name}` is no task of lm-eval {version('lm_eval')}{place}{hint}; "
                "`lm-eval ls tasks` lists them",
                code="data.lm_eval",
                key="tasks",
                task=name,
            )


@contextmanager
def _runs(names: Sequence[str]) -> Iterator[None]:
    """Make what a task may fail with, being data and code of its own, an error that names it."""
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
            f"{WHERE}.tasks: {', '.join(names)} cannot be loaded: {type(error).__name__}: {text}; a "
            "task's data set must be a local file or in the cache of `datasets`, or the hub within reach",
            code="data.lm_eval",
            key="tasks",
            tasks=names,
        ) from None


def _check_answerable(name: str, task: Any) -> None:
    """Refuse what is not measured as everything else is, or not safely.

    Raises:
        DataError: a task that runs code of the model's, needs images or sound, or samples.
    """
    options = _generation(task)
    reason = None
    if getattr(task, "UNSAFE_CODE", False):
        reason = "runs code that the model wrote"
    elif getattr(task, "MULTIMODAL", False):
        reason = "needs images or sound"
    elif options.get("do_sample"):
        reason = "samples its responses (do_sample), while all responses of a sweep are greedy"
    if reason is not None:
        raise DataError(
            f"{WHERE}.tasks: `{name}` {reason}; leave it out",
            code="data.lm_eval",
            key="tasks",
            task=name,
        )


def _generation(task: Any) -> dict[str, Any]:
    """How a task wants its responses, in the words of the harness; empty where it wants none."""
    from lm_eval.models.utils import normalize_gen_kwargs

    if task.OUTPUT_TYPE != "generate_until":
        return {}
    given = task.get_config("generation_kwargs") or {}
    return dict(normalize_gen_kwargs(given, ANSWER_TOKENS))


def check_harness(settings: HarnessSettings, window: int | None, objectives: Sequence[str]) -> None:
    """Find what would stop the tasks, or an objective among their metrics, before anything is launched.

    Args:
        settings: The tasks.
        window: How many tokens the model has room for; None where it is not known.
        objectives: Names of metrics, of the harness or not.

    Raises:
        MissingExtraError, DataError: see `load_tasks`; a task whose first prompt cannot be made, a
            response longer than the window, or an objective that no task measures.
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
                f"a window of {window}; set generation_kwargs.max_gen_toks in a task of your own",
                code="data.too_long",
                task=name,
                tokens=longest,
                limit=window,
            )
    known = _names(loaded)
    for objective in objectives:
        if is_harness(objective) and objective not in known:
            raise DataError(
                f"objectives: {objective} is none of what the tasks measure: {', '.join(known)}",
                code="data.lm_eval",
                key="objectives",
                objective=objective,
            )


def _names(loaded: Mapping[str, Any]) -> list[str]:
    """The metrics that the tasks and groups declare, by our names."""
    declared = {
        name: [(m, f.name) for f in getattr(task, "_filters", ()) for m in task.aggregation()]
        for name, task in loaded["tasks"].items()
    }
    for name, group in loaded["groups"].items():
        wanted = {each.metric for each in group.aggregate_metric_list or ()}
        parts = [pair for task in group.get_all_tasks() for pair in declared[task.task_name]]
        declared[name] = [pair for pair in dict.fromkeys(parts) if pair[0] in wanted]
    return [harness_metric(name, *pair) for name, pairs in declared.items() for pair in pairs]
