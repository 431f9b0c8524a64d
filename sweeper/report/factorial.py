"""The effect of averaging across learning rate, batch size and steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sweeper.analysis import CANDIDATE_ROLE
from sweeper.report.averaging import (
    AT_EQUAL_UTILITY,
    Pair,
    Pairings,
    Tally,
    kind_of,
    tally,
)
from sweeper.report.figures.factorial import EffectPoint, FactorialInfo
from sweeper.report.figures.levels import MOST_LEVELS, is_number, levels, tick_texts
from sweeper.spec import ResultsSpec

FACTORS = ("learning_rate", "batch_size", "max_steps")
MOST_AVERAGES = 6
MOST_RANGES = 6


def factorial_infos(pairings: Pairings, spec: ResultsSpec) -> tuple[FactorialInfo, ...]:
    """One for each kind of control that configurations of the space have at several levels of a factor.

    A level pools the pairs that have it, over everything else. Averages with different parameters are
    separate if they are few.
    """
    grouped: dict[str, list[Pair]] = {}
    for _, against, pairs in pairings.groups:
        if against != AT_EQUAL_UTILITY:
            own = [pair for pair in pairs if pair[0].role == CANDIDATE_ROLE]
            grouped.setdefault(against, []).extend(own)
    objectives = (spec.safety, spec.utility)
    goals = tuple((o.metric, o.direction == "maximize") for o in objectives)
    found = []
    for against, pairs in grouped.items():
        cells = [(factor, *cell) for factor in FACTORS for cell in _cells(pairs, factor)]
        points = [
            _point(factor, level, tallied)
            for objective, known in zip(objectives, pairings.known, strict=True)
            for factor, level, members in cells
            if (tallied := tally(members, objective, known)) is not None
        ]
        if points:
            found.append(FactorialInfo(against, tuple(points), goals))
    return tuple(found)


class _Level(NamedTuple):
    place: int
    text: str
    average: str


def _cells(pairs: Sequence[Pair], factor: str) -> list[tuple[_Level, list[Pair]]]:
    """The pairs of each average at each level; none where there is only one level."""
    values = [item.config[factor] for item, _ in pairs]
    if len(set(values)) < 2:
        return []
    labels = [str(item.config["average"]) for item, _ in pairs]
    if len(set(labels)) > MOST_AVERAGES:
        labels = [kind_of(item) for item, _ in pairs]
    groups: dict[_Level, list[Pair]] = {}
    for pair, label, (place, text) in zip(pairs, labels, _places(values), strict=True):
        groups.setdefault(_Level(place, text, label), []).append(pair)
    order = {label: i for i, label in enumerate(levels(labels))}
    return sorted(groups.items(), key=lambda cell: (order[cell[0].average], cell[0].place))


def _point(factor: str, level: _Level, found: Tally) -> EffectPoint:
    low, high = (None, None) if found.mean_interval is None else found.mean_interval
    return EffectPoint(
        metric=found.metric,
        factor=factor,
        level=level.text,
        place=level.place,
        average=level.average,
        pairs=found.pairs,
        wins=found.wins,
        losses=found.losses,
        ties=found.ties,
        mean=found.mean,
        low=low,
        high=high,
    )


def _places(values: Sequence[Any]) -> list[tuple[int, str]]:
    """Each value's place and text; many numbers are pooled into ranges of about equal counts."""
    known = levels(values)
    if len(known) <= MOST_LEVELS or not all(map(is_number, known)):
        at = dict(zip(known, enumerate(tick_texts(known)), strict=True))
        return [at[value] for value in values]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, MOST_RANGES + 1)))
    inside = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return [
        (int(place), f"{edges[place]:.3g} to {edges[place + 1]:.3g}") for place in inside.tolist()
    ]
