"""How often the rules of stopping are wrong, and what they save: simulations."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from sweeper.scoring.stopping import Count, exceeds_limit, stop_reason
from sweeper.stats import probability_at_most
from sweeper.task.stop_rules import RateLimit, StopRules

Row = dict[str, float | int | str]

_exceeds_limit = lru_cache(maxsize=1 << 18)(exceeds_limit)


def batches(
    rng: np.random.Generator, rate: float, prompts: int, size: int, *, finite: bool = False
) -> list[Count]:
    """Counts after each batch, of prompts that are unsafe independently with a probability.

    `finite` draws without replacement from a suite of which exactly that share (rounded down) is unsafe.
    """
    unsafe: NDArray[Any] = rng.random(prompts) < rate
    if finite:
        unsafe = rng.permutation(np.arange(prompts) < int(rate * prompts))
    return _counts(unsafe, size)


def race_errors(
    rng: np.random.Generator,
    rate: float,
    error: float,
    prompts: int,
    size: int,
    repetitions: int,
    *,
    limit: float | None = None,
    finite: bool = False,
) -> Row:
    """How often a rate that keeps the limit (the limit itself where none is given) is dropped.

    `peeking` is what looking at an exact one-sided interval of the same level after each batch would do.
    """
    most = rate if limit is None else limit
    dropped = peeking = 0
    for _ in range(repetitions):
        seen = batches(rng, rate, prompts, size, finite=finite)
        dropped += any(_exceeds_limit(count, most, error) for count in seen)
        peeking += any(  # The lower end of Clopper and Pearson's one-sided interval.
            count.k and special.betaincinv(count.k, count.n - count.k + 1, error) > most
            for count in seen
        )
    return {"dropped": dropped / repetitions, "peeking": peeking / repetitions}


def _counts(unsafe: NDArray[Any], size: int) -> list[Count]:
    """Counts after each batch."""
    prompts, sums = len(unsafe), np.cumsum(unsafe).tolist()
    return [Count(sums[n - 1], n, prompts) for n in (*range(size, prompts, size), prompts)]


def _stopped(unsafe: NDArray[Any], size: int) -> Count:
    """The count that a rule stops at, or that of all prompts."""
    seen = _counts(unsafe, size)
    return next((count for count in seen if _reason("both", count) is not None), seen[-1])


LIMIT = RateLimit(0.05, 0.95)

RULES = {
    "curtail": StopRules((LIMIT,), curtail=True),
    "race": StopRules((LIMIT,), race_error=0.05),
    "both": StopRules((LIMIT,), curtail=True, race_error=0.05),
}


@lru_cache(maxsize=1 << 18)
def _reason(name: str, count: Count) -> object:
    return stop_reason(RULES[name], count)


def savings(
    rng: np.random.Generator, rate: float, prompts: int, size: int, repetitions: int
) -> Row:
    """Of readouts with a rate: how many a rule stops, the share of harmful prompts it saves of all.

    `wrong` is the share that would have kept the limit with all prompts.
    """
    found: dict[str, list[float]] = {name: [0.0, 0.0, 0.0] for name in RULES}
    for _ in range(repetitions):
        seen = batches(rng, rate, prompts, size)
        kept = probability_at_most(seen[-1].k, prompts, LIMIT.max) >= LIMIT.confidence
        for name in RULES:
            at = next((count for count in seen if _reason(name, count) is not None), None)
            if at is not None:
                for place, value in enumerate((1.0, 1 - at.n / prompts, float(kept))):
                    found[name][place] += value / repetitions
    heads = ("stopped", "saved", "wrong")
    return {
        f"{name}: {head}": round(value, 12)
        for name, values in found.items()
        for head, value in zip(heads, values, strict=True)
    }


def prune_errors(
    rng: np.random.Generator, rates: Sequence[float], error: float, prompts: int, repetitions: int
) -> Row:
    """How often a chain of readouts is cut before one that keeps the limit, each tested at error / (m - 1).

    The same prompts are asked at every step, in batches of 32, and each turns unsafe where its own
    threshold is passed: the readouts of a path depend on each other. Scoring ends where curtailment or
    racing ends it. The limit is 0.05.
    """
    level = error / (len(rates) - 1)
    wrong = left_out = 0
    for _ in range(repetitions):
        thresholds = rng.random(prompts)
        counts = [_stopped(thresholds < rate, 32) for rate in rates]
        cut = next(
            (i for i, c in enumerate(counts[:-1]) if _exceeds_limit(c, LIMIT.max, level)), None
        )
        if cut is not None:
            wrong += any(rate <= LIMIT.max for rate in rates[cut + 1 :])
            left_out += len(rates) - 1 - cut
    above_limit = sum(rate > LIMIT.max for rate in rates[1:])
    return {
        "cut wrongly": wrong / repetitions,
        "readouts left out": left_out / repetitions,
        "above the limit": above_limit,
    }
