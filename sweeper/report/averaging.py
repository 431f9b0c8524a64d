"""The effect of averaging: wins, losses and ties against controls, and at equal utility."""

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis import (
    UNSAFE,
    Candidate,
    Front,
    PairedDifference,
    has_verdicts,
    interpolation_control,
    interval_of_verdicts,
    learning_rate_control,
    paired_difference,
    rows_of,
    unaveraged_control,
)
from sweeper.report.related import RelatedConfigurations
from sweeper.spec import ObjectiveSpec, SweepSpec
from sweeper.stats import Interval, mean_interval, t_quantile

AGAINST = {
    "ema": "interpolation with the same weight",
    "feedback": "matched learning rate",
}
"""Further controls of an average, besides the same configuration without averaging."""

AT_EQUAL_UTILITY = "raw at equal utility"

Z = NormalDist().inv_cdf(0.975)

Floats = NDArray[np.float64]
Pair = tuple[Candidate, Candidate]


class Tally(NamedTuple):
    """How averaged configurations compare with their controls in one metric.

    `wins` are averaged ones that are better with a paired 95 % interval that excludes zero, `losses` worse
    ones, `ties` all others. `share` is the fraction of pairs in which the averaged one is better by the
    measured values only, equal ones counting half. `mean` is the mean difference, averaged - control, with
    its 95 % interval over prompts or rows: pairs share them, and training runs too, so pairs are not
    independent. It is None where pairs have no rows in common.
    """

    metric: str
    pairs: int
    wins: int
    losses: int
    ties: int
    share: float
    mean: float
    mean_interval: Interval | None


class Effect(NamedTuple):
    """One kind of average against one kind of control."""

    kind: str
    against: str
    unsafe: Tally
    utility: Tally


class Pairings(NamedTuple):
    """Pairs by kind of average and of control; `rows` caches the rows of rates and utilities."""

    groups: tuple[tuple[str, str, list[Pair]], ...]
    rows: tuple[dict[str, Floats | None], dict[str, Floats | None]]


def averaging_effects(
    front: Front, spec: SweepSpec, pairings: Pairings | None = None
) -> tuple[Effect, ...]:
    """Every complete averaged configuration against its controls, by kind of average.

    The one without averaging has the same learning rate, batch size, steps and all other settings. `equal
    utility` compares with the raw configuration, of any settings, whose utility is nearest and does not
    differ by its paired interval. It is chosen by utility only, so safety does not influence the choice.
    """
    groups, rows = pairings or averaging_pairs(front, spec)
    effects = []
    for kind, against, pairs in groups:
        unsafe = tally(pairs, UNSAFE, rows[0])
        utility = tally(pairs, spec.utility, rows[1])
        if unsafe is not None and utility is not None:
            effects.append(Effect(kind, against, unsafe, utility))
    return tuple(effects)


def averaging_pairs(front: Front, spec: SweepSpec) -> Pairings:
    """Every averaged configuration with each of its controls, in a stable order."""
    items = sorted(front.competing, key=lambda item: item.config_id)
    related = RelatedConfigurations(items)
    raws = [item for item in items if item.config["average"] == "raw"]
    values = np.array([raw.values[spec.utility.metric] for raw in raws])
    finders: dict[str, Callable[[Candidate], Candidate | None]] = {
        "without averaging": lambda item: unaveraged_control(item, related.of(item)),
        "interpolation with the same weight": lambda item: interpolation_control(
            item, related.of(item)
        ),
        "matched learning rate": lambda item: learning_rate_control(item, related.of(item), spec),
        AT_EQUAL_UTILITY: lambda item: equally_useful(item, raws, values, spec.utility),
    }
    found = []
    for kind in ("ema", "interpolate", "feedback"):
        averaged = [item for item in items if kind_of(item) == kind]
        for against, find in finders.items():
            if against in ("without averaging", AGAINST.get(kind), AT_EQUAL_UTILITY):
                pairs = [
                    (item, control) for item in averaged if (control := find(item)) is not None
                ]
                found.append((kind, against, pairs))
    return Pairings(tuple(found), ({}, {}))


def kind_of(candidate: Candidate) -> str:
    """`raw`, `ema`, `interpolate` or `feedback`."""
    return str(candidate.config["average"]).partition("(")[0]


def equally_useful(
    candidate: Candidate, raws: Sequence[Candidate], values: Floats, utility: ObjectiveSpec
) -> Candidate | None:
    """The raw candidate nearest in utility, if the two do not differ by their interval; else None.

    `values` holds the utility of each of `raws`; ties go to the first.
    """
    if not raws:
        return None
    nearest = raws[int(np.abs(values - candidate.values[utility.metric]).argmin())]
    found = paired_difference(candidate, nearest, utility.metric)
    if found is None or found.interval is None:
        return nearest if found is not None and found.difference == 0 else None
    return nearest if found.interval.low <= 0 <= found.interval.high else None


