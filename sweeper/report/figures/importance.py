"""How much each hyperparameter has to do with being among the best, metric by metric."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis import CANDIDATE_ROLE, Candidate, Front, loss, shown, varying
from sweeper.report.figures.levels import MOST_LEVELS, is_log, is_number, levels
from sweeper.spec import ObjectiveSpec, SweepSpec
from sweeper.stats.importance import QUANTILE, Column, best, importances

FEWEST = 50
"""Below, the best tenth has fewer than the five configurations that Optuna's documentation asks for."""


class ImportanceBar(NamedTuple):
    """One hyperparameter for one metric: its share of all importance, in [0, 1].

    `typical` is the value that the best have more often than all configurations have, by difference of
    the two shares `among_best` and `among_all`.
    """

    metric: str
    hyperparameter: str
    share: float
    typical: str
    among_best: float
    among_all: float


class ImportanceInfo(NamedTuple):
    """Bars by metric, then by falling share over all metrics; or why there are none.

    `best` says how many of `configurations` count as the best of each metric, and from which value on;
    more than the tenth where values are equal.
    """

    bars: tuple[ImportanceBar, ...]
    configurations: int
    best: tuple[tuple[str, int, float], ...]
    refusal: str


def importance_info(front: Front, spec: SweepSpec) -> ImportanceInfo:
    """PED-ANOVA over the complete configurations of the space, an objective at a time."""
    items = [item for item in front.competing if item.role == CANDIDATE_ROLE]
    items.sort(key=lambda item: item.config_id)
    names = varying(items)
    if len(names) < 2:
        return _refused(items, f"{len(names)} hyperparameter varies: there is nothing to compare")
    if len(items) < FEWEST:
        return _refused(
            items,
            f"{len(items)} configurations are complete; of fewer than {FEWEST} the best tenth is "
            "too small to say anything",
        )
    columns = [_column(name, items, spec) for name in names]
    bars: list[ImportanceBar] = []
    told = []
    for objective in front.objectives:
        losses = np.array([loss(item, objective) for item in items])
        chosen = best(losses)
        shares = None if chosen.all() else importances(columns, chosen)
        if shares is not None:
            told.append((objective.metric, int(chosen.sum()), _cut(losses, chosen, objective)))
            bars += [
                ImportanceBar(objective.metric, name, float(share), *_typical(name, items, chosen))
                for name, share in zip(names, shares, strict=True)
            ]
    if not bars:
        return _refused(items, "all configurations are equal in every objective")
    total = {name: sum(b.share for b in bars if b.hyperparameter == name) for name in names}
    order = [metric for metric, _, _ in told]
    bars.sort(key=lambda b: (order.index(b.metric), -total[b.hyperparameter], b.hyperparameter))
    return ImportanceInfo(tuple(bars), len(items), tuple(told), "")


def _refused(items: Sequence[Candidate], text: str) -> ImportanceInfo:
    return ImportanceInfo((), len(items), (), text)


def _cut(losses: NDArray[np.float64], chosen: NDArray[np.bool_], objective: ObjectiveSpec) -> float:
    sign = 1 if objective.direction == "minimize" else -1
    return sign * float(losses[chosen].max())


def _column(name: str, items: Sequence[Candidate], spec: SweepSpec) -> Column:
    """Numbers of many values as a range, on the scale of their axis; everything else as choices.

    Of few values a range would say more about the gaps between them than about the configurations: the
    density of two thirds at one of three points is wide or a spike, as the quartiles happen to fall.
    """
    values = [item.config.get(name) for item in items]
    if len(set(map(repr, values))) > MOST_LEVELS and all(map(is_number, values)):
        numbers = np.array(values, dtype=np.float64)
        whole = all(isinstance(value, int) for value in values)
        return Column(numbers, log=is_log(name, numbers.tolist(), spec), whole=whole)
    known = {repr(value): code for code, value in enumerate(levels(values))}
    codes = np.array([known[repr(value)] for value in values], dtype=np.float64)
    return Column(codes, levels=len(known))


def _typical(
    name: str, items: Sequence[Candidate], chosen: NDArray[np.bool_]
) -> tuple[str, float, float]:
    """The value whose share grows most among the best, and both shares."""
    values = np.array([repr(item.config.get(name)) for item in items])
    known, codes = np.unique(values, return_inverse=True)
    among_all = np.bincount(codes, minlength=len(known)) / len(items)
    among_best = np.bincount(codes[chosen], minlength=len(known)) / chosen.sum()
    place = int(np.argmax(among_best - among_all))
    first = items[int(np.flatnonzero(codes == place)[0])].config.get(name)
    return shown(first), float(among_best[place]), float(among_all[place])


def explained(info: ImportanceInfo) -> str:
    """What the bars stand on, in a sentence."""
    texts = [f"{count} for {metric} ({value:.4g} or better)" for metric, count, value in info.best]
    return (
        f"From {info.configurations} complete configurations of the space; the best "
        f"{QUANTILE:.0%} (with all that equal the last of them) are {' and '.join(texts)}."
    )
