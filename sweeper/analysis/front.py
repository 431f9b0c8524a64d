"""Records of one sweep gathered into candidates, and the non-dominated ones among them.

A candidate is a configuration over its seeds. Its values are means over seeds; its probability of
satisfying a constraint is the smallest over seeds, because further seeds do not add prompts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import BASE_ROLE, Candidate, loss, losses, reason_text
from sweeper.analysis.paired_tests import paired_difference
from sweeper.spec import Constraint, Objective, ResultsSpec
from sweeper.stats import probability_at_most
from sweeper.store.records import TrialRecord

GAIN_CONFIDENCE = 0.95
UNTOUCHED = "untouched base model"
_PAIRWISE_BLOCK = 512


class Front(NamedTuple):
    """What a sweep found.

    `members` are complete, feasible and non-dominated among such candidates, best utility first.
    `trade_off` is the same without the constraints. `base` is the untouched model, which is in neither.
    """

    candidates: tuple[Candidate, ...]
    members: tuple[Candidate, ...]
    trade_off: tuple[Candidate, ...]
    base: Candidate | None
    objectives: tuple[Objective, ...]

    @property
    def competing(self) -> tuple[Candidate, ...]:
        """The candidates that are complete under every seed and were trained."""
        return tuple(item for item in self.candidates if item.excluded is None)


def find_front(records: Iterable[TrialRecord], spec: ResultsSpec) -> Front:
    """Gather records over seeds and find the front.

    A candidate that lacks a seed of the spec is excluded like one that failed there: a mean over fewer
    seeds is not comparable.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(record.config_id, []).append(record)
    found = [_candidate(group, spec) for group in groups.values()]
    base = next((item for item in found if item.role == BASE_ROLE), None)
    candidates = tuple(_with_gain(item, base, spec.utility) for item in found)
    base = next((item for item in candidates if item.role == BASE_ROLE), None)
    competing = [item for item in candidates if item.excluded is None]
    feasible = [item for item in competing if item.feasible]
    objectives = spec.objectives
    return Front(
        candidates=candidates,
        members=_best_of(feasible, objectives, spec.utility),
        trade_off=_best_of(competing, objectives, spec.utility),
        base=base,
        objectives=objectives,
    )


def _candidate(group: Sequence[TrialRecord], spec: ResultsSpec) -> Candidate:
    records = tuple(sorted(group, key=lambda record: record.seed))
    first = records[0]
    seeds = tuple(record.seed for record in records)
    probabilities = tuple(_probability(records, item) for item in spec.constraints)
    margins = [p - c.confidence for p, c in zip(probabilities, spec.constraints, strict=True)]
    tightest = margins.index(min(margins)) if margins else None
    values = _means(records)
    return Candidate(
        config_id=first.config_id,
        role=first.role,
        config=first.config,
        readout=first.readout,
        records=records,
        values=values,
        seeds=seeds,
        excluded=_exclusion(records, values, spec),
        probabilities=probabilities,
        probability=1.0 if tightest is None else probabilities[tightest],
        margin=math.inf if tightest is None else margins[tightest],
        feasible=all(margin >= 0 for margin in margins),
    )


