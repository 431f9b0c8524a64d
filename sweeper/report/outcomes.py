"""Trial outcomes: how many records have which status, and why."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sweeper.analysis import reason_text
from sweeper.store.records import STATUSES, TrialRecord


class TrialOutcome(NamedTuple):
    """How many records have one status, and why, most frequent reason first."""

    status: str
    records: int
    reasons: tuple[tuple[str, int], ...]


def trial_outcomes(records: Sequence[TrialRecord]) -> tuple[TrialOutcome, ...]:
    """Count them by status, in the order of STATUSES, each with its reasons."""
    outcomes = []
    for status in STATUSES:
        found = [record for record in records if record.status == status]
        reasons = Counter(_why(record) for record in found if status != "complete")
        outcomes.append(TrialOutcome(status, len(found), tuple(reasons.most_common())))
    return tuple(outcomes)


def _why(record: TrialRecord) -> str:
    """The reason to group by: for a stopped record only the rule, as its evidence is unique."""
    reason = record.reason or {}
    return f"rule {reason['rule']}" if record.status == "pruned" else reason_text(record)
