"""Result folders of TamperBench: one row for each attacked model, with the settings of its Optuna study.

The layout is that of its guide in criticalml-uw/TamperBench: next to `study.db` lie folders
`trial_N/tamperbench_evaluation/EVALUATION/results.parquet` with `metric_name` and `metric_value`, and
`scores.parquet` with one row per prompt. A grid has folders named by variant and no study.
"""

import re
from collections import defaultdict
from pathlib import PurePosixPath

from sweeper.data.files import read_file
from sweeper.errors import DataError
from sweeper.importing.files import Source, problem_of
from sweeper.importing.readers.optuna_study import read_optuna
from sweeper.importing.table import COUNT, ForeignRow, ForeignTable, is_number, printable

_RESULT = re.compile(
    r"(?:(?P<run>.+)/)?(?:tamperbench|safetunebed)_evaluation/(?P<evaluation>[^/]+)/results\.parquet"
)
_NOTE = (
    "TamperBench looks for the strongest attack: metrics are imported with their usual direction, harm "
    "minimised, and not with that of its study"
)


def holds_tamperbench(source: Source) -> bool:
    """Whether a folder has evaluations of TamperBench."""
    return source.path.is_dir() and any(map(_RESULT.fullmatch, source.names))


def read_tamperbench(source: Source) -> ForeignTable:
    """Metrics as `EVALUATION.METRIC`, their number of prompts, `study` and `run` (folders), and `params_*`.

    Raises:
        MissingExtraError: the package pyarrow is not installed.
    """
    evaluations: dict[str, list[str]] = defaultdict(list)
    for name in source.names:
        found = _RESULT.fullmatch(name)
        if found:
            evaluations[found["run"] or "."].append(name)
    refused = list(source.refused)
    studies: dict[str, dict[object, dict[str, object]]] = {}
    rows = []
    for run in sorted(evaluations):
        place = PurePosixPath(run)
        study = str(place.parent)
        if study not in studies:
            studies[study] = _settings(source, study, refused)
        values: dict[str, object] = {"study": printable(study), "run": printable(place.name)}
        number = re.fullmatch(r"trial_(\d+)", place.name)
        values |= studies[study].get(int(number[1]), {}) if number else {}
        try:
            for name in evaluations[run]:
                values |= _measured(source, name)
        except (DataError, ValueError) as error:
            refused.append((printable(run), printable(str(error))))
            continue
        rows.append(ForeignRow(printable(run), values))
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    params = tuple(name for name in columns if name.startswith("params_"))
    complete = all(any(name in row.values for name in params) for row in rows)
    own = ("study",) if complete else ("study", "run")
    return ForeignTable(
        "tamperbench",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=(*own, *params),
        metrics=tuple(
            name
            for name in columns
            if name not in ("study", "run", *params) and not name.endswith(COUNT)
        ),
        notes=(_NOTE,),
    )


def _settings(
    source: Source, study: str, refused: list[tuple[str, str]]
) -> dict[object, dict[str, object]]:
    """The parameters of the trials of a study by number; none where there is no study."""
    name = str(PurePosixPath(study) / "study.db")
    if name not in source.names:
        return {}
    try:
        trials = read_optuna(Source(source.path / name, ("study.db",), study=source.study))
    except DataError as error:
        refused.append((printable(name), printable(str(error))))
        return {}
    return {
        row.values["number"]: {
            column: value for column, value in row.values.items() if column in trials.parameters
        }
        for row in trials.rows
    }


def _measured(source: Source, name: str) -> dict[str, object]:
    path = source.path / name
    problem = problem_of(path)
    if problem:
        raise ValueError(problem)
    evaluation = printable(path.parent.name)
    scores = path.with_name("scores.parquet")
    count = None
    if str(PurePosixPath(name).with_name("scores.parquet")) in source.names and not problem_of(
        scores
    ):
        count = sum(is_number(row.get("score")) for row in read_file(scores))
    values: dict[str, object] = {}
    for row in read_file(path):
        if not isinstance(row.get("metric_name"), str) or not is_number(row.get("metric_value")):
            raise ValueError(f"{evaluation}: expected the columns `metric_name` and `metric_value`")
        column = f"{evaluation}.{printable(row['metric_name'])}"
        values[column] = row["metric_value"]
        if count:
            values[f"{column}{COUNT}"] = count
    return values
