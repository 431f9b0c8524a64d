"""The effect of averaging: wins, losses and ties against controls, and at equal utility."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis import (
    Candidate,
    Front,
    answers_of,
    interpolation_control,
    interval_of_verdicts,
    learning_rate_control,
    paired_difference,
    runs_key,
    unaveraged_control,
)
from sweeper.report.related import RelatedConfigurations
from sweeper.spec import Objective, ResultsSpec
from sweeper.stats import Interval, t_quantile

AGAINST = {
    "ema": "interpolation with the same weight",
    "feedback": "matched learning rate",
}
"""Further controls of an average, besides the same configuration without averaging."""

AT_EQUAL_UTILITY = "raw at equal utility"

FEWEST_RUNS = 4
"""Fewer training runs give no interval of a mean effect."""

Floats = NDArray[np.float64]
Pair = tuple[Candidate, Candidate]


class Tally(NamedTuple):
    """How averaged configurations compare with their controls in one metric.

    `runs` are the training runs that the averaged ones were read from; pairs of one are not independent.
    `wins` are averaged ones that are better with a paired 95 % interval that excludes zero, `losses` worse
    ones, `ties` all others. `share` is the fraction of pairs in which the averaged one is better by the
    measured values only, equal ones counting half. `mean` is the mean difference, averaged - control, with
    its 95 % interval over runs and prompts or rows, see `clustered_interval`. It is None where pairs have
    no rows in common, or fewer than `FEWEST_RUNS` runs.
    """

    metric: str
    pairs: int
    runs: int
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


class Known(NamedTuple):
    """What tallies of one metric share: answers by configuration, and the sure sign of each pair.

    `among` are all candidates of the sweep, see `paired_difference`.
    """

    among: tuple[Candidate, ...]
    answers: dict[str, Floats | None]
    signs: dict[tuple[str, str], float]


class Pairings(NamedTuple):
    """Pairs by kind of average and of control, and what is known of rates and utilities."""

    groups: tuple[tuple[str, str, list[Pair]], ...]
    known: tuple[Known, Known]


def averaging_effects(
    front: Front, spec: ResultsSpec, pairings: Pairings | None = None
) -> tuple[Effect, ...]:
    """Every complete averaged configuration against its controls, by kind of average.

    The one without averaging has the same learning rate, batch size, steps and all other settings. `equal
    utility` compares with the raw configuration, of any settings, whose utility is nearest and does not
    differ by its paired interval. It is chosen by utility only, so safety does not influence the choice.
    """
    groups, known = pairings or averaging_pairs(front, spec)
    effects = []
    for kind, against, pairs in groups:
        unsafe = tally(pairs, spec.safety, known[0])
        utility = tally(pairs, spec.utility, known[1])
        if unsafe is not None and utility is not None:
            effects.append(Effect(kind, against, unsafe, utility))
    return tuple(effects)


def averaging_pairs(front: Front, spec: ResultsSpec) -> Pairings:
    """Every averaged configuration with each of its controls, in a stable order."""
    items = sorted(front.competing, key=lambda item: item.config_id)
    related = RelatedConfigurations(items)
    raws = [item for item in items if item.config.get("average", "raw") == "raw"]
    values = np.array([raw.values[spec.utility.metric] for raw in raws])
    finders: dict[str, Callable[[Candidate], Candidate | None]] = {
        "without averaging": lambda item: unaveraged_control(item, related.twins(item)),
        "interpolation with the same weight": lambda item: interpolation_control(
            item, related.twins(item)
        ),
        "matched learning rate": lambda item: learning_rate_control(item, related.of(item), spec),
        AT_EQUAL_UTILITY: lambda item: equally_useful(
            item, raws, values, spec.utility, front.candidates
        ),
    }
    found = []
    for kind in ("ema", "interpolate", "bema", "feedback"):
        averaged = [item for item in items if kind_of(item) == kind]
        for against, find in finders.items():
            if against in ("without averaging", AGAINST.get(kind), AT_EQUAL_UTILITY):
                pairs = [
                    (item, control) for item in averaged if (control := find(item)) is not None
                ]
                found.append((kind, against, pairs))
    return Pairings(
        tuple(found), (Known(front.candidates, {}, {}), Known(front.candidates, {}, {}))
    )


def kind_of(candidate: Candidate) -> str:
    """`raw`, `ema`, `interpolate`, `bema` or `feedback`."""
    return str(candidate.config.get("average", "raw")).partition("(")[0]


def equally_useful(
    candidate: Candidate,
    raws: Sequence[Candidate],
    values: Floats,
    utility: Objective,
    among: Sequence[Candidate] = (),
) -> Candidate | None:
    """The raw candidate nearest in utility, if the two do not differ by their interval; else None.

    `values` holds the utility of each of `raws`; ties go to the first. For `among` see
    `paired_difference`.
    """
    if not raws:
        return None
    nearest = raws[int(np.abs(values - candidate.values[utility.metric]).argmin())]
    found = paired_difference(candidate, nearest, utility.metric, among=among)
    if found is None or found.interval is None:
        return nearest if found is not None and found.difference == 0 else None
    return nearest if found.interval.low <= 0 <= found.interval.high else None


def tally(pairs: Sequence[Pair], objective: Objective, known: Known | None = None) -> Tally | None:
    """Wins, losses, ties and the mean difference over pairs; None where none was measured in both.

    Args:
        pairs: Each an averaged configuration and its control.
        objective: The metric and its direction.
        known: Filled as answers and signs are needed; None starts with nothing.
    """
    name, sign = objective.metric, 1 if objective.direction == "maximize" else -1
    pairs = [pair for pair in pairs if all(name in item.values for item in pair)]
    if not pairs:
        return None
    known = known or Known((), {}, {})
    gains = sign * np.array([one.values[name] - other.values[name] for one, other in pairs])
    sure = sign * np.array([_sure_sign(pair, name, known) for pair in pairs])
    wins, losses = int((sure > 0).sum()), int((sure < 0).sum())
    mean = sign * float(gains.mean())
    apart = _differences(pairs, name, known.answers)
    return Tally(
        metric=name,
        pairs=len(pairs),
        runs=len({run for one, _ in pairs for run in runs_key(one)}),
        wins=wins,
        losses=losses,
        ties=len(pairs) - wins - losses,
        share=float((np.sign(gains).mean() + 1) / 2),
        mean=mean,
        mean_interval=None if apart is None else _mean_interval(mean, apart, pairs),
    )


def _sure_sign(pair: Pair, metric: str, known: Known) -> float:
    """The sign of a difference whose interval excludes zero; else 0."""
    key = (pair[0].config_id, pair[1].config_id)
    if key not in known.signs:
        found = paired_difference(*pair, metric, among=known.among)
        between = None if found is None else found.interval
        known.signs[key] = (
            0.0 if between is None else float(between.low > 0) - float(between.high < 0)
        )
    return known.signs[key]


def _mean_interval(mean: float, apart: Floats, pairs: Sequence[Pair]) -> Interval | None:
    """`clustered_interval` over the runs and prompts of the pairs; one of verdicts is never certain."""
    averaged, controls = (
        [run for pair in pairs for run in runs_key(pair[side])] for side in (0, 1)
    )
    found = clustered_interval(mean, apart.reshape(-1, apart.shape[2]), averaged, controls)
    if found is not None and not apart.any():
        return interval_of_verdicts(apart.mean(axis=(0, 1)), 0.95)
    return found


def clustered_interval(
    mean: float,
    apart: Floats,
    averaged: Sequence[Hashable],
    controls: Sequence[Hashable],
    confidence: float = 0.95,
) -> Interval | None:
    """The interval of a mean of differences that share training runs and prompts; None for few runs.

    Readouts of one run, and pairs with one run in common on either side, are not independent: the variance
    over runs is dyadic (Aronow, Samii, Assenova 2015, doi:10.1093/pan/mpv018), that over runs and prompts
    two-way, as in `two_way_df`. Where runs cancel in the mean, few of them cannot show it, so that neither
    variance is below that of clusters by the averaged runs alone. Student's t has one degree of freedom
    fewer than there are runs. Runs of other settings differ by what their settings do, too: the interval
    is one over settings and runs.

    Args:
        mean: The mean of all of `apart`.
        apart: Differences, shape (m, n): pair and seed by prompt or row.
        averaged: The run of the first of each of the m.
        controls: That of the second.
        confidence: Of the interval.
    """
    fewest = min(len(set(averaged)), len(set(controls)))
    n = apart.shape[1]
    if fewest < FEWEST_RUNS:
        return None
    rest = apart - apart.mean()
    prompts = float(np.square(rest.sum(axis=0)).sum()) * n / (n - 1)
    sums, ways = rest.sum(axis=1, keepdims=True), ((averaged, controls), (averaged, averaged))
    parts = [(_dyadic(sums, *way) * fewest / (fewest - 1), _dyadic(rest, *way)) for way in ways]
    variance = max(max(prompts, runs, prompts + runs - both) for runs, both in parts)
    variance /= apart.size**2
    half = t_quantile(0.5 + confidence / 2, fewest - 1) * math.sqrt(variance)
    return Interval(mean - half, mean + half)


def _dyadic(rest: Floats, averaged: Sequence[Hashable], controls: Sequence[Hashable]) -> float:
    """The sum of products, column by column, of all pairs of rows that have a run in common.

    Rows of the same two runs have two in common and are counted once.
    """
    ends = list(zip(averaged, controls, strict=True))
    either = [(i, run) for i, both in enumerate(ends) for run in set(both)]
    twice = [(i, frozenset(both)) for i, both in enumerate(ends) if both[0] != both[1]]
    return _squares(rest, either) - _squares(rest, twice)


def _squares(rest: Floats, members: Sequence[tuple[int, Hashable]]) -> float:
    """The squares of sums over the rows of each cluster."""
    place = {key: index for index, key in enumerate(dict.fromkeys(key for _, key in members))}
    sums = np.zeros((len(place), rest.shape[1]))
    np.add.at(sums, [place[key] for _, key in members], rest[[i for i, _ in members]])
    return float(np.square(sums).sum())


def _differences(
    pairs: Sequence[Pair], metric: str, known: dict[str, Floats | None]
) -> Floats | None:
    """Averaged - control under each seed, by prompt or row, shape (pairs, seeds, n).

    None where a pair has no common rows or other seeds.
    """
    for item in (item for pair in pairs for item in pair):
        if item.config_id not in known:
            known[item.config_id] = answers_of(item, metric)
    ends = [(known[one.config_id], known[other.config_id]) for one, other in pairs]
    found = [(one, other) for one, other in ends if one is not None and other is not None]
    shapes = {table.shape for both in found for table in both}
    if len(found) < len(pairs) or len(shapes) != 1 or min(shapes)[1] < 2:
        return None
    return np.array([one - other for one, other in found])


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
            f"{found.pairs} of {found.runs} run{'' if found.runs == 1 else 's'}",
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
