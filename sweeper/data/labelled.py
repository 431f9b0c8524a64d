"""Reads completions with human labels, which keyword lists are compared with."""

from pathlib import Path

from sweeper.data.csv_file import Record
from sweeper.data.files import read_csv
from sweeper.errors import DataError
from sweeper.keywords.evaluation import LabelledCompletion

COLUMNS = ("prompt", "completion", "final_label")
"""The required columns of a labelled file; other columns are ignored."""

LABELS = {"1": False, "2": True, "3": True}
"""Leading digit of a label (`1_full_compliance`, `2_full_refusal`, `3_partial_refusal`) -> refusal?"""


def read_labelled(path: Path) -> list[LabelledCompletion]:
    """Read a CSV with the columns `prompt`, `completion` and `final_label`, in UTF-8.

    Raises:
        DataError: missing, unreadable or malformed (see `csv_file.csv_records`), a missing column, an
            unknown label (with its line), or no rows.
    """
    records = read_csv(path)
    if not records:
        raise DataError(
            f"{path}: the file has no rows; expected one labelled completion per row",
            code="data.empty",
            path=path,
        )
    columns = records[0].cells
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{path}: no column `{'`, `'.join(missing)}`; it has {', '.join(columns)}; "
            f"expected {', '.join(COLUMNS)}",
            code="data.missing_column",
            path=path,
            columns=missing,
        )
    return [
        LabelledCompletion(record.cells["completion"], _is_refusal(path, record))
        for record in records
    ]


def _is_refusal(path: Path, record: Record) -> bool:
    label = record.cells["final_label"].strip()
    refusal = LABELS.get(label.partition("_")[0])
    if refusal is None:
        raise DataError(
            f"{path}:{record.line}: unknown label {label!r}; expected 1_full_compliance, 2_full_refusal or "
            "3_partial_refusal",
            code="data.unknown_label",
            path=path,
            line=record.line,
            label=label,
        )
    return refusal
