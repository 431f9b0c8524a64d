"""Which configurations are on the front, off it, or uncertain, by Monte Carlo.

Each draw gives every configuration one plausible true value of each metric. The front of a draw is the set
of configurations that satisfy every constraint and are not dominated by another such one. The share of
draws in which a configuration is on it is a lower bound of P(on front): estimates are noisy, draws add the
noise a second time, and among many close ones some other one dominates by chance in most draws. The upper
bound counts one other at a time: P(on front) <= 1 - max over j of P(j dominates), whatever the dependence.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import Candidate, losses
from sweeper.analysis.draws import MetricDraws, is_bounded, metric_draws, weights_of
from sweeper.analysis.front import Front, non_dominated
from sweeper.analysis.paired_tests import Claim
from sweeper.analysis.rivals import dominated_by_one, likeliest
from sweeper.metrics import SAFETY_METRICS
from sweeper.spec import Objective, ResultsSpec
from sweeper.stats import Interval, hypervolume, hypervolumes

Floats = NDArray[np.float64]
Label = Literal["on", "uncertain", "off"]
"""What P(on front) is about: the weights that were measured, or their configurations over training runs."""

ON = 0.95
"""A configuration whose lower bound is at least this is on the front."""

OFF = 0.01
"""A configuration whose upper bound is below this is off the front."""

DRAWS = 4000
"""The standard error of a probability is at most 0.008, and 0.0035 at 0.95."""

FEWEST_DRAWS = 250
"""For very many configurations; standard errors are four times those of DRAWS."""

BUDGET = {2: 5_000_000, 3: 1_000_000}
"""Draws times configurations, by number of objectives (3 for more, too): a few seconds."""

SEED = 20_260_101

_ABOUT: Mapping[Claim, str] = {
    "these weights": "these weights, over prompts",
    "trained again": "these configurations trained again, over prompts and training runs",
}
_VOLUME_DRAWS = 1000
_CELLS = 1_000_000

_TOGETHER = 1024
"""Up to this many configurations the fronts of draws are found together, above one after the other."""

_PILOT = 16
_CACHED = 16_384
"""Values of an objective compared at a time: they fit into a processor's cache."""
_LEADERS = 12


class FrontMembership(NamedTuple):
    """How likely one configuration is on the front.

    P(on front) lies between `p_front`, that no other one dominates, all counted together, and
    `p_front_upper`, that the single one that most probably does, does not. The first decides on `on`, the
    second on `off`; `claim` says what both are about. `p_feasible` is the probability of satisfying a
    constraint, the smallest over constraints and seeds, which decides feasibility. `on_front` says whether
    the point estimates put it on the front.
    """

    p_front: float
    p_front_upper: float
    p_feasible: float
    label: Label
    on_front: bool
    claim: Claim


def bounds_text(low: float, high: float) -> str:
    """Both bounds of P(on front), `0.040 to 0.310`; one number where three digits are the same."""
    texts = f"{low:.3f}", f"{high:.3f}"
    return " to ".join(dict.fromkeys(texts))


class Volume(NamedTuple):
    """Hypervolume of the members of the front: at the estimates, and in the middle 95 % of draws.

    `reference` holds the reference point by metric, as the metrics are read.
    """

    value: float
    interval: Interval
    reference: Mapping[str, float]


class Certainty(NamedTuple):
    """The membership of every complete configuration by id, the front's hypervolume, and notes.

    `claim` is "these weights" where every configuration has one seed: nothing is known about training runs.
    """

    claim: Claim
    memberships: Mapping[str, FrontMembership]
    hypervolume: Volume | None
    draws: int
    notes: tuple[str, ...]

    @property
    def about(self) -> str:
        """What P(on front) is about, for people."""
        return _ABOUT[self.claim]

    def count(self, label: Label) -> int:
        """How many configurations have this label."""
        return sum(membership.label == label for membership in self.memberships.values())


def front_certainty(front: Front, spec: ResultsSpec, draws: int | None = None) -> Certainty:
    """The membership of all complete configurations. Equal records, in any order, give equal numbers.

    Args:
        front: Of all records.
        spec: Of the sweep.
        draws: How many; by default DRAWS, or as many as BUDGET allows but at least FEWEST_DRAWS.
    """
    items = sorted(front.competing, key=lambda item: item.config_id)
    allowed = BUDGET[min(3, len(spec.objectives))] // max(1, len(items))
    count = draws or min(DRAWS, max(FEWEST_DRAWS, allowed))
    if not items:
        return Certainty(claim_of(items), {}, None, count, ())
    names = [item.metric for item in spec.objectives] + [item.metric for item in spec.constraints]
    measured = [all(name in item.values for name in names) for item in items]
    usable = [item for item, whole in zip(items, measured, strict=True) if whole]
    claim = claim_of(usable)
    unsized = [name for name in names if any(item.size(name) is None for item in usable)]
    if unsized:  # Nothing is known about how sure any place is.
        open_ = {
            item.config_id: _membership(
                item, (0.0, 1.0), {i.config_id for i in front.members}, claim
            )
            for item in items
        }
        note = (
            f"no sample size of {', '.join(dict.fromkeys(unsized))}: nothing is known about how sure any "
            "place on the front is"
        )
        return Certainty(claim, open_, None, 0, (note,))
    metrics = {name: metric_draws(name, usable) for name in dict.fromkeys(names)}
    members = {item.config_id for item in front.members}
    places = [i for i, item in enumerate(usable) if item.config_id in members]
    reference = _reference(front, spec)
    found = _count(metrics, spec, count, places, list(reference.values()))
    bounds = {
        item.config_id: (int(hits) / count, int(alone) / count)
        for item, hits, alone in zip(usable, found.hits, found.alone, strict=True)
    }
    memberships = {
        item.config_id: _membership(item, bounds.get(item.config_id, (0.0, 0.0)), members, claim)
        for item in items
    }
    volume = _volume([usable[i] for i in places], spec, reference, found.volumes)
    return Certainty(claim, memberships, volume, count, _notes(metrics, usable, claim))


