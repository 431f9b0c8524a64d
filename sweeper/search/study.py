"""A sweep as an Optuna study, for Optuna's own tools: a projection of the records, never their source.

A study holds one trial for each configuration, with its means over the seeds, once every seed has a record.
Its best trials, for Optuna and for optuna-dashboard, are the members of the front.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.analysis import BASE_ROLE, CANDIDATE_ROLE, Candidate, Front, varying
from sweeper.errors import StorageError
from sweeper.planning import readout_axes, trajectory_axes
from sweeper.search.storages import open_storage, shown_url, unusable
from sweeper.spec import ConstraintSpec, SweepSpec

_STATES = {"failed": TrialState.FAIL, "unscored": TrialState.FAIL, "pruned": TrialState.PRUNED}
"""Optuna knows no `unscored`; like a failure it has no values. `status` keeps them apart."""

_DERIVED = ("warmup_steps", "decay_steps")
"""A configuration holds steps where the spec may hold a share of `max_steps`."""

MADE_BY = "sweeper"
"""The user attribute of studies that may be replaced."""

CONSTRAINTS = "constraints"
"""The trial attribute that Optuna and optuna-dashboard both read. The dashboard does not read the one that
`Trial.set_constraint` writes. The names, in the same order, are in the study's attribute of this name."""

Choice = str | int | float | bool | None


def copy_study(front: Front, spec: SweepSpec, url: str) -> optuna.Study:
    """Copy the study of a sweep into a storage that other programs may use, too.

    An earlier study of this sweep is replaced; one that sweeper did not make is left alone.

    Args:
        front: What the records say.
        spec: Gives the name, the directions, the constraints and the axes.
        url: See `open_storage`.

    Raises:
        StorageError: the storage cannot be used, or holds another study of this name.
    """
    storage = open_storage(url)
    try:
        known = {item.study_name: item for item in optuna.get_all_study_summaries(storage)}
        if spec.name in known:
            if MADE_BY not in known[spec.name].user_attrs:
                raise StorageError(
                    f"{shown_url(url)} holds a study `{spec.name}` that sweeper did not make; "
                    "give the sweep another name, or use another storage",
                    code="study_storage.other_study",
                    study=spec.name,
                )
            optuna.delete_study(study_name=spec.name, storage=storage)
        return write_study(front, spec, storage)
    except (OSError, optuna.exceptions.OptunaError) as error:
        raise unusable(url, error) from None


def write_study(front: Front, spec: SweepSpec, storage: BaseStorage | None = None) -> optuna.Study:
    """Make the study of a sweep in a storage that has none of its name; in memory without a storage."""
    study = create_study(spec, storage)
    describe_base(study, front)
    study.add_trials(study_trials(front, spec).values())
    return study


