"""How many records a run has, of how many."""

from typing import NamedTuple

from sweeper.analysis import SAFEST_USEFUL
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep.decision import stage_folder


class Counts(NamedTuple):
    """Records there are, planned, and failed among those there are."""

    records: int
    planned: int
    failed: int

    @property
    def complete(self) -> bool:
        """Whether all that are planned are there."""
        return self.records >= self.planned


def counts_of(folder: RunFolder) -> Counts:
    """The counts of a search, or of a decision by its own folder."""
    records = read_records(folder.records).records
    failed = sum(record.status == "failed" for record in records)
    return Counts(len(records), folder.planned_records(), failed)


def decision_counts(folder: RunFolder) -> Counts | None:
    """The counts of this round of a run's decision; None before it has begun."""
    stage = stage_folder(folder, SAFEST_USEFUL)
    return counts_of(stage) if stage.info.exists() else None
