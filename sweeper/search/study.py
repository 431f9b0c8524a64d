"""An Optuna study of a sweep, for Optuna's own tools. Never the source of truth.

The study is rebuilt from candidates each time: one trial for each configuration that has ended.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.analysis import BASE_ROLE, Candidate, Front, varying
from sweeper.errors import RunFolderError, StorageError
from sweeper.search.storages import open_storage, shown_url
from sweeper.spec import ConstraintSpec, SweepSpec

_STATES = {"failed": TrialState.FAIL, "unscored": TrialState.FAIL, "pruned": TrialState.PRUNED}
"""Optuna knows no `unscored`; like a failure it has no values. `status` keeps them apart."""

MADE_BY = "sweeper"
"""The user attribute of studies that may be replaced."""

Choice = str | int | float | bool | None


def project(front: Front, spec: SweepSpec, path: Path | None) -> optuna.Study:
    """Rebuild the study of a sweep.

    `study.best_trials` are the members of the front. The untouched base model is no trial, since it
    competes with nothing: its values stand in the study's user attribute `base`. A configuration
    that still misses a seed is left out.

    Args:
        front: What the records say.
        spec: Gives the directions, the constraints and the scales of the axes.
        path: An SQLite file to replace as a whole, or None for a study in memory.

    Raises:
        RunFolderError: the file cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if path is None:
        return _fill(optuna.storages.InMemoryStorage(), front, spec)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        storage = optuna.storages.RDBStorage(_url(temporary))
        # Half the time is one fsync per trial; a file that is renamed only when whole needs none.
        with storage.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
        _fill(storage, front, spec)
        storage.engine.dispose()
        temporary.replace(path)
    except OSError as error:
        raise RunFolderError(f"cannot write the study {path}: {error.strerror}") from None
    return open_study(path, spec.name)


def project_into(front: Front, spec: SweepSpec, url: str) -> optuna.Study:
    """Rebuild the study of a sweep in a storage that others may use, too; see `project`.

    An earlier study of this sweep is replaced; one that sweeper did not make is left alone.

    Raises:
        StorageError: the storage cannot be used, or holds another study of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(url)
    known = {item.study_name: item for item in optuna.get_all_study_summaries(storage)}
    if spec.name in known:
        if MADE_BY not in known[spec.name].user_attrs:
            raise StorageError(
                f"{shown_url(url)} holds a study `{spec.name}` that sweeper did not make; "
                "give the sweep another name, or use another storage"
            )
        optuna.delete_study(study_name=spec.name, storage=storage)
    return _fill(storage, front, spec)


def open_study(path: Path, name: str) -> optuna.Study:
    """Open what `project` wrote.

    Raises:
        RunFolderError: there is no such file.
    """
    if not path.is_file():
        raise RunFolderError(f"there is no study {path}; rebuild it from the records first")
    return optuna.load_study(study_name=name, storage=_url(path))


def distributions(candidates: Sequence[Candidate], spec: SweepSpec) -> dict[str, BaseDistribution]:
    """One distribution for each hyperparameter that varies, over the union of all values.

    Numbers become a range with both bounds included, on a log scale for `learning_rate` and for
    axes with `log: true`; everything else becomes a choice.
    """
    trained = [item for item in candidates if item.role != BASE_ROLE]
    found: dict[str, BaseDistribution] = {}
    for name in varying(trained):
        values = [item.config[name] for item in trained if name in item.config]
        found[name] = _distribution(name, values, spec)
    return found


def to_choice(value: Any) -> Choice:
    """A value as Optuna can hold it as a choice: lists and blocks become canonical JSON."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, sort_keys=True)


def constraint_name(constraint: ConstraintSpec) -> str:
    """The name of a constraint in the study."""
    return f"P({constraint.metric} <= {constraint.max:g}) >= {constraint.confidence:g}"


class Outcome(NamedTuple):
    """What Optuna is told of a configuration. It calls a trial feasible when no violation exceeds 0."""

    state: TrialState
    values: list[float] | None
    violations: dict[str, float] | None


def outcome(item: Candidate, spec: SweepSpec) -> Outcome:
    """How a configuration ended.

    A constraint that is kept has the violation confidence - P(rate <= max), at most 0. To one that is
    broken the excess of the rate over the limit is added: the probability alone is 0 everywhere far
    from it and would not tell a sampler which way is better. What a rule stopped has no values, and the
    violations that its evidence shows.
    """
    if item.excluded is not None:
        return Outcome(_STATES.get(item.status, TrialState.FAIL), None, _shown(item, spec))
    violations = {}
    for constraint, probability in zip(spec.constraints, item.probabilities, strict=True):
        short = constraint.confidence - probability
        excess = max(0.0, item.values.get(constraint.metric, 1.0) - constraint.max)
        violations[constraint_name(constraint)] = short + excess if short > 0 else short
    values = [item.values[objective.metric] for objective in spec.objectives]
    return Outcome(TrialState.COMPLETE, values, violations)


def _shown(item: Candidate, spec: SweepSpec) -> dict[str, float] | None:
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


def _url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def _fill(storage: optuna.storages.BaseStorage, front: Front, spec: SweepSpec) -> optuna.Study:
    study = optuna.create_study(
        study_name=spec.name,
        storage=storage,
        directions=[objective.direction for objective in front.objectives],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric for objective in front.objectives])
    study.set_user_attr(MADE_BY, True)
    if front.base is not None:
        study.set_user_attr(BASE_ROLE, dict(front.base.values))
    ranges = distributions(front.candidates, spec)
    trials = [_trial(item, spec, ranges) for item in front.candidates if _has_ended(item)]
    study.add_trials(trials)
    return study


def _has_ended(item: Candidate) -> bool:
    """Whether Optuna has a final state for it: not the base model, nor where a seed is missing."""
    return item.role != BASE_ROLE and (item.excluded is None or item.status in _STATES)


def _trial(item: Candidate, spec: SweepSpec, ranges: dict[str, BaseDistribution]) -> FrozenTrial:
    present = {name: ranges[name] for name in ranges if name in item.config}
    params = {
        name: to_choice(item.config[name])
        if isinstance(distribution, CategoricalDistribution)
        else item.config[name]
        for name, distribution in present.items()
    }
    result = outcome(item, spec)
    attributes = {
        "config_id": item.config_id,
        "role": item.role,
        "status": item.status,
        "excluded": item.excluded,
    }
    return create_trial(
        state=result.state,
        values=result.values,
        params=params,
        distributions=present,
        user_attrs=attributes,
        constraints=result.violations,
    )


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
