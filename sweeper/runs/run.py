"""The Python interface to a run folder: `sweeper.open_run(path)`. Needs neither torch nor ray."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd

from sweeper.analysis import (
    SAFEST_USEFUL,
    Candidate,
    Certainty,
    Front,
    Policy,
    Recommendation,
    find_candidate,
    find_front,
    front_certainty,
    recommend,
)
from sweeper.errors import RunFolderError
from sweeper.judges import MIN_COVERAGE, RejudgedRecords, overlay
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records


class Run:
    """A run folder, finished or not. Every call reads what is there now.

    With a `judge`, as `sweeper rescore` had it judged, the rates are that judge's wherever records are
    asked for; below `min_coverage`, in (0, 1], a record is unscored.
    """

    def __init__(
        self, path: str | Path, judge: str | None = None, min_coverage: float = MIN_COVERAGE
    ) -> None:
        self.folder = RunFolder(Path(path)).open()
        self._judge = judge
        self._min_coverage = min_coverage

    @property
    def spec(self) -> SweepSpec:
        """The spec the run was started with, overrides included.

        Raises:
            SpecError: spec.yaml was damaged.
            RunFolderError: it cannot be read.
        """
        return parse_spec(self._text(self.folder.spec), source=str(self.folder.spec))

    @property
    def accounting(self) -> dict[str, Any]:
        """What the plan counted: configurations, trajectories, optimizer steps alone and planned.

        Raises:
            RunFolderError: plan.json is missing or damaged.
        """
        try:
            return dict(json.loads(self._text(self.folder.plan))["accounting"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._damaged_plan() from None

    @property
    def estimate(self) -> dict[str, Any] | None:
        """What the run was estimated to cost when it began, or None where that was not possible.

        Raises:
            RunFolderError: plan.json is missing or damaged.
        """
        try:
            found = json.loads(self._text(self.folder.plan)).get("estimate")
            return None if found is None else dict(found)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise self._damaged_plan() from None

    def records(self) -> tuple[TrialRecord, ...]:
        """All records, in the order they were written. A torn last line is left out.

        Raises:
            RecordError: records.jsonl cannot be trusted.
            JudgeError: the judge has not judged this run.
        """
        judged = self.judged()
        return read_records(self.folder.records).records if judged is None else judged.records

    def judged(self) -> RejudgedRecords | None:
        """The records under the judge, and how far they can be relied on; None without a judge.

        Raises:
            RecordError, JudgeError: see `records`.
        """
        if self._judge is None:
            return None
        records = read_records(self.folder.records).records
        return overlay(self.folder, records, self.spec, self._judge, self._min_coverage)

    def frame(self) -> pd.DataFrame:
        """One row per record: ids, hyperparameters, readout, and for each metric value, k and n.

        Columns of a metric are `unsafe_rate`, `unsafe_rate.k`, `unsafe_rate.n`. What was not measured
        is missing (NaN), never zero.
        """
        return pd.DataFrame([_row(record) for record in self.records()])

    def front(self) -> Front:
        """The front of all records; see `sweeper.analysis`."""
        return find_front(self.records(), self.spec)

    def certainty(self) -> Certainty:
        """How certain the front is: P(on front) of each complete configuration; see `sweeper.analysis`."""
        return front_certainty(self.front(), self.spec)

    def recommend(self, policy: Policy = SAFEST_USEFUL) -> Recommendation:
        """The configuration to use under a policy, or why there is none; see `sweeper.analysis`."""
        return recommend(self.front(), self.spec, policy)

    def candidate(self, config_id: str) -> Candidate:
        """One configuration by id or by an unambiguous beginning of it.

        Raises:
            RunFolderError: none or several match.
        """
        return find_candidate(self.front().candidates, config_id, str(self.folder.root))

    def _damaged_plan(self) -> RunFolderError:
        return RunFolderError(
            f"{self.folder.plan} is damaged; delete run.json and plan.json, and run the same sweep "
            "again: it keeps its records"
        )

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"cannot read {path}: {error}") from None


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""How a cell begins that a spreadsheet computes, or may (OWASP, CSV injection)."""


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV in which no text is a formula to a spreadsheet: such a text begins with a quote.

    Numbers stay numbers, and every text stands in quotation marks, names of columns included.
    """
    plain = frame.map(_cell).rename(columns=_cell)
    return str(plain.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        value = str(value)
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(_FORMULA) else value


def open_run(path: str | Path, judge: str | None = None, min_coverage: float = MIN_COVERAGE) -> Run:
    """Open a run folder, with the rates of a judge in the place of the first keyword list's if given.

    Raises:
        RunFolderError: the folder holds no run.
    """
    return Run(path, judge, min_coverage)


def _row(record: TrialRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "config_id": record.config_id,
        "seed": record.seed,
        "role": record.role,
        "status": record.status,
        "trajectory_id": record.trajectory_id,
    }
    row |= record.config
    row |= {"step": record.readout["step"], "average": record.config["average"]}
    for name, metric in record.metrics.items():
        row |= {name: metric.value, f"{name}.k": metric.k, f"{name}.n": metric.n}
    return {_encodable(name): _encodable(value) for name, value in row.items()}


def _encodable(value: Any) -> Any:
    """A text without lone surrogates, which JSON may hold and pandas refuses; anything else as it is."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
