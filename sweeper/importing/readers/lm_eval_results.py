"""Results of lm-evaluation-harness: one row for each `results_*.json`."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeper.importing.files import Source, named_files
from sweeper.importing.readers.rows import object_in
from sweeper.importing.table import COUNT, ForeignRow, ForeignTable, flat, is_number, printable
from sweeper.metrics import Direction, harness_metric

_NAME = re.compile(r"results.*\.json", re.IGNORECASE)
_SEEDS = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")


def _results(source: Source) -> Iterator[tuple[str, Path]]:
    return named_files(source, lambda name: _NAME.fullmatch(name) is not None)


def holds_results(source: Source) -> bool:
    """Whether there is a file of results, by its name and keys; the first that is readable decides."""
    for _, path in _results(source):
        try:
            return _is_result(object_in(path))
        except ValueError:
            continue
    return False


def _is_result(found: Mapping[str, Any]) -> bool:
    tasks = found.get("results")
    return isinstance(tasks, dict) and bool({"n-shot", "versions", "configs"} & found.keys())


def read_lm_eval(source: Source) -> ForeignTable:
    """Metrics named as `sweeper.metrics.harness_metric` does, with `.stderr` and `.n`; and `config.*`.

    Directions are those of `higher_is_better`. Files of results that are damaged or other JSON are refused.
    """
    rows: list[ForeignRow] = []
    refused = list(source.refused)
    directions: dict[str, Direction] = {}
    for shown, path in _results(source):
        try:
            found = object_in(path)
            if not _is_result(found):
                raise ValueError("expected `results` and `versions` of lm-evaluation-harness")
            values = dict(_settings(found))
            for name, value, direction in _metrics(found):
                values[name] = value
                if direction is not None:
                    directions.setdefault(name, direction)
                    if directions[name] != direction:
                        raise ValueError(f"`{name}` has another direction than in files before it")
        except ValueError as error:
            refused.append((shown, str(error)))
            continue
        rows.append(ForeignRow(shown, values))
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    return ForeignTable(
        "lm_eval",
        source.path,
        tuple(rows),
        tuple(refused),
        parameters=tuple(c for c in columns if c.startswith(("model_args.", "model_name"))),
        metrics=tuple(
            c for c in columns if c.startswith("lm_eval/") and not c.endswith((COUNT, ".stderr"))
        ),
        directions=directions,
        seed="config.random_seed" if "config.random_seed" in columns else None,
    )


def _settings(found: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    config = found.get("config")
    config = config if isinstance(config, dict) else {}
    name = found.get("model_name") or config.get("model")
    if name is not None:
        yield "model_name", printable(str(name))
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.partition("=")[::2] for part in arguments.split(",") if "=" in part)
    if isinstance(arguments, dict):
        yield from flat({"model_args": arguments}).items()
    said = ("num_fewshot", "limit", "batch_size", "model_dtype", *_SEEDS)
    yield from flat({"config": {key: config[key] for key in said if key in config}}).items()


def _metrics(found: Mapping[str, Any]) -> Iterator[tuple[str, object, Direction | None]]:
    """Columns with values, and the direction where the file says it."""
    for task, measured in found["results"].items():
        if not isinstance(measured, dict):
            raise ValueError(f"`results.{printable(str(task))}` is no mapping of metrics")
        counts = _entry(found, "n-samples", task)
        better = _entry(found, "higher_is_better", task)
        for key, value in measured.items():
            metric, comma, filtered = key.partition(",")
            if not comma or not is_number(value):
                continue
            stderr = metric.endswith("_stderr")
            name = printable(
                harness_metric(task, metric.removesuffix("_stderr"), filtered or "none")
            )
            if stderr:
                yield f"{name}.stderr", value, None
                continue
            way = better.get(metric)
            direction: Direction | None = None
            if isinstance(way, bool):
                direction = "maximize" if way else "minimize"
            yield name, value, direction
            if is_number(counts.get("effective")):
                yield f"{name}{COUNT}", counts["effective"], None


def _entry(found: Mapping[str, Any], key: str, task: str) -> Mapping[str, Any]:
    table = found.get(key)
    entry = table.get(task) if isinstance(table, dict) else None
    return entry if isinstance(entry, dict) else {}
