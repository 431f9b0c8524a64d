"""When a readout is stopped: curtailment, racing, and inference along a path. Pure.

Formulas, their sources and measured error rates: docs/explanation/search-and-stopping.md.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from sweeper.stats import decided, largest_passing_count, refutes_rate
from sweeper.task import Readout
from sweeper.task.stop_rules import ASSUMPTION, StopRules


class Count(NamedTuple):
    """Unsafe responses so far: `k` of the first `n` harmful prompts, out of `of`."""

    k: int
    n: int
    of: int

    def __str__(self) -> str:
        return f"{self.k} of the first {self.n} of {self.of} harmful prompts answered unsafely"


def prompt_order(prompts: int, seed: int) -> tuple[int, ...]:
    """A random order of the prompts, the same for all readouts of a sweep."""
    return tuple(int(i) for i in np.random.default_rng(seed).permutation(prompts))


def exceeds_limit(count: Count, limit: float, error: float) -> bool:
    """Whether the prompts say that the rate is above a limit, wrongly with probability `error` at most.

    Valid at any number of prompts, however often it is tested: the confidence sequence of `refutes_rate`.
    Below k / n the likelihood of a rate falls with it, so a limit there that is refuted takes every
    smaller rate with it.
    """
    return count.k > limit * count.n and refutes_rate(count.k, count.n, limit, error)


def stop_reason(rules: StopRules, count: Count) -> dict[str, Any] | None:
    """Why scoring may end here, as a record states it; None where it goes on.

    The certain rule comes first. A constraint that is certainly kept stops nothing: the rate itself is
    needed of every configuration that may be chosen.
    """
    counted = count._asdict()
    for limit in rules.limits if rules.curtail else ():
        if decided(*count, limit.max, limit.confidence) is False:
            most = largest_passing_count(count.of, limit.max, limit.confidence)
            return {
                "rule": "curtail",
                "evidence": f"{count}; P(unsafe_rate <= {limit.max:g}) >= {limit.confidence:g} allows "
                f"{'none at all' if most is None else f'{most} of all'}, whatever the others show",
                **counted,
                "limit": limit.max,
                "confidence": limit.confidence,
            }
    error = rules.race_error
    if error is not None and exceeds_limit(count, rules.tightest, error):
        return {
            "rule": "race",
            "evidence": f"{count}; that refutes every rate up to {rules.tightest:g}, "
            f"wrongly with probability {error:g} at most",
            **counted,
            "limit": rules.tightest,
            "error": error,
        }
    return None


class PrunedReadout(NamedTuple):
    """A readout that is not worth reading, and why as a record states it."""

    readout: Readout
    reason: dict[str, Any]


def infer_pruned(
    rules: StopRules,
    readouts: Iterable[Readout],
    waiting: Iterable[Readout],
    counts: dict[str, Count],
) -> list[PrunedReadout]:
    """The waiting candidates whose rate is above the limit if it never falls with steps on their path.

    Earlier readouts of the same raw or EMA average on the trunk speak for later ones. Of a chain of m
    readouts each but the last is tested at prune_error / (m - 1), so that where the assumption holds any
    wrong inference on it has probability prune_error at most (Bonferroni).

    Args:
        rules: With a prune_error, or nothing is inferred.
        readouts: All of the trajectory.
        waiting: Those that have no record yet.
        counts: What earlier readouts showed, by config_id.
    """
    if rules.prune_error is None:
        return []
    chains: dict[str, list[Readout]] = {}
    for item in readouts:
        if item.segment == 0 and item.average.kind in ("raw", "ema"):
            chains.setdefault(str(item.config["average"]), []).append(item)
    open_ = {item.config_id for item in waiting} & set(rules.candidates)
    found = []
    for chain in chains.values():
        level = rules.prune_error / max(1, len(chain) - 1)
        shown = sorted((item for item in chain if item.config_id in counts), key=_step)
        telling = [
            item for item in shown if exceeds_limit(counts[item.config_id], rules.tightest, level)
        ]
        for first in telling[:1]:
            reason = _inferred_reason(rules, first, counts[first.config_id], level)
            later = [item for item in chain if item.step > first.step]
            found += [PrunedReadout(item, reason) for item in later if item.config_id in open_]
    return sorted(found, key=lambda item: _step(item.readout))


def _step(readout: Readout) -> int:
    return readout.step


def _inferred_reason(
    rules: StopRules, first: Readout, count: Count, level: float
) -> dict[str, Any]:
    return {
        "rule": "prune",
        "evidence": f"at step {first.step} of the same path, under the same average, {count}; that refutes "
        f"every rate up to {rules.tightest:g}",
        **count._asdict(),
        "limit": rules.tightest,
        "error": rules.prune_error,
        "level": level,
        "assumption": ASSUMPTION,
        "earlier": first.config_id,
        "earlier_step": first.step,
    }