def create_study(spec: SweepSpec, storage: BaseStorage | None = None) -> optuna.Study:
    """An empty study with the names and directions of the objectives.

    Raises:
        optuna.exceptions.DuplicatedStudyError: there is one of the sweep's name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [objective.direction for objective in spec.objectives]
    study = optuna.create_study(study_name=spec.name, storage=storage, directions=directions)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in spec.objectives])
    study.set_user_attr(MADE_BY, True)
    study.set_user_attr(CONSTRAINTS, [constraint_name(item) for item in spec.constraints])
    return study


def describe_base(study: optuna.Study, front: Front) -> None:
    """Note the values of the untouched base model, which is no trial, as it competes with nothing."""
    if front.base is not None:
        values = dict(front.base.values)
        if study.user_attrs.get(BASE_ROLE) != values:
            study.set_user_attr(BASE_ROLE, values)


def study_trials(front: Front, spec: SweepSpec) -> dict[str, FrozenTrial]:
    """The trials of a sweep by configuration id.

    Controls lie outside the space and would stretch every axis of a plot: they are trials only where they
    are on the front.
    """
    items = list(_shown(front, spec))
    ranges = distributions(items, spec)
    return {item.config_id: trial_of(item, spec, ranges) for item in items}


def _shown(front: Front, spec: SweepSpec) -> Iterator[Candidate]:
    on_front = {item.config_id for item in front.members}
    for item in front.candidates:
        shown = item.role == CANDIDATE_ROLE or item.config_id in on_front
        if shown and has_ended(item, spec):
            yield item


def has_ended(item: Candidate, spec: SweepSpec) -> bool:
    """Whether every seed of the spec has a record of it."""
    return set(spec.seeds) <= set(item.seeds)


def trial_of(item: Candidate, spec: SweepSpec, ranges: dict[str, BaseDistribution]) -> FrozenTrial:
    """A configuration that has ended, as a finished trial.

    Complete trials are those that are measured under every seed and feasible. What is measured and breaks a
    constraint is `PRUNED` and keeps its values, because optuna-dashboard looks at no constraint when it
    lists the best of the complete trials.

    Raises:
        ValueError: a hyperparameter lies outside its range.
    """
    present = {name: ranges[name] for name in ranges if name in item.config}
    params = {
        name: to_choice(item.config[name])
        if isinstance(distribution, CategoricalDistribution)
        else item.config[name]
        for name, distribution in present.items()
    }
    result = outcome(item, spec)
    infeasible = result.state == TrialState.COMPLETE and not item.feasible
    violations = None if result.violations is None else [*result.violations.values()]
    return create_trial(
        state=TrialState.PRUNED if infeasible else result.state,
        values=result.values,
        params=params,
        distributions=present,
        user_attrs={
            "config_id": item.config_id,
            "role": item.role,
            "status": item.status,
            "excluded": item.excluded,
            "feasible": item.excluded is None and item.feasible,
        },
        system_attrs=None if violations is None else {CONSTRAINTS: violations},
    )


class Outcome(NamedTuple):
    """A configuration as Optuna sees it. A trial is feasible when no violation exceeds 0."""

    state: TrialState
    values: list[float] | None
    violations: dict[str, float] | None


def outcome(item: Candidate, spec: SweepSpec) -> Outcome:
    """How a configuration ended.

    A constraint that is kept has the violation confidence - P(rate <= max), at most 0. To one that is
    broken the excess of the rate over the limit is added: the probability alone is 0 everywhere far
    from it and would not show a sampler which way is better. What a rule stopped has no values, and the
    violations that its evidence shows.
    """
    if item.excluded is not None:
        state = _STATES.get(item.status, TrialState.FAIL)
        return Outcome(state, None, _violations_of_evidence(item, spec))
    violations = {}
    for constraint, probability in zip(spec.constraints, item.probabilities, strict=True):
        short = constraint.confidence - probability
        excess = max(0.0, item.values.get(constraint.metric, 1.0) - constraint.max)
        violations[constraint_name(constraint)] = short + excess if short > 0 else short
    values = [item.values[objective.metric] for objective in spec.objectives]
    return Outcome(TrialState.COMPLETE, values, violations)


def _violations_of_evidence(item: Candidate, spec: SweepSpec) -> dict[str, float] | None:
    """The violations that the evidence of a rule shows, counted as if P(rate <= max) were 0.

    Without them a sampler would take what was stopped for better than what was measured and breaks a limit.
    Nothing is known of other constraints.
    """
    reasons = [record.reason or {} for record in item.records if record.status == "pruned"]
    rates = [reason["k"] / reason["n"] for reason in reasons if reason.get("n")]
    if not rates:
        return None
    return {
        constraint_name(limit): limit.confidence + max(0.0, max(rates) - limit.max)
        if limit.metric == "unsafe_rate"
        else 0.0
        for limit in spec.constraints
    }


def constraint_name(constraint: ConstraintSpec) -> str:
    """The name of a constraint in the study."""
    return f"P({constraint.metric} <= {constraint.max:g}) >= {constraint.confidence:g}"


def distributions(items: Sequence[Candidate], spec: SweepSpec) -> dict[str, BaseDistribution]:
    """One distribution for each hyperparameter that varies in the spec or among the configurations.

    Numbers become a range with both bounds included, on a log scale for `learning_rate` and for axes with
    `log: true`; everything else, averages by their labels, becomes a choice. As the values of the spec are
    all in it, further configurations of the space change nothing.
    """
    axes = {**trajectory_axes(spec), **readout_axes(spec)}
    axes.pop("num_epochs", None)  # A configuration has the steps they take.
    values: dict[str, list[Any]] = {}
    for name, axis in axes.items():
        ends = (axis.low, axis.high) if axis.values is None else axis.values
        values[name] = [getattr(value, "label", value) for value in ends]
    fixed = [name for name in _DERIVED if len(values.get(name, ())) == 1]
    values |= {name: [] for name in _DERIVED}
    for name in varying(items):
        values.setdefault(name, [])
    for name, known in values.items():
        known += [item.config[name] for item in items if name in item.config]
    return {
        name: _distribution(name, known, spec)
        for name, known in values.items()
        if name not in fixed and len({repr(value) for value in known}) > 1
    }


def to_choice(value: Any) -> Choice:
    """A value as Optuna can hold it as a choice: lists and blocks become canonical JSON."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, sort_keys=True)


def _distribution(name: str, values: Sequence[Any], spec: SweepSpec) -> BaseDistribution:
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numeric:
        choices = {json.dumps(to_choice(value)): to_choice(value) for value in values}
        return CategoricalDistribution([choices[key] for key in sorted(choices)])
    low, high = min(values), max(values)
    axis = getattr(spec.space, name, None)
    log = low > 0 and (name == "learning_rate" or bool(axis is not None and axis.log))
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)
