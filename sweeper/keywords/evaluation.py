"""Measures the agreement of keyword lists with human labels, as counts with confidence intervals."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import DataError
from sweeper.keywords.lists import KeywordList, is_degenerate
from sweeper.stats import Interval, wilson_interval

COLUMNS = ("prompt", "completion", "final_label")
"""The required columns of a labelled file; other columns are ignored."""

LABELS = {"1": False, "2": True, "3": True}
"""Leading digit of a label (`1_full_compliance`, `2_full_refusal`, `3_partial_refusal`) -> refusal?"""


class LabelledCompletion(NamedTuple):
    """One completion, and whether its label is a full or partial refusal."""

    completion: str
    refusal: bool


class Proportion(NamedTuple):
    """k of n, with its rate and its 95 % Wilson interval; both are None if n is 0."""

    k: int
    n: int

    @property
    def rate(self) -> float | None:
        """K / n, in [0, 1]."""
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> Interval | None:
        """The Wilson score interval of the rate."""
        return wilson_interval(self.k, self.n) if self.n else None


class Agreement(NamedTuple):
    """One list compared with the labels.

    `agreement` is over all judged completions, `false_refusals` over those labelled as compliance,
    `missed_refusals` over those labelled as refusals.
    """

    name: str
    agreement: Proportion
    false_refusals: Proportion
    missed_refusals: Proportion


class Evaluation(NamedTuple):
    """All lists, best agreement first, and the numbers of blank and repetitive completions (not judged)."""

    lists: tuple[Agreement, ...]
    empty: int
    degenerate: int


def read_labelled(path: Path) -> list[LabelledCompletion]:
    """Read a CSV with the columns `prompt`, `completion` and `final_label`, in UTF-8.

    Raises:
        DataError: missing or unreadable file, not UTF-8, malformed, a missing column, an unknown label
            (with its line), or no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_completions(path, csv.DictReader(file)))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; expected a CSV file of labelled completions",
            code="data.not_found",
            path=path,
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8",
            code="data.unreadable",
            path=path,
            byte=error.start,
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}", code="data.unreadable", path=path
        ) from None
    except csv.Error as error:
        raise DataError(
            f"{path}: malformed CSV: {error}", code="data.malformed", path=path
        ) from None
    if not rows:
        raise DataError(
            f"{path}: the file has no rows; expected one labelled completion per row",
            code="data.empty",
            path=path,
        )
    return rows


def _completions(path: Path, reader: "csv.DictReader[str]") -> Iterator[LabelledCompletion]:
    columns = reader.fieldnames or ()
    missing = [name for name in COLUMNS if name not in columns]
    if columns and missing:
        raise DataError(
            f"{path}: no column `{'`, `'.join(missing)}`; it has {', '.join(columns)}; "
            f"expected {', '.join(COLUMNS)}",
            code="data.missing_column",
            path=path,
            columns=missing,
        )
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{path}:{reader.line_num}: expected {len(columns)} cells in each row",
                code="data.malformed",
                path=path,
                line=reader.line_num,
            )
        yield LabelledCompletion(row["completion"], _is_refusal(path, reader.line_num, row))


def _is_refusal(path: Path, line: int, row: Mapping[str, str]) -> bool:
    label = row["final_label"].strip()
    refusal = LABELS.get(label.partition("_")[0])
    if refusal is None:
        raise DataError(
            f"{path}:{line}: unknown label {label!r}; expected 1_full_compliance, 2_full_refusal or "
            "3_partial_refusal",
            code="data.unknown_label",
            path=path,
            line=line,
            label=label,
        )
    return refusal


def evaluate_lists(rows: Sequence[LabelledCompletion], lists: Iterable[KeywordList]) -> Evaluation:
    """Compare the verdicts of each list with human labels.

    Blank and repetitive completions (`is_degenerate`) are counted separately and excluded from all rates.

    Raises:
        DataError: every completion is blank or repetitive.
    """
    empty = sum(not row.completion.strip() for row in rows)
    judged = [row for row in rows if not is_degenerate(row.completion)]
    if not judged:
        raise DataError(
            f"all {len(rows)} completions are blank or repetitive; nothing to judge",
            code="data.empty",
            completions=len(rows),
        )
    agreements = [_agreement(judge, judged) for judge in lists]
    agreements.sort(key=lambda item: (-item.agreement.k, item.name))
    return Evaluation(tuple(agreements), empty, len(rows) - len(judged) - empty)


def _agreement(judge: KeywordList, rows: Sequence[LabelledCompletion]) -> Agreement:
    verdicts = [judge.verdict(row.completion).refusal for row in rows]
    false = sum(verdict and not row.refusal for verdict, row in zip(verdicts, rows, strict=True))
    missed = sum(row.refusal and not verdict for verdict, row in zip(verdicts, rows, strict=True))
    refusals = sum(row.refusal for row in rows)
    return Agreement(
        judge.name,
        Proportion(len(rows) - false - missed, len(rows)),
        Proportion(false, len(rows) - refusals),
        Proportion(missed, refusals),
    )
