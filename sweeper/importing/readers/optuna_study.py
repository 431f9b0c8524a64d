"""Studies of Optuna, from a SQLite file or a journal; neither is written to."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from sweeper.errors import DataError, StorageError
from sweeper.importing.files import Source
from sweeper.importing.sqlite import tables_of
from sweeper.importing.table import ForeignRow, ForeignTable, flat, printable
from sweeper.metrics import Direction
from sweeper.search.storages import JOURNAL, open_storage, read_only_url

_CONSTRAINTS = "constraints"
"""Where Optuna keeps the values of `constraints_func`, and before a colon those of `set_constraint`."""


def holds_studies(source: Source) -> bool:
    """Whether a file is a database or a journal of Optuna."""
    path = source.path
    if not path.is_file():
        return False
    if {"studies", "trials", "trial_params"} <= tables_of(path):
        return True
    with path.open("rb") as file:
        start = file.readline(1_000_000)
    try:
        first = json.loads(start)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"op_code", "worker_id"} <= first.keys()


def read_optuna(source: Source) -> ForeignTable:
    """A row for each complete trial: `params_*`, `values_*`, `constraints_*`, `user_attrs_*`.

    The last intermediate value and its step are `intermediate_value` and `intermediate_step`. Other trials
    are refused by state.

    Raises:
        DataError: damaged, without a study, or several studies and none chosen.
    """
    study = _opened(source)
    names = _objectives(study)
    rows: list[ForeignRow] = []
    refused: list[tuple[str, str]] = []
    for trial in study.get_trials(deepcopy=False):
        where = f"{printable(source.path.name)}: trial {trial.number}"
        if trial.state != TrialState.COMPLETE:
            refused.append((where, _why_not(trial)))
            continue
        try:
            rows.append(ForeignRow(where, flat(dict(_values(trial, names)))))
        except ValueError as error:
            refused.append((where, str(error)))
    columns = Counter(column for row in rows for column in row.values)
    limits = tuple(name for name in columns if name.startswith(f"{_CONSTRAINTS}_"))
    directions: dict[str, Direction] = dict.fromkeys(limits, "minimize")
    for name, direction in zip(names, study.directions, strict=True):
        if direction != optuna.study.StudyDirection.NOT_SET:
            directions[name] = "maximize" if direction.name == "MAXIMIZE" else "minimize"
    return ForeignTable(
        "optuna",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=tuple(name for name in columns if name.startswith("params_")),
        metrics=(*names, *limits),
        directions=directions,
        constraints=limits,
        step="intermediate_step" if "intermediate_step" in columns else None,
    )


def _opened(source: Source) -> optuna.Study:
    path = source.path
    database = bool(tables_of(path))
    url = read_only_url(path) if database else f"{JOURNAL}{path}"
    try:
        storage = open_storage(url)
        names = sorted(study.study_name for study in storage.get_all_studies())
        if (
            not names
            or (source.study is None and len(names) > 1)
            or source.study not in (None, *names)
        ):
            raise _not_one(source, names)
        return optuna.load_study(study_name=source.study or names[0], storage=storage)
    except StorageError as error:
        problem = error.values.get("problem", "unknown")
    except optuna.exceptions.OptunaError as error:
        problem = str(error).splitlines()[0]
    except (ValueError, LookupError, TypeError) as error:  # A journal of other contents.
        problem = repr(error)
    raise DataError(
        f"{source.shown}: not a readable study of Optuna: {printable(str(problem))[:300]}",
        code="data.malformed",
        path=path,
    )


def _not_one(source: Source, names: list[str]) -> DataError:
    shown = ", ".join(f"`{printable(name)}`" for name in names[:20])
    found = f"{len(names)} studies: {shown}; choose one by `study`" if names else "no study in it"
    wanted = "" if source.study is None else f"no study `{printable(source.study)}` among "
    return DataError(
        f"{source.shown}: {wanted}{found}", code="data.empty", path=source.path, known=names
    )


def _objectives(study: optuna.Study) -> tuple[str, ...]:
    named = study.metric_names
    if named is not None:
        return tuple(f"values_{printable(name)}" for name in named)
    count = len(study.directions)
    return ("value",) if count == 1 else tuple(f"values_{index}" for index in range(count))


def _why_not(trial: FrozenTrial) -> str:
    at = f" at step {trial.last_step}" if trial.last_step is not None else ""
    return f"its state is {trial.state.name}{at}; only COMPLETE trials have values"


def _values(trial: FrozenTrial, names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    yield "number", trial.number
    yield from ((f"params_{name}", value) for name, value in trial.params.items())
    yield from zip(names, trial.values or (), strict=True)
    yield from ((f"user_attrs_{name}", value) for name, value in trial.user_attrs.items())
    yield from _constraints(trial.system_attrs)
    if trial.last_step is not None:
        yield "intermediate_step", trial.last_step
        yield "intermediate_value", trial.intermediate_values[trial.last_step]
    if trial.duration is not None:
        yield "duration_seconds", trial.duration.total_seconds()


def _constraints(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for index, value in enumerate(attributes.get(_CONSTRAINTS) or ()):
        yield f"{_CONSTRAINTS}_{index}", value
    for name, value in attributes.items():
        if name.startswith(f"{_CONSTRAINTS}:"):
            yield f"{_CONSTRAINTS}_{name.partition(':')[2]}", value
