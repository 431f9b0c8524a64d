"""Measures the agreement of keyword lists with human labels, as counts with confidence intervals."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sweeper.errors import DataError
from sweeper.keywords.lists import KeywordList, is_degenerate
from sweeper.stats import Interval, wilson_interval


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
