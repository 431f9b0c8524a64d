"""What metrics are made of: one value for each prompt or row, and how a metric follows from them.

Samples are named like their metric: a string of `0` and `1` for a rate, numbers for a mean. What is read
off the likelihood of held-out rows shares three lists: the loss summed over a row's target tokens in nats,
those tokens, and how many of them were predicted right. The order is that of the suite or of the held-out
rows, which is also that of the stored responses.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sweeper.metrics import LIKELIHOOD_METRICS

Samples = Mapping[str, str | tuple[float, ...]]

LOSS, TOKENS, CORRECT = "heldout/loss", "heldout/tokens", "heldout/correct"
ROWS = (LOSS, TOKENS, CORRECT)

TOLERANCE = 1e-12
"""How far a mean may be from that of its samples, relative or absolute: only harnesses sum otherwise."""


class Value(NamedTuple):
    """A metric as its samples give it; `k` for rates only."""

    value: float
    n: int
    k: int | None = None


def bits(verdicts: Iterable[bool]) -> str:
    """Verdicts as a string of `0` and `1`."""
    return "".join("1" if verdict else "0" for verdict in verdicts)


def metric_value(name: str, samples: Samples) -> Value | None:
    """A metric computed from samples; None where they do not hold it, or it is no finite number.

    Args:
        name: Of the metric.
        samples: Of one record.

    Raises:
        ValueError: samples that are none: a string of other characters, an empty one, or lists of unequal
            length.
    """
    if name in LIKELIHOOD_METRICS:
        return _likelihood(name, samples)
    found = None if name in ROWS else samples.get(name)
    if found is None:
        return None
    n = len(found)
    if isinstance(found, str):
        k = found.count("1")
        if n < 1 or k + found.count("0") != n:
            raise ValueError(f"the samples of {name} must be one 0 or 1 for each prompt")
        return Value(k / n, n, k)
    if n < 1:
        raise ValueError(f"the samples of {name} are empty")
    return Value(math.fsum(found) / n, n)


def _likelihood(name: str, samples: Samples) -> Value | None:
    tokens = samples.get(TOKENS)
    wanted = samples.get(CORRECT if name == "token_accuracy" else LOSS)
    if tokens is None or wanted is None:
        return None
    if len(wanted) != len(tokens) or not tokens:
        raise ValueError(
            f"the samples of {name} are {len(wanted)} rows, their tokens {len(tokens)}"
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
