"""Records, fronts and responses as DataFrames, and DataFrames as CSV and as small HTML tables."""

import csv
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.analysis import Candidate, Certainty
from sweeper.runs.fields import encodable
from sweeper.store.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

HTML_ROWS = 10
"""Rows of a table shown in a notebook; `frame()` has all of them."""

LONGEST_TEXT = 60
"""Characters of a text in a table of a notebook."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First characters of a cell that a spreadsheet may execute as a formula (OWASP, CSV injection)."""


def records_frame(records: Iterable[TrialRecord]) -> "pd.DataFrame":
    """One row per record: ids, hyperparameters, readout, and for each metric value, k and n.

    Columns of a metric are `unsafe_rate`, `unsafe_rate.k`, `unsafe_rate.n`, of a judge's rate also
    `unsafe_rate.unanswered`. What was not measured is missing (NaN), never zero.
    """
    return _frame(map(_record, records))


def candidates_frame(
    candidates: Iterable[Candidate], metrics: Sequence[str], certainty: Certainty
) -> "pd.DataFrame":
    """One row per configuration: hyperparameters, means over seeds with 95 % intervals, front membership.

    Columns of a metric are `unsafe_rate`, `unsafe_rate.low`, `unsafe_rate.high`; the interval is the
    envelope of the seeds' intervals, missing for what is no mean over prompts or rows.
    """
    return _frame(_candidate(item, metrics, certainty) for item in candidates)


def csv_text(frame: "pd.DataFrame") -> str:
    """A frame as CSV without spreadsheet formulas: a text that could be one is prefixed with a quote.

    Numbers stay numbers, and every text stands in quotation marks, names of columns included.
    """
    plain = frame.map(_cell).rename(columns=_cell)
    return str(plain.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC))


def html_table(title: str, frame: "pd.DataFrame") -> str:
    """A title and the first rows of a frame, escaped, as a table that fits a notebook.

    Long texts are cut, constant columns are left out, and an interval follows its value in one cell.
    """
    if frame.empty:
        return f"<p>{html.escape(title)}</p>"
    if len(frame) > 1:
        frame = frame.loc[:, [len(set(map(str, frame[name]))) > 1 for name in frame]]
    cut = _with_intervals(frame.head(HTML_ROWS).map(_short)).rename(columns=_short)
    more = len(frame) - HTML_ROWS
    below = f"<p>... and {more} more rows; frame() has all</p>" if more > 0 else ""
    table = cut.to_html(index=False, border=0, escape=True, na_rep="")
    return f"<p>{html.escape(title)}</p>{table}{below}"


def _frame(rows: Iterable[Mapping[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        [{encodable(name): encodable(value) for name, value in row.items()} for row in rows]
    )


def _record(record: TrialRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "config_id": record.config_id,
        "seed": record.seed,
        "role": record.role,
        "status": record.status,
        "trajectory_id": record.trajectory_id,
    }
    row |= record.config
    row |= {"step": record.readout["step"], "average": record.config.get("average", "raw")}
    for name, metric in record.metrics.items():
        row |= {name: metric.value, f"{name}.k": metric.k, f"{name}.n": metric.n}
        if (unanswered := record.unanswered(name)) is not None:
            row[f"{name}.unanswered"] = unanswered
    return row


def _candidate(
    candidate: Candidate, metrics: Sequence[str], certainty: Certainty
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "config_id": candidate.config_id,
        "role": candidate.role,
        "status": candidate.status,
    }
    row |= candidate.config
    for name in metrics:
        interval = candidate.interval(name) if name in candidate.values else None
        low, high = (None, None) if interval is None else interval
        row |= {name: candidate.values.get(name), f"{name}.low": low, f"{name}.high": high}
    place = certainty.memberships.get(candidate.config_id)
    return row | {
        "on_front": place is not None and place.on_front,
        "p_front": None if place is None else place.p_front,
        "p_front_upper": None if place is None else place.p_front_upper,
        "p_front_claim": None if place is None else place.claim,
        "front_membership": None if place is None else place.label,
    }


def _with_intervals(texts: "pd.DataFrame") -> "pd.DataFrame":
    """`unsafe_rate` as `0.0125 (0.00426 to 0.0361)`, in the place of three columns."""
    joined = texts.copy()
    for name in texts:
        low, high = f"{name}.low", f"{name}.high"
        if low in texts and high in texts:
            cells = zip(texts[name], texts[low], texts[high], strict=True)
            joined[name] = [f"{value} ({a} to {b})" if a and b else value for value, a, b in cells]
            joined = joined.drop(columns=[low, high])
    return joined


def _short(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple | dict):
        value = str(value)
    if not isinstance(value, str):
        return value
    return f"'{value}" if value.startswith(_FORMULA) else value
