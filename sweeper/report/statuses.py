"""How the records of a sweep ended, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sweeper.analysis import reason_text
from sweeper.store.records import STATUSES, TrialRecord


class End(NamedTuple):
    """How many records ended in one way, and why, most frequent reason first."""

    status: str
    records: int
    reasons: tuple[tuple[str, int], ...]


def statuses_of(records: Sequence[TrialRecord]) -> tuple[End, ...]:
    """Count them by status, in the order of STATUSES, each with its reasons."""
    ends = []
    for status in STATUSES:
        ended = [record for record in records if record.status == status]
        reasons = Counter(_why(record) for record in ended if status != "complete")
        ends.append(End(status, len(ended), tuple(reasons.most_common())))
    return tuple(ends)


def _why(record: TrialRecord) -> str:
    """The reason to count by: of what a rule stopped the rule, for no two have the same evidence."""
    reason = record.reason or {}
    return f"rule {reason['rule']}" if record.status == "pruned" else reason_text(record)