def tally(
    pairs: Sequence[Pair], objective: ObjectiveSpec, known: dict[str, Floats | None] | None = None
) -> Tally | None:
    """Wins, losses, ties and the mean difference over pairs; None where none was measured in both.

    Args:
        pairs: Each an averaged configuration and its control.
        objective: The metric and its direction.
        known: `rows_of` by configuration, filled as rows are needed.
    """
    name, sign = objective.metric, 1 if objective.direction == "maximize" else -1
    pairs = [pair for pair in pairs if all(name in item.values for item in pair)]
    if not pairs:
        return None
    gains = sign * np.array([one.values[name] - other.values[name] for one, other in pairs])
    rows = _differences(pairs, name, {} if known is None else known)
    verdicts = all(has_verdicts(item, name) for pair in pairs for item in pair)
    significant = (
        np.array([_sure_sign(paired_difference(one, other, name)) for one, other in pairs])
        if rows is None
        else _surely(rows, verdicts)
    )
    wins, losses = int((sign * significant > 0).sum()), int((sign * significant < 0).sum())
    mean = float(gains.mean())
    return Tally(
        metric=name,
        pairs=len(pairs),
        wins=wins,
        losses=losses,
        ties=len(pairs) - wins - losses,
        share=float((np.sign(gains).mean() + 1) / 2),
        mean=sign * mean,
        mean_interval=None
        if rows is None
        else _mean_interval(sign * mean, rows.mean(axis=0), verdicts),
    )


def _sure_sign(found: PairedDifference | None) -> float:
    if found is None or found.interval is None:
        return 0.0
    return float(found.interval.low > 0) - float(found.interval.high < 0)


def _surely(rows: Floats, verdicts: bool) -> Floats:
    """The sign of each mean over rows whose interval excludes zero, as in `paired_difference`; else 0.

    Tango's interval excludes zero where the score test rejects it: |b - c| > z sqrt(b + c).
    """
    n = rows.shape[1]
    if verdicts:
        found, spread, most = rows.sum(axis=1), np.sqrt(np.abs(rows).sum(axis=1)), Z
    else:
        found, spread = rows.mean(axis=1), rows.std(axis=1, ddof=1) / np.sqrt(n)
        most = t_quantile(0.975, n - 1)
    return np.where(np.abs(found) > most * spread, np.sign(found), 0.0)


def _mean_interval(mean: float, rows: Floats, verdicts: bool) -> Interval:
    """The interval of a mean over pairs, by prompt or row; its width is never zero."""
    if verdicts and not rows.any():
        return interval_of_verdicts(rows, 0.95)
    return mean_interval(mean, rows, 0.95)


def _differences(
    pairs: Sequence[Pair], metric: str, known: dict[str, Floats | None]
) -> Floats | None:
    """Averaged - control by prompt or row, shape (pairs, n); None where a pair has no common rows."""
    for item in (item for pair in pairs for item in pair):
        if item.config_id not in known:
            known[item.config_id] = rows_of(item, metric)
    ends = [(known[one.config_id], known[other.config_id]) for one, other in pairs]
    found = [(one, other) for one, other in ends if one is not None and other is not None]
    sizes = {len(rows) for both in found for rows in both}
    if len(found) < len(pairs) or len(sizes) != 1 or min(sizes) < 2:
        return None
    apart: Floats = np.array([one - other for one, other in found])
    return apart


class EffectRow(NamedTuple):
    """One line of the report's table: an effect on one metric, in words."""

    average: str
    against: str
    metric: str
    pairs: str
    outcome: str
    share: str
    mean: str


def effect_rows(effects: Sequence[Effect]) -> tuple[EffectRow, ...]:
    """Two lines for each effect, the unsafe rate first."""
    return tuple(
        EffectRow(
            effect.kind,
            effect.against,
            found.metric,
            str(found.pairs),
            f"{found.wins} / {found.losses} / {found.ties}",
            f"{100 * found.share:.0f} %",
            _mean(found),
        )
        for effect in effects
        for found in (effect.unsafe, effect.utility)
    )


def _mean(found: Tally) -> str:
    if found.mean_interval is None:
        return f"{found.mean:+.4f}"
    low, high = found.mean_interval
    return f"{found.mean:+.4f} ({low:+.4f} to {high:+.4f})"
