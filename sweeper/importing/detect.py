"""Which kind of source a file or folder is, by what it holds; and its rows."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import DataError
from sweeper.importing.files import Source, open_source
from sweeper.importing.readers import rows
from sweeper.importing.readers.lm_eval_results import holds_results, read_lm_eval
from sweeper.importing.readers.mlflow_store import holds_runs, read_mlflow
from sweeper.importing.readers.optuna_study import holds_studies, read_optuna
from sweeper.importing.readers.tamperbench import holds_tamperbench, read_tamperbench
from sweeper.importing.readers.tensorboard import holds_events, read_tensorboard
from sweeper.importing.readers.trainer import holds_checkpoints, read_trainer
from sweeper.importing.readers.wandb_runs import holds_wandb, read_wandb
from sweeper.importing.table import ForeignTable, printable, refuse_empty


class Kind(NamedTuple):
    """What a kind of source is called for people, how it is recognised and read."""

    description: str
    fits: Callable[[Source], bool]
    read: Callable[[Source], ForeignTable]


def _ends(*endings: str) -> Callable[[Source], bool]:
    return lambda source: source.path.is_file() and source.path.suffix.lower() in endings


def _holds(*endings: str) -> Callable[[Source], bool]:
    return lambda source: (
        source.path.is_dir() and any(name.lower().endswith(endings) for name in source.names)
    )


KINDS: Mapping[str, Kind] = {
    "tamperbench": Kind("a result folder of TamperBench", holds_tamperbench, read_tamperbench),
    "optuna": Kind("an Optuna study (SQLite or journal)", holds_studies, read_optuna),
    "mlflow": Kind("an MLflow store (`mlruns` or SQLite)", holds_runs, read_mlflow),
    "wandb": Kind("local runs of W&B (`wandb/`)", holds_wandb, read_wandb),
    "trainer": Kind(
        "a folder of checkpoints with trainer_state.json", holds_checkpoints, read_trainer
    ),
    "lm_eval": Kind("results_*.json of lm-evaluation-harness", holds_results, read_lm_eval),
    "tensorboard": Kind("event files of TensorBoard", holds_events, read_tensorboard),
    "csv": Kind("a .csv or .tsv file, a row per run", _ends(".csv", ".tsv"), rows.read_csv),
    "json": Kind(
        "a .json, .jsonl or .ndjson file", _ends(".json", ".jsonl", ".ndjson"), rows.read_json
    ),
    "parquet": Kind("a .parquet file", _ends(".parquet"), rows.read_parquet),
    "json_folder": Kind(
        "a folder of .json files, one run each", _holds(".json"), rows.read_json_folder
    ),
    "csv_folder": Kind(
        "a folder of .csv files, one run each", _holds(".csv", ".tsv"), rows.read_csv_folder
    ),
}
"""A kind of source -> what it is; the first that fits is read."""


PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".xlsx", ".xls", ".ods")
"""Endings of archives and workbooks, in which a table may be."""


def read_table(
    source: Path | str,
    kind: str | None = None,
    study: str | None = None,
    texts: Iterable[str] = (),
) -> ForeignTable:
    """The rows of a file or folder that another tool wrote.

    Args:
        source: A file, a folder, or the `sqlite:///` or `journal:` URL of a file.
        kind: One of `KINDS`; None recognises it.
        study: The name of a study or experiment, where a source holds several.
        texts: Columns whose cells are texts, whatever they look like.

    Raises:
        DataError: missing, of no known kind, damaged, without any run, or several studies and none chosen.
        MissingExtraError: a package that the kind needs is not installed.
    """
    found = open_source(_path(source), study)._replace(texts=frozenset(texts))
    fitting = [name for name, item in KINDS.items() if item.fits(found)]
    if kind is not None and kind not in KINDS:
        raise DataError(
            f"kind: found `{printable(kind)}`; known: {', '.join(KINDS)}",
            code="data.unknown_format",
            found=kind,
            known=list(KINDS),
        )
    if found.path.is_dir() and {"run.json", "records.jsonl"} <= set(found.names):
        raise DataError(
            f"{found.shown}: a run of sweeper, which `sweeper front` and `sweeper report` read as it is",
            code="data.unknown_format",
            path=found.path,
        )
    if kind is None and not fitting and found.path.suffix.lower() in PACKED:
        raise DataError(
            f"{found.shown}: {found.path.suffix} files are not read; unpack it, or save its table as CSV",
            code="data.unknown_format",
            path=found.path,
        )
    if kind is None and not fitting:
        known = "; ".join(item.description for item in KINDS.values())
        raise DataError(
            f"{found.shown}: not a source of a known kind; expected {known}; say which it is with "
            "`kind`, or write the runs as CSV",
            code="data.unknown_format",
            path=found.path,
            known=list(KINDS),
        )
    chosen = kind or fitting[0]
    table = KINDS[chosen].read(found)
    others = [
        name for name in fitting if name != chosen and (name not in _FOLDERS or chosen in _FOLDERS)
    ]
    if kind is None and others:
        table = table._replace(
            notes=(*table.notes, f"read as {chosen}; it also looks like {', '.join(others)}")
        )
    return refuse_empty(table)


def _path(source: Path | str) -> Path:
    """The file or folder that a path or the URL of a storage names."""
    text = str(source)
    return Path(next((text.removeprefix(p) for p in _URLS if text.startswith(p)), text))


_FOLDERS = ("json_folder", "csv_folder")
"""Kinds that many folders of other kinds look like."""

_URLS = ("sqlite:///", "journal:")
