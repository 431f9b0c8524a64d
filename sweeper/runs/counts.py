"""How many records a run has, of how many, and what is left to do of it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sweeper.analysis import SAFEST_USEFUL, Candidate, find_front
from sweeper.errors import RunFolderError, SweeperError
from sweeper.planning import Point, make_plan, trajectory_axes
from sweeper.search.refine import has_refinement_left
from sweeper.search.rounds import already_suggested
from sweeper.spec import ResultsSpec, SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records
from sweeper.sweep.decision import is_decided, lay_out, stage_folder


class Counts(NamedTuple):
    """Records there are, planned, and failed among those there are."""

    records: int
    planned: int
    failed: int

    @property
    def complete(self) -> bool:
        """Whether all that are planned so far are there; more may follow, see `left_to_do`."""
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


def missing_of(
    folder: RunFolder, spec: ResultsSpec, candidates: Sequence[Candidate]
) -> tuple[str, ...]:
    """What is missing of a run whose search is not finished, in a sentence; none of any other.

    Args:
        folder: Of the run; without a sound plan.json nothing is known.
        spec: Of the run.
        candidates: All of its search.

    Raises:
        SweeperError: its files are damaged.
    """
    if not isinstance(spec, SweepSpec):
        return ()
    records = [record for item in candidates for record in item.records]
    try:
        planned = folder.planned_records()
    except RunFolderError:
        return ()
    if len(records) < planned:
        return (f"So far {len(records):,} of {planned:,} records: the answer may change.",)
    if _is_searching(folder, spec, records):
        return ("The search is not finished: the answer may change.",)
    return ()


def left_to_do(folder: RunFolder, spec: ResultsSpec, records: Sequence[TrialRecord]) -> str:
    """What a run without a driver would go on with if it were resumed, in words; empty if it is over.

    It is over when its search is exhausted and its decision, if it has one, is made or there is nothing
    to decide. Records alone do not tell: a search, further seeds and a decision plan their next round
    from what is measured. The last of these questions take an analysis of the records.

    Args:
        folder: Of the run.
        spec: Of the run.
        records: Those of its search.

    Raises:
        SweeperError: its files are damaged.
    """
    if not isinstance(spec, SweepSpec):
        return ""
    if len(records) < folder.planned_records() or _is_searching(folder, spec, records):
        return "its search is not finished"
    points = already_suggested(folder)
    if spec.search.refine is not None and has_refinement_left(spec, folder, points or None):
        return "its further seeds are not all measured"
    return _left_of_decision(folder, spec, records)


def _is_searching(folder: RunFolder, spec: SweepSpec, records: Sequence[TrialRecord]) -> bool:
    """Whether an adaptive search has further rounds."""
    if spec.search.method != "optuna":
        return False
    return not _exhausted(spec, already_suggested(folder), records)


def _exhausted(spec: SweepSpec, points: Sequence[Point], records: Sequence[TrialRecord]) -> bool:
    """Whether an adaptive search has suggested all it will, and all of that is measured."""
    listed = [axis.values for axis in trajectory_axes(spec).values()]
    size = math.prod(math.inf if values is None else len(values) for values in listed)
    known = {record.key for record in records}
    enough = len(points) >= min(spec.search.n_trials or 0, size)
    return enough and make_plan(spec, points or None).keys() <= known


def _left_of_decision(folder: RunFolder, spec: SweepSpec, records: Sequence[TrialRecord]) -> str:
    counts, stage = decision_counts(folder), stage_folder(folder, SAFEST_USEFUL)
    if counts is None and (not spec.decide or stage.undecidable.exists()):
        return ""
    if counts is not None and not counts.complete:
        return "its decision is not finished"
    try:
        found = lay_out(folder, spec, find_front(records, spec))
        if isinstance(found, str) or is_decided(found):
            return ""
    except SweeperError:  # Such as begun with other seeds than the sweep asks for now: not over.
        pass
    return f"its decision {'has not begun' if counts is None else 'is not finished'}"
