"""Runs made of what other tools measured: `sweeper.import_run`."""

import shlex
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import ImportMapError
from sweeper.importing.build import MAP_NAME, import_table, new_run, write_run
from sweeper.importing.detect import read_table
from sweeper.importing.guess import Guess, guess_map, guess_metrics, guess_responses
from sweeper.importing.mapping import ImportMap, load_map, map_text
from sweeper.importing.responses import LISTS, judge, with_answers, write_answers
from sweeper.importing.table import ForeignTable, printable
from sweeper.runs.run import Run, open_run
from sweeper.store.folder import write_atomic

NAMED = 3
"""How many of the rows left out a message names."""


class ImportResult(NamedTuple):
    """A new run, and what is said about it.

    `read` counts the rows of the source, `refused` has every one left out with its reason. `notes` say what
    was guessed or not read; `unmapped` are numeric columns that are no metric, as nothing says which way is
    better. `responses` counts the responses read and those judged, None where rows are no responses.
    """

    run: Run
    read: int
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    unmapped: tuple[str, ...]
    responses: tuple[int, int] | None = None

    @property
    def summary(self) -> str:
        """`62 of 63 rows imported; 1 left out: FILE: REASON`."""
        kept = f"{self.read - len(self.refused)} of {self.read} rows imported"
        if self.responses is not None:
            read, judged = self.responses
            kept = f"{judged:,} of {read:,} responses judged by {LISTS[0]}, {len(self.run.records)} records"
        if not self.refused:
            return kept
        first = "; ".join(f"{where}: {why}" for where, why in self.refused[:NAMED])
        more = "; ..." if len(self.refused) > NAMED else ""
        return f"{kept}; {len(self.refused)} left out (refused.jsonl): {first}{more}"


def import_run(
    source: str | Path,
    out: str | Path,
    *,
    map: str | Path | None = None,
    kind: str | None = None,
    study: str | None = None,
    values: str | Path | None = None,
) -> ImportResult:
    """Make a run of what another tool measured, for `front`, `recommend`, `compare` and the report.

    What the source does not say makes claims weaker or impossible: a rate without counts has no interval
    and keeps no limit; without the untouched model no gain is shown. Rows of prompts and responses are
    judged by the refusal list of a sweep, and rows of equal settings become one record.

    Args:
        source: CSV, JSON, JSONL, Parquet, a folder of CSV or JSON files, an Optuna study, MLflow runs,
            checkpoints of a Trainer, results of lm-evaluation-harness; see
            `sweeper.importing.detect.KINDS`.
        out: A new run folder. It also gets the map, `import.yaml`.
        map: A map of the columns in YAML; guessed where not given.
        kind: The kind of source, where it is not recognised.
        study: Which study or experiment, where the source holds several.
        values: Of rows of responses: a file with further metrics, one row for each setting, seed and step.

    Raises:
        DataError, ImportMapError: the source or the values cannot be read, or do not suit the map.
        SpecError: the map is not valid.
        RunFolderError: `out` holds a run, or cannot be written.
    """
    table = read_table(source, kind, study)
    mapping = guess_responses(table) if map is None else load_map(Path(map))
    if mapping is not None and mapping.responses is not None:
        texts = (mapping.responses.prompt, *mapping.responses.columns)
        table = read_table(source, kind, study, texts)
        return _import_responses(table, mapping, values, Path(out), guessed=map is None)
    if values is not None:
        raise ImportMapError(
            f"--values {Path(values).name}: {table.source.name} has no responses that its rows would be "
            "joined with; name their columns under `responses` of the map",
            code="import.values",
        )
    notes, unmapped = list(table.notes), tuple[str, ...]()
    if mapping is None:
        guess = guess_map(table)
        _check_objectives(guess, table, Path(out))
        mapping, unmapped = guess.map, guess.unmapped
        notes += guess.notes
    found = import_table(table, mapping)
    folder = write_run(found, mapping, Path(source), Path(out))
    read = len(table.rows) + len(table.refused)
    return ImportResult(open_run(folder.root), read, found.refused, tuple(notes), unmapped)


def _check_objectives(guess: Guess, table: ForeignTable, out: Path) -> None:
    """Leave a guess that is no whole map in the folder, to be completed; one that is there stays.

    Raises:
        ImportMapError: fewer than two objectives are certain.
        RunFolderError: the folder holds a run, or cannot be written.
    """
    if len(guess.map.objectives) >= 2:
        return
    path = new_run(out).root / MAP_NAME
    if not path.exists():
        write_atomic(path, map_text(guess.map))
    unknown = ", ".join(guess.unmapped[:NAMED]) + (", ..." if len(guess.unmapped) > NAMED else "")
    columns = f"; nothing says which way is better of {unknown}" if unknown else ""
    raise ImportMapError(
        f"{printable(table.source.name)}: {'; '.join(guess.notes)}{columns}; complete the guess in {path}, "
        f"then import with --map {shlex.quote(str(path))}",
        code="import.objectives",
        path=table.source,
    )


def _import_responses(
    table: ForeignTable,
    mapping: ImportMap,
    values: str | Path | None,
    out: Path,
    *,
    guessed: bool,
) -> ImportResult:
    """The run of judged responses; see `import_run`."""
    names = ("file",) if table.kind == "csv_folder" else ()  # `1e-4` is the name of a file there.
    more = None if values is None else read_table(values, texts=names)
    judged = judge(table, mapping, more)
    notes, unmapped = [*table.notes, *judged.notes], tuple[str, ...]()
    if guessed:
        guess = guess_metrics(mapping, judged.table)
        _check_objectives(guess, table, out)
        mapping, unmapped = guess.map, guess.unmapped
        notes += guess.notes
    found = with_answers(import_table(judged.table, mapping.of_groups()), judged)
    folder = write_run(found, mapping, table.source, out)
    write_answers(folder, found.records, judged)
    used = sum(len(item.lines) for item in judged.answers.values())
    counts = judged.read, used
    return ImportResult(
        open_run(folder.root), judged.read, found.refused, tuple(notes), unmapped, counts
    )