def _means(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Mean over seeds of each metric that every record has with a finite value."""
    names = [name for name in records[0].metrics if all(name in r.metrics for r in records)]
    means = {
        name: math.fsum(r.metrics[name].value for r in records) / len(records) for name in names
    }
    return {name: value for name, value in means.items() if math.isfinite(value)}


def _exclusion(
    records: Sequence[TrialRecord], values: Mapping[str, float], spec: ResultsSpec
) -> str | None:
    if records[0].role == BASE_ROLE:
        return UNTOUCHED
    for record in records:
        if record.status != "complete":
            return f"{record.status} under seed {record.seed}: {reason_text(record)}"
    missing = sorted(set(spec.seeds) - {record.seed for record in records})
    if missing:
        return f"no record yet for seed {', '.join(map(str, missing))}"
    unmeasured = [o.metric for o in spec.objectives if o.metric not in values]
    return f"not measured: {', '.join(unmeasured)}" if unmeasured else None


def _probability(records: Sequence[TrialRecord], constraint: Constraint) -> float:
    """Smallest P(rate <= max) over seeds. Zero where a count is missing: fail closed."""
    each = []
    for record in records:
        metric = record.metrics.get(constraint.metric)
        counts = None if metric is None else metric.counts
        if counts is None:
            return 0.0
        each.append(probability_at_most(*counts, constraint.max))
    return min(each)


def _best_of(
    items: Sequence[Candidate], objectives: Sequence[Objective], utility: Objective
) -> tuple[Candidate, ...]:
    """The non-dominated of the complete candidates, best utility first."""
    if not items:
        return ()
    mask = non_dominated(losses(items, objectives))
    chosen = [item for item, keep in zip(items, mask, strict=True) if keep]
    return tuple(sorted(chosen, key=lambda item: (loss(item, utility), item.config_id)))


def _with_gain(candidate: Candidate, base: Candidate | None, utility: Objective) -> Candidate:
    """Mark whether the utility is above the base model's.

    Where both have rows, the one-sided 95 % lower bound of the mean improvement over the same rows must
    be above zero. Without rows, means of [0, 1] scores are compared as if their rows were independent,
    taking the fewest of any seed; of a loss or a token accuracy only the value is used.
    """
    name = utility.metric
    found = (
        None
        if base is None or candidate is base
        else paired_difference(candidate, base, name, 2 * GAIN_CONFIDENCE - 1)
    )
    if base is None or found is None:
        return candidate
    mine, its = found.first, found.second
    if found.interval is None:
        gain = loss(candidate, utility) < loss(base, utility)
        evidence = f"{name} {mine:.4g} against the base model's {its:.4g}"
        return replace(candidate, gain=gain, gain_evidence=evidence)
    bound = found.interval.low if utility.direction == "maximize" else -found.interval.high
    rows, base_rows = candidate.size(name), base.size(name)
    counts = ("", "") if found.paired else (f" (n={rows})", f" (n={base_rows})")
    evidence = (
        f"{name} {mine:.4g}{counts[0]} against the base model's {its:.4g}{counts[1]}"
        f"{f' on the same {found.n} rows' if found.paired else ''}: "
        f"difference at least {bound:+.3g} with {GAIN_CONFIDENCE:.0%} confidence"
    )
    return replace(candidate, gain=bound > 0, gain_evidence=evidence)


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row dominates, everything minimised.

    A row dominates another if no entry is larger and at least one is smaller. Equal rows do not
    dominate each other, so every copy of a non-dominated row is kept. +inf is the worst value, -inf
    the best.

    Args:
        points: Shape (n, m), m >= 1.

    Returns:
        Mask of shape (n,). Two columns cost one sort; more cost n times the size of the front.

    Raises:
        ValueError: a NaN, which cannot be ordered, or not a matrix with a column.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] < 1:
        raise ValueError(f"points must have shape (n, m) with m >= 1, but got {points.shape}")
    if np.isnan(points).any():
        raise ValueError("points must not hold NaN; leave unmeasured candidates out")
    if len(points) == 0:
        return np.zeros(0, dtype=np.bool_)
    # Sorted by the first column, then the others, no row can be dominated by a later one.
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    kept = _sweep(unique[:, 1]) if points.shape[1] == 2 else _filter(unique)
    mask: NDArray[np.bool_] = kept[inverse.reshape(-1)]
    return mask


def _sweep(second: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Two columns, rows unique and sorted: a row is kept if its second value is a new minimum."""
    before = np.minimum.accumulate(second)[:-1]
    return np.concatenate([[True], second[1:] < before])


def _filter(unique: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Any number of columns, rows unique and sorted: compare with the front so far, by blocks."""
    kept = np.zeros(len(unique), dtype=np.bool_)
    front = np.empty((0, unique.shape[1]))
    for start in range(0, len(unique), _PAIRWISE_BLOCK):
        block = unique[start : start + _PAIRWISE_BLOCK]
        indices = np.flatnonzero(~_covered(block, front))
        block = block[indices]
        # Rows are unique, so "nowhere larger" by another row is domination.
        covers = np.array((block[:, None, :] <= block[None, :, :]).all(axis=2))
        np.fill_diagonal(covers, False)
        inside = ~covers.any(axis=0)
        kept[start + indices[inside]] = True
        front = np.concatenate([front, block[inside]])
    return kept


def _covered(block: NDArray[np.float64], front: NDArray[np.float64]) -> NDArray[np.bool_]:
    covered = np.zeros(len(block), dtype=np.bool_)
    for start in range(0, len(front), _PAIRWISE_BLOCK):
        part = front[start : start + _PAIRWISE_BLOCK]
        covered |= (part[:, None, :] <= block[None, :, :]).all(axis=2).any(axis=0)
    return covered
