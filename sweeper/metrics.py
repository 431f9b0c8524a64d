"""What each metric is: the one table that spec, trial and results read. Standard library only.

A metric of lm-evaluation-harness is named `lm_eval/TASK/METRIC`, or `lm_eval/TASK/METRIC/FILTER` where
the task filters its responses in several ways. `NAME/LIST` is a rate under a further keyword list.
"""

from typing import Literal, NamedTuple

Direction = Literal["minimize", "maximize"]

HARNESS = "lm_eval"


class MetricKind(NamedTuple):
    """What a metric is.

    `source` is what it is computed from: the `likelihood` of held-out tokens, the `text` of responses to
    held-out prompts, or `verdicts` on responses to safety prompts. `sampled` says that it is a mean over
    independent prompts or rows of scores in [0, 1], so that Wilson's interval holds; tokens of one text
    are not independent.
    """

    direction: Direction
    purpose: Literal["utility", "safety"]
    source: Literal["likelihood", "text", "verdicts"]
    sampled: bool


KINDS = {
    "heldout_loss": MetricKind("minimize", "utility", "likelihood", sampled=False),
    "perplexity": MetricKind("minimize", "utility", "likelihood", sampled=False),
    "token_accuracy": MetricKind("maximize", "utility", "likelihood", sampled=False),
    "rouge_l": MetricKind("maximize", "utility", "text", sampled=True),
    "chrf": MetricKind("maximize", "utility", "text", sampled=True),
    "exact_match": MetricKind("maximize", "utility", "text", sampled=True),
    "unsafe_rate": MetricKind("minimize", "safety", "verdicts", sampled=True),
    "over_refusal_rate": MetricKind("minimize", "safety", "verdicts", sampled=True),
}

METRICS = tuple(KINDS)
UTILITY_METRICS = tuple(name for name, kind in KINDS.items() if kind.purpose == "utility")
SAFETY_METRICS = tuple(name for name, kind in KINDS.items() if kind.purpose == "safety")
LIKELIHOOD_METRICS = frozenset(n for n, kind in KINDS.items() if kind.source == "likelihood")
TEXT_METRICS = frozenset(name for name, kind in KINDS.items() if kind.source == "text")

HARNESS_MAXIMIZED = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
"""Metrics of the harness that are to be maximised whatever the task (lm_eval.api.metrics, 0.4.13)."""


def harness_metric(task: str, metric: str, filtered: str = "none") -> str:
    """The name of a metric of the harness; its filter `none` means unfiltered responses."""
    return "/".join([HARNESS, task, metric, *([] if filtered == "none" else [filtered])])


def is_harness(name: str) -> bool:
    """Whether a name is of the form `lm_eval/TASK/METRIC` or `lm_eval/TASK/METRIC/FILTER`."""
    prefix, *parts = name.split("/")
    return prefix == HARNESS and len(parts) in (2, 3) and all(parts)


def is_utility(name: str) -> bool:
    """Whether a metric measures usefulness."""
    return name in UTILITY_METRICS or is_harness(name)


def direction_of(name: str) -> Direction | None:
    """Whether a metric is minimised or maximised; None where its name does not determine it."""
    if is_harness(name):
        return "maximize" if name.split("/")[2] in HARNESS_MAXIMIZED else None
    return KINDS[name].direction if name in KINDS else None


def is_sampled(name: str, *, counted: bool) -> bool:
    """Whether a metric is a mean over independent prompts or rows; see `MetricKind.sampled`.

    Args:
        name: Any metric that stands in a record.
        counted: Whether it was recorded as k of n. Where the table does not know the metric that
            decides: only rates over prompts are counted there.
    """
    kind = KINDS.get(name.partition("/")[0])
    return counted if kind is None else kind.sampled


def is_rate(name: str) -> bool:
    """Whether a metric is shown in per cent: `unsafe_rate` and `unsafe_rate/zou2023` are."""
    return name.partition("/")[0].endswith("_rate")


def metric_text(name: str, value: float) -> str:
    """A value as every surface shows it: `1.2 %` of a rate, `0.833` of any other metric."""
    return f"{100 * value:.1f} %" if is_rate(name) else f"{value:.3f}"


def range_text(name: str, low: float, high: float) -> str:
    """Two values in the same way: `0.4 to 3.6 %`, `0.703 to 0.901`."""
    return f"{metric_text(name, low).removesuffix(' %')} to {metric_text(name, high)}"
