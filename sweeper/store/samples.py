"""Per-sample values: one for each prompt or row, and how metrics are computed from them.

Samples have the name of their metric: a string of `0` and `1` for a rate, numbers for a mean. The metrics
computed from the likelihood of held-out rows share three lists, per row: the loss summed over its target
tokens in nats, the number of these tokens, and how many of them were predicted correctly. The order is that
of the suite or of the held-out rows, as in the stored responses.
"""

import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sweeper.metrics import LIKELIHOOD_METRICS

Samples = Mapping[str, str | Sequence[float]]

LOSS, TOKENS, CORRECT = "heldout/loss", "heldout/tokens", "heldout/correct"
ROWS = (LOSS, TOKENS, CORRECT)

TOLERANCE = 1e-12
"""Relative or absolute tolerance between a mean and that of its samples: harnesses sum differently."""


class Value(NamedTuple):
    """The value of a metric computed from samples; `k` for rates only."""

    value: float
    n: int
    k: int | None = None


def bits(verdicts: Iterable[bool]) -> str:
    """Verdicts as a string of `0` and `1`."""
    return "".join("1" if verdict else "0" for verdict in verdicts)


PACKED = frozenset((str, array))
"""What needs no packing."""


def packed(values: str | Sequence[float]) -> str | Sequence[float]:
    """Numbers in a quarter of the memory of a tuple: an array if all are floats or all small integers."""
    if isinstance(values, (str, array)):
        return values
    kinds = set(map(type, values))
    try:
        if kinds == {float}:
            return array("d", values)
        if kinds == {int}:
            return array("q", values)
    except OverflowError:
        pass
    return tuple(values)


def metric_value(name: str, samples: Samples) -> Value | None:
    """Compute a metric from samples; None if they do not contain it, or the result is not finite.

    Args:
        name: The metric.
        samples: The samples of one record.

    Raises:
        ValueError: invalid samples: empty, a string of other characters, or lists of unequal length.
    """
    if name in LIKELIHOOD_METRICS:
        return _likelihood(name, samples)
    values = None if name in ROWS else samples.get(name)
    if values is None:
        return None
    n = len(values)
    if isinstance(values, str):
        k = values.count("1")
        if n < 1 or k + values.count("0") != n:
            raise ValueError(f"the samples of {name} must be one 0 or 1 for each prompt")
        return Value(k / n, n, k)
    if n < 1:
        raise ValueError(f"the samples of {name} are empty")
    return Value(math.fsum(values) / n, n)


def _likelihood(name: str, samples: Samples) -> Value | None:
    tokens = samples.get(TOKENS)
    wanted = samples.get(CORRECT if name == "token_accuracy" else LOSS)
    if tokens is None or wanted is None:
        return None
    if len(wanted) != len(tokens) or not tokens:
        raise ValueError(
            f"the samples of {name} have {len(wanted)} rows, but their token counts have {len(tokens)}"
        )
    n, total = int(math.fsum(map(float, tokens))), math.fsum(map(float, wanted))
    if name == "token_accuracy":
        return Value(int(total) / n, n, int(total))
    loss = total / n
    if not math.isfinite(loss):
        return None
    if name == "heldout_loss":
        return Value(loss, n)
    return Value(math.exp(loss), n) if loss < math.log(sys.float_info.max) else None
