"""Hyperparameter importance for each metric, by Optuna's PED-ANOVA.

Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023 (arXiv:2304.10255).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from sweeper.analysis import CANDIDATE_ROLE, Candidate, Front, loss, shown, varying
from sweeper.report.figures.levels import MOST_LEVELS, is_log, is_number, levels
from sweeper.spec import Objective, ResultsSpec

QUANTILE = 0.1
"""The share of configurations that count as the best: the evaluator's default."""

FEWEST = 50
"""With fewer, the best tenth has fewer than the five configurations that Optuna recommends."""


class ImportanceBar(NamedTuple):
    """One hyperparameter for one metric: its share of all importance, in [0, 1].

    `typical` is the value with the largest excess among the best: the difference of the shares
    `among_best` and `among_all`.
    """

    metric: str
    hyperparameter: str
    share: float
    typical: str
    among_best: float
    among_all: float


class ImportanceInfo(NamedTuple):
    """Bars by metric, then by falling share over all metrics; or why there are none.

    `best` says how many of `configurations` count as the best of each metric, and their threshold; ties
    can make it more than a tenth.
    """

    bars: tuple[ImportanceBar, ...]
    configurations: int
    best: tuple[tuple[str, int, float], ...]
    refusal: str


def importance_info(front: Front, spec: ResultsSpec) -> ImportanceInfo:
    """PED-ANOVA over the complete configurations of the space, an objective at a time."""
    items = [item for item in front.competing if item.role == CANDIDATE_ROLE]
    items.sort(key=lambda item: item.config_id)
    names = varying(items)
    if len(names) < 2:
        return _refused(items, f"{len(names)} hyperparameter varies: there is nothing to compare")
    if len(items) < FEWEST:
        return _refused(
            items,
            f"{len(items)} configurations are complete; of fewer than {FEWEST} the best tenth is too "
            f"small for a result",
        )
    columns = {name: _column(name, items, spec) for name in names}
    bars: list[ImportanceBar] = []
    compared = []
    for objective in front.objectives:
        losses = np.array([loss(item, objective) for item in items])
        chosen = best(losses)
        if not chosen.all():
            shares = importances(columns, losses)
            compared.append((objective.metric, int(chosen.sum()), _cut(losses, chosen, objective)))
            bars += [
                ImportanceBar(objective.metric, name, shares[name], *_typical(name, items, chosen))
                for name in names
            ]
    if not bars:
        return _refused(items, "all configurations are equal in every objective")
    total = {name: sum(b.share for b in bars if b.hyperparameter == name) for name in names}
    order = [metric for metric, _, _ in compared]
    bars.sort(key=lambda b: (order.index(b.metric), -total[b.hyperparameter], b.hyperparameter))
    return ImportanceInfo(tuple(bars), len(items), tuple(compared), "")


def _refused(items: Sequence[Candidate], text: str) -> ImportanceInfo:
    return ImportanceInfo((), len(items), (), text)


def _cut(losses: NDArray[np.float64], chosen: NDArray[np.bool_], objective: Objective) -> float:
    sign = 1 if objective.direction == "minimize" else -1
    return sign * float(losses[chosen].max())


def best(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the losses, shape (n,), are among the lowest QUANTILE, with all ties."""
    place = math.ceil(QUANTILE * losses.size) - 1
    chosen: NDArray[np.bool_] = losses <= np.partition(losses, place)[place]
    return chosen


class Column(NamedTuple):
    """One hyperparameter of n configurations, and its distribution between the observed bounds."""

    values: Sequence[Any]
    distribution: BaseDistribution


def importances(columns: Mapping[str, Column], losses: NDArray[np.float64]) -> dict[str, float]:
    """The share of each column in the importance for the best tenth of the losses, shape (n,).

    Not all losses may be among the best. A column with one value has no share.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    distributions = {name: column.distribution for name, column in columns.items()}
    trials = [
        optuna.trial.FrozenTrial(
            number=row,
            trial_id=row,
            state=optuna.trial.TrialState.COMPLETE,
            value=float(value),
            params={name: column.values[row] for name, column in columns.items()},
            distributions=distributions,
            datetime_start=None,
            datetime_complete=None,
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for row, value in enumerate(losses)
    ]
    # Adding them would copy each deeply, which takes most of the time of thousands.
    study.get_trials = lambda *_, **__: trials  # type: ignore[method-assign]
    evaluator = PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
    return get_param_importances(study, evaluator=evaluator, params=list(columns))


def _column(name: str, items: Sequence[Candidate], spec: ResultsSpec) -> Column:
    """Numbers of many values as a range, on the scale of their axis; everything else as choices.

    For few values, a density over a range would depend on the gaps between them: with two thirds of the
    values at one of three points, it is wide or a spike depending on the quartiles.
    """
    values = [item.config.get(name) for item in items]
    numbers: list[Any] = [value for value in values if is_number(value)]
    if len(set(map(repr, values))) <= MOST_LEVELS or len(numbers) < len(values):
        choices = [repr(value) for value in levels(values)]
        return Column([repr(value) for value in values], CategoricalDistribution(choices))
    log = is_log(name, numbers, spec)
    kind = IntDistribution if all(isinstance(v, int) for v in numbers) else FloatDistribution
    return Column(numbers, kind(min(numbers), max(numbers), log=log))


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
    """The data behind the bars, in a sentence."""
    texts = [f"{count} for {metric} ({value:.4g} or better)" for metric, count, value in info.best]
    return (
        f"From {info.configurations} complete configurations of the space; the best "
        f"{QUANTILE:.0%} (with all that equal the last of them) are {', '.join(texts)}."
    )