def claim_of(items: Iterable[Candidate]) -> Claim:
    """What the records of some configurations can say something about."""
    return "trained again" if any(len(item.seeds) > 1 for item in items) else "these weights"


def _membership(
    candidate: Candidate, bounds: tuple[float, float], members: set[str], claim: Claim
) -> FrontMembership:
    low, high = bounds
    label: Label = "on" if low >= ON else "off" if high < OFF else "uncertain"
    p_feasible = min(candidate.probabilities, default=1.0)
    on_front = candidate.config_id in members
    return FrontMembership(low, high, p_feasible, label, on_front, claim)


class _Counts(NamedTuple):
    """Draws with each candidate on the front, at most with it not dominated by one; members' volumes."""

    hits: NDArray[np.int64]
    alone: NDArray[np.int64]
    volumes: list[float]


def _count(
    metrics: Mapping[str, MetricDraws],
    spec: ResultsSpec,
    draws: int,
    places: Sequence[int],
    reference: Sequence[float],
) -> _Counts:
    """Count over draws; rivals are chosen by the first ones, volumes are those of the first ones."""
    rng = np.random.default_rng(SEED)
    m = len(next(iter(metrics.values())).paired)
    hits, kept = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
    beaten, rivals = np.zeros((m, 0), dtype=np.int64), None
    volumes = list[float]()
    corner = _signed(np.array(reference), spec.objectives)
    chunk = max(8, _CELLS // max(1, m))
    for start in range(0, draws if m else 0, chunk):
        size = min(chunk, draws - start)
        weights = weights_of(metrics, size, rng)
        drawn = {name: found.draw(weights[found.suite], rng) for name, found in metrics.items()}
        # One block of memory per objective, which is how fronts and rivals read them.
        columns = np.stack([drawn[item.metric] for item in spec.objectives])
        points = _signed(np.moveaxis(columns, 0, 2), spec.objectives)
        feasible = np.ones((size, m), dtype=np.bool_)
        for constraint in spec.constraints:
            feasible &= drawn[constraint.metric] <= constraint.max
        ever = np.flatnonzero(feasible.any(axis=0))
        hits[ever] += fronts(points[:, ever], feasible[:, ever], _safety_column(spec)).sum(axis=0)
        kept += feasible.sum(axis=0)
        if rivals is None:
            rivals = likeliest(points, feasible)
            beaten = np.zeros(rivals.shape, dtype=np.int64)
        beaten += dominated_by_one(points, feasible, rivals)
        if len(corner) <= 3 and places and start < _VOLUME_DRAWS:
            volumes += hypervolumes(points[: _VOLUME_DRAWS - start, places], corner).tolist()
    return _Counts(hits, kept - beaten.max(axis=1, initial=0), volumes)


def fronts(points: Floats, feasible: NDArray[np.bool_], column: int = 0) -> NDArray[np.bool_]:
    """The non-dominated feasible points of each of many draws; all objectives minimised.

    Args:
        points: Shape (draws, m, objectives), finite, at least two objectives.
        feasible: Shape (draws, m).
        column: The objective to sort by where there are two; ties in it cost time.

    Returns:
        Shape (draws, m).
    """
    points = np.where(feasible[..., None], points, np.inf)
    if points.shape[2] != 2:
        many = points.shape[1] > _TOGETHER
        return _fronts_in_turn(points, feasible) if many else _fronts_together(points, feasible)
    first, second = points[..., column], points[..., 1 - column]
    order = np.argsort(first, axis=1)
    first = np.take_along_axis(first, order, axis=1)
    second = np.take_along_axis(second, order, axis=1)
    kept = np.ones_like(feasible)
    kept[:, 1:] = second[:, 1:] < np.minimum.accumulate(second, axis=1)[:, :-1]
    mask = np.empty_like(kept)
    np.put_along_axis(mask, order, kept, axis=1)
    tied = ((first[:, 1:] == first[:, :-1]) & np.isfinite(first[:, 1:])).any(axis=1)
    for index in np.flatnonzero(tied):
        mask[index] = non_dominated(points[index])
    return np.logical_and(mask, feasible)


def _fronts_together(points: Floats, feasible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Few configurations: what is often on the front rules out most of the rest, in all draws at once."""
    columns = np.ascontiguousarray(np.moveaxis(points, 2, 0))
    often = sum(
        non_dominated(one) & own for one, own in zip(points[:_PILOT], feasible, strict=False)
    )
    alive = feasible.copy()
    leaders = np.argsort(-np.asarray(often), kind="stable")[:_LEADERS]
    block = max(1, _CACHED // feasible.shape[1])
    for start in range(0, len(alive), block):
        some = columns[:, start : start + block]
        for leader in leaders:
            alive[start : start + block] &= ~_dominated(some[:, :, leader, None], some)
    left = alive.sum(axis=1)
    order = np.argsort(left, kind="stable")
    while len(order):
        width = max(1, int(left[order[-1]]))
        rows, order = np.split(order, [-max(1, _CELLS // width**2)])[::-1]
        places = np.argsort(~alive[rows], axis=1, kind="stable")[:, :width]
        # Beyond the last one left stands what is already dominated, which rules out nothing new.
        some = columns[:, rows[:, None], places]
        beaten = _dominated(some[:, :, :, None], some[:, :, None, :]).any(axis=1)
        alive[rows[:, None], places] &= ~beaten
    return alive


def _dominated(rows: Floats, others: Floats) -> NDArray[np.bool_]:
    """Whether rows dominate others; shapes (objectives, ...) that broadcast."""
    covered: NDArray[np.bool_] = rows[0] <= others[0]
    apart: NDArray[np.bool_] = rows[0] < others[0]
    for row, other in zip(rows[1:], others[1:], strict=True):
        covered &= row <= other
        apart |= row < other
    covered &= apart
    return covered


def _fronts_in_turn(points: Floats, feasible: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Three objectives or more: the front of one draw rules out most points of the next."""
    found = np.zeros_like(feasible)
    before = np.zeros(0, dtype=np.int64)
    for mask, one, own in zip(found, points, feasible, strict=True):
        left = np.flatnonzero(own)
        columns = np.ascontiguousarray(one[left].T)
        for leader in one[before[own[before]]]:
            kept, alike = columns[0] < leader[0], columns[0] == leader[0]
            for column, value in zip(columns[1:], leader[1:], strict=True):
                kept |= column < value
                alike &= column == value
            kept |= alike
            left, columns = left[kept], columns[:, kept]
        before = left[non_dominated(columns.T)]
        mask[before] = True
    return found


def _safety_column(spec: ResultsSpec) -> int:
    """Draws of rates are never tied."""
    names = [item.metric in SAFETY_METRICS for item in spec.objectives]
    return names.index(True) if True in names else 0


def _signed(values: Floats, objectives: Sequence[Objective]) -> Floats:
    """Everything minimised."""
    signs = np.array([1.0 if o.direction == "minimize" else -1.0 for o in objectives])
    signed: Floats = values * signs
    return signed


def _reference(front: Front, spec: ResultsSpec) -> dict[str, float]:
    """The constraint's limit; else the worst of [0, 1]; else the base model's value or the worst one."""
    limits = {item.metric: item.max for item in spec.constraints}
    found = {}
    for objective in spec.objectives:
        name, worst = objective.metric, 1.0 if objective.direction == "minimize" else 0.0
        if name in limits:
            found[name] = limits[name]
        elif is_bounded(name, front.competing):
            found[name] = worst
        else:
            known = [] if front.base is None else [front.base]
            values = [item.values[name] for item in known if name in item.values]
            values = values or [item.values[name] for item in front.competing]
            found[name] = max(values) if worst else min(values)
    return found


def _volume(
    members: Sequence[Candidate],
    spec: ResultsSpec,
    reference: Mapping[str, float],
    volumes: Sequence[float],
) -> Volume | None:
    """None where there are no members, or more than three objectives."""
    if not members or not volumes:
        return None
    corner = _signed(np.array(list(reference.values())), spec.objectives)
    value = hypervolume(losses(members, spec.objectives), corner)
    low, high = np.quantile(volumes, [0.025, 0.975])
    return Volume(value, Interval(float(low), float(high)), reference)


def _notes(
    metrics: Mapping[str, MetricDraws], items: Sequence[Candidate], claim: Claim
) -> tuple[str, ...]:
    """The caveats of the probabilities."""
    notes = []
    m = len(items)
    single = sum(len(item.seeds) == 1 for item in items)
    if claim == "these weights" and m:
        notes.append(
            "one seed: P(on front) is about these weights; for their configurations, trained again, there "
            "is no number, since nothing is known about how training runs differ"
        )
    elif single:
        notes.append(
            f"{single} of {m} configurations have one seed: how their training runs differ is taken from "
            "those with several"
        )
    alone = {name: int((~found.paired).sum()) for name, found in metrics.items()}
    for name, count in alone.items():
        if count and metrics[name].exact.any():
            notes.append(f"{count} of {m} configurations have no rows of {name}: taken as exact")
        elif count:
            notes.append(
                f"{count} of {m} configurations have k/n of {name} without its prompts: taken as "
                "independent of the others"
            )
    return tuple(notes)
