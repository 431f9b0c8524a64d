"""Runs made of what other tools measured: `sweeper.import_run`."""

from pathlib import Path
from typing import NamedTuple

from sweeper.importing.build import import_table, write_run
from sweeper.importing.detect import read_table
from sweeper.importing.guess import guess_map
from sweeper.importing.mapping import load_map
from sweeper.runs.run import Run, open_run

NAMED = 3
"""How many of the rows left out a message names."""


class ImportResult(NamedTuple):
    """A new run, and what is said about it.

    `read` counts the rows of the source, `refused` has every one left out with its reason. `notes` say what
    was guessed or not read; `unmapped` are numeric columns that are no metric, as nothing says which way is
    better.
    """

    run: Run
    read: int
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    unmapped: tuple[str, ...]

    @property
    def summary(self) -> str:
        """`62 of 63 rows imported; 1 left out: FILE: REASON`."""
        kept = f"{self.read - len(self.refused)} of {self.read} rows imported"
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
) -> ImportResult:
    """Make a run of what another tool measured, for `front`, `recommend`, `compare` and the report.

    What the source does not say makes claims weaker or impossible: a rate without counts has no interval
    and keeps no limit; without the untouched model no gain is shown.

    Args:
        source: CSV, JSON, JSONL, Parquet, a folder of JSON files, an Optuna study, MLflow runs, checkpoints
            of a Trainer, results of lm-evaluation-harness; see `sweeper.importing.detect.KINDS`.
        out: A new run folder. It also gets the map, `import.yaml`.
        map: A map of the columns in YAML; guessed where not given.
        kind: The kind of source, where it is not recognised.
        study: Which study or experiment, where the source holds several.

    Raises:
        DataError, ImportMapError: the source cannot be read, or does not suit the map.
        SpecError: the map is not valid.
        RunFolderError: `out` holds a run, or cannot be written.
    """
    table = read_table(source, kind, study)
    notes, unmapped = list(table.notes), tuple[str, ...]()
    if map is None:
        guess = guess_map(table)
        mapping, unmapped = guess.map, guess.unmapped
        notes += guess.notes
    else:
        mapping = load_map(Path(map))
    found = import_table(table, mapping)
    folder = write_run(found, mapping, Path(source), Path(out))
    read = len(table.rows) + len(table.refused)
    return ImportResult(open_run(folder.root), read, found.refused, tuple(notes), unmapped)
