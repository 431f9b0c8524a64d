"""The effect of averaging across learning rate, batch size and steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sweeper.figures.factorial import EffectPoint, FactorialInfo
from sweeper.figures.levels import MOST_LEVELS, is_number, levels
from sweeper.front import CANDIDATE_ROLE, Front, shown
from sweeper.report.averaging import (
    AT_EQUAL_UTILITY,
    Floats,
    Pair,
    averaging_pairs,
    kind_of,
    tally,
)
from sweeper.select import UNSAFE
from sweeper.spec import ObjectiveSpec, SweepSpec

FACTORS = ("learning_rate", "batch_size", "max_steps")
MOST_AVERAGES = 6
MOST_RANGES = 6


def factorial_infos(front: Front, spec: SweepSpec) -> tuple[FactorialInfo, ...]:
    """One for each kind of control that configurations of the space have at several levels of a factor.

    A level pools the pairs that have it, over everything else. Averages of other parameters are apart as
    long as they are few.
    """
    grouped: dict[str, list[Pair]] = {}
    for _, against, pairs in averaging_pairs(front, spec):
        if against != AT_EQUAL_UTILITY:
            own = [pair for pair in pairs if pair[0].role == CANDIDATE_ROLE]
            grouped.setdefault(against, []).extend(own)
    known: tuple[dict[str, Floats | None], ...] = ({}, {})
    objectives = (UNSAFE, spec.utility)
    found = []
    for against, pairs in grouped.items():
        points = [
            point
            for objective, rows in zip(objectives, known, strict=True)
            for factor in FACTORS
            if len({item.config[factor] for item, _ in pairs}) > 1
            for point in _points(pairs, objective, factor, rows)
        ]
        if points:
            goals = tuple((o.metric, o.direction == "maximize") for o in objectives)
            found.append(FactorialInfo(against, tuple(points), goals))
    return tuple(found)


def _points(
    pairs: Sequence[Pair], objective: ObjectiveSpec, factor: str, known: dict[str, Floats | None]
) -> list[EffectPoint]:
    named = {str(item.config["average"]) for item, _ in pairs}
    apart = len(named) <= MOST_AVERAGES
    places = _places([item.config[factor] for item, _ in pairs])
    groups: dict[tuple[int, str, str], list[Pair]] = {}
    for pair, (place, level) in zip(pairs, places, strict=True):
        label = str(pair[0].config["average"]) if apart else kind_of(pair[0])
        groups.setdefault((place, level, label), []).append(pair)
    order = {label: i for i, label in enumerate(levels(label for _, _, label in groups))}
    points = []
    for place, level, label in sorted(groups, key=lambda key: (order[key[2]], key[0])):
        found = tally(groups[(place, level, label)], objective, known)
        if found is not None:
            low, high = (None, None) if found.mean_interval is None else found.mean_interval
            points.append(
                EffectPoint(
                    found.metric,
                    factor,
                    level,
                    place,
                    label,
                    *(found.pairs, found.wins, found.losses, found.ties, found.mean, low, high),
                )
            )
    return points


def _places(values: Sequence[Any]) -> list[tuple[int, str]]:
    """Each value's place and text; many numbers are pooled into ranges of about equally many."""
    known = levels(values)
    if len(known) <= MOST_LEVELS or not all(map(is_number, known)):
        at = {repr(value): place for place, value in enumerate(known)}
        return [(at[repr(value)], shown(value)) for value in values]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, MOST_RANGES + 1)))
    inside = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return [
        (int(place), f"{edges[place]:.3g} to {edges[place + 1]:.3g}") for place in inside.tolist()
    ]
