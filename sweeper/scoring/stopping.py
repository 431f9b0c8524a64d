"""Stop rules of readouts: curtailment, racing, and inference along a path.

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
    """Whether the responses show that the rate exceeds a limit, with error probability <= `error`.

    Valid at any number of prompts and for repeated tests (the confidence sequence of `refutes_rate`). Below
    k / n the likelihood decreases with the rate, so refuting a limit there also refutes all smaller rates.
    """
    return count.k > limit * count.n and refutes_rate(count.k, count.n, limit, error)


def stop_reason(rules: StopRules, count: Count) -> dict[str, Any] | None:
    """The reason to stop scoring, in the format of a record; None if scoring continues.

    Curtailment, which is exact, is tested first. A constraint that is certainly met does not stop scoring,
    because every configuration that may be chosen needs its rate.
    """
    counted = count._asdict()
    for limit in rules.limits if rules.curtail else ():
        if decided(*count, limit.max, limit.confidence) is False:
            most = largest_passing_count(count.of, limit.max, limit.confidence)
            return {
                "rule": "curtail",
                "evidence": f"{count}; P(unsafe_rate <= {limit.max:g}) >= {limit.confidence:g} allows "
                f"{'none' if most is None else f'at most {most} in total'}, so the constraint cannot hold",
                **counted,
                "limit": limit.max,
                "confidence": limit.confidence,
            }
    error = rules.race_error
    if error is not None and exceeds_limit(count, rules.tightest, error):
        return {
            "rule": "race",
            "evidence": f"{count}; this refutes every rate up to {rules.tightest:g}, "
            f"with an error probability of at most {error:g}",
            **counted,
            "limit": rules.tightest,
            "error": error,
        }
    return None


class PrunedReadout(NamedTuple):
    """A readout that need not be measured, and the reason in the format of a record."""

    readout: Readout
    reason: dict[str, Any]


def infer_pruned(
    rules: StopRules,
    readouts: Iterable[Readout],
    waiting: Iterable[Readout],
    counts: dict[str, Count],
) -> list[PrunedReadout]:
    """The waiting candidates whose rate exceeds the limit, assuming that it never falls along a path.

    Earlier trunk readouts of the same raw or EMA average are evidence for later ones. In a chain of m
    readouts, each but the last is tested at prune_error / (m - 1), so that, if the assumption holds, the
    probability of any wrong inference is at most prune_error (Bonferroni).

    Args:
        rules: Stop rules; without a prune_error nothing is inferred.
        readouts: All readouts of the trajectory.
        waiting: The readouts without a record.
        counts: The counts of earlier readouts, by config_id.
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
        "evidence": f"at step {first.step} of the same path, with the same average, {count}; this refutes "
        f"every rate up to {rules.tightest:g}",
        **count._asdict(),
        "limit": rules.tightest,
        "error": rules.prune_error,
        "level": level,
        "assumption": ASSUMPTION,
        "earlier": first.config_id,
        "earlier_step": first.step,
    }
