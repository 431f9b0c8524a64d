"""Runs of MLflow, from the files of `mlruns` or from its SQLite store, without MLflow."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import DataError
from sweeper.importing.files import Source, problem_of
from sweeper.importing.sqlite import connected, tables_of
from sweeper.importing.table import ForeignRow, ForeignTable, printable, value_of_text
from sweeper.spec.document import read_yaml

_STATES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
"""`RunStatus` of MLflow, which its files hold as a number."""

_PART = re.compile(r"^(?P<run>(?:.*/)?[^/]+)/(?P<part>params|metrics|tags)/(?P<key>.+)$")


class _Run(NamedTuple):
    where: str
    experiment: str
    status: str
    deleted: bool
    values: Mapping[str, object]
    older: tuple[str, ...]


def holds_runs(source: Source) -> bool:
    """Whether a folder holds runs of an MLflow file store, or a file is its SQLite store."""
    if source.path.is_file():
        return {"experiments", "runs", "latest_metrics", "params"} <= tables_of(source.path)
    names = set(source.names)
    return any(
        (part := _PART.match(name)) and f"{part['run']}/meta.yaml" in names for name in names
    )


def read_mlflow(source: Source) -> ForeignTable:
    """A row for each finished run: `params.*`, `metrics.*` (their last values), `tags.*`, `run`, `step`.

    `step` is the greatest step of its metrics; those that were last logged before it are in the notes.

    Raises:
        DataError: damaged, or several experiments with runs and none chosen.
    """
    refused = list(source.refused)
    runs = _stored(source) if source.path.is_file() else _filed(source, refused)
    names = sorted({run.experiment for run in runs})
    if (source.study is None and len(names) > 1) or source.study not in (None, *names):
        shown = ", ".join(f"`{printable(name)}`" for name in names[:20])
        wanted = f"no experiment `{printable(source.study)}` among " if source.study else ""
        raise DataError(
            f"{source.shown}: {wanted}{len(names)} experiments: {shown}; choose one by `study`",
            code="data.empty",
            path=source.path,
            known=names,
        )
    rows = []
    older: Counter[str] = Counter()
    for run in runs:
        if source.study not in (None, run.experiment):
            continue
        if run.deleted or run.status != "FINISHED":
            state = "deleted" if run.deleted else run.status
            refused.append((run.where, f"the run is {state}; only FINISHED runs are complete"))
        else:
            rows.append(ForeignRow(run.where, run.values))
            older.update(run.older)
    columns = dict.fromkeys(name for row in rows for name in row.values)
    return ForeignTable(
        "mlflow",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=tuple(name for name in columns if name.startswith("params.")),
        metrics=tuple(name for name in columns if name.startswith("metrics.")),
        step="step" if "step" in columns else None,
        notes=tuple(
            f"`{name}`: last logged before the last step of its run, in {count} of {len(rows)} runs"
            for name, count in older.items()
        ),
    )


def _values(
    run: str,
    params: Iterable[tuple[str, str]],
    metrics: Iterable[tuple[str, float, int]],
    tags: Iterable[tuple[str, str]],
) -> tuple[dict[str, object], tuple[str, ...]]:
    """The columns of a run, and those of metrics that are older than its last step."""
    found = list(metrics)
    last = max((step for _, _, step in found), default=0)
    values: dict[str, object] = {"run": run}
    values |= {f"params.{printable(key)}": value_of_text(value) for key, value in params}
    values |= {f"metrics.{printable(key)}": value for key, value, _ in found}
    values |= {
        f"tags.{printable(key)}": value_of_text(value)
        for key, value in tags
        if not key.startswith("mlflow.")
    }
    # What is logged once, such as a test score, has step 0.
    older = tuple(f"metrics.{printable(key)}" for key, _, step in found if step not in (0, last))
    return values | ({"step": last} if last else {}), older


def _filed(source: Source, refused: list[tuple[str, str]]) -> list[_Run]:
    parts: dict[str, dict[str, dict[str, Path]]] = defaultdict(lambda: defaultdict(dict))
    names = set(source.names)
    for name in source.names:
        part = _PART.match(name)
        if part and f"{part['run']}/meta.yaml" in names:
            parts[part["run"]][part["part"]][part["key"]] = source.path / name
    runs = []
    for folder in sorted(parts):
        where = printable(folder)
        try:
            meta = _meta(source.path / folder / "meta.yaml")
            if "run_id" not in meta and "run_uuid" not in meta:
                continue  # A registered model.
            kinds = parts[folder]
            tags = {key: _text(path) for key, path in kinds["tags"].items()}
            values, older = _values(
                str(meta.get("run_name") or tags.get("mlflow.runName") or folder),
                [(key, _text(path)) for key, path in kinds["params"].items()],
                [(key, *_last(_text(path))) for key, path in kinds["metrics"].items()],
                tags.items(),
            )
        except (OSError, ValueError) as error:
            refused.append((where, printable(f"a damaged run: {error}")))
            continue
        status = meta.get("status")
        runs.append(
            _Run(
                where,
                _experiment(source.path / folder, meta),
                _STATES.get(status, str(status)) if isinstance(status, int) else str(status),
                meta.get("lifecycle_stage") == "deleted",
                values,
                older,
            )
        )
    return runs


def _experiment(run: Path, meta: Mapping[str, Any]) -> str:
    try:
        return str(_meta(run.parent / "meta.yaml").get("name"))
    except (OSError, ValueError):
        return str(meta.get("experiment_id"))


def _meta(path: Path) -> Mapping[str, Any]:
    found = read_yaml(_text(path))
    if not isinstance(found, dict):
        raise ValueError("meta.yaml is no mapping")
    return found


def _text(path: Path) -> str:
    problem = problem_of(path)
    if problem:
        raise ValueError(f"{path.name}: {problem}")
    return path.read_text(encoding="utf-8")


def _last(text: str) -> tuple[float, int]:
    """The value with the greatest step in lines of `timestamp value step`, the latest of equal ones."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or any(len(line) < 2 for line in lines):
        raise ValueError("a metric without `timestamp value step`")
    found = [(int(line[2]) if len(line) > 2 else 0, int(line[0]), float(line[1])) for line in lines]
    step, _, value = max(found, key=lambda entry: entry[:2])
    return value, step


def _stored(source: Source) -> list[_Run]:
    keyed = "SELECT run_uuid, key, value FROM "
    with connected(source.path) as connection:
        runs = connection.execute(
            "SELECT r.run_uuid, r.name, r.status, r.lifecycle_stage, e.name FROM runs r "
            "JOIN experiments e ON e.experiment_id = r.experiment_id ORDER BY r.start_time, r.run_uuid"
        ).fetchall()
        tables: dict[str, dict[str, list[Any]]] = {}
        for table in ("params", "tags"):
            tables[table] = defaultdict(list)
            for run, key, value in connection.execute(keyed + table):
                tables[table][run].append((key, str(value)))
        metrics: dict[str, list[Any]] = defaultdict(list)
        query = "SELECT run_uuid, key, value, step, is_nan FROM latest_metrics"
        for run, key, value, step, is_nan in connection.execute(query):
            metrics[run].append((key, float("nan") if is_nan else float(value), int(step)))
    return [
        _Run(
            f"{printable(source.path.name)}: run {printable(run)}",
            str(experiment),
            str(status),
            stage == "deleted",
            *_values(str(name or run), tables["params"][run], metrics[run], tables["tags"][run]),
        )
        for run, name, status, stage, experiment in runs
    ]
