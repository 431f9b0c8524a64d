"""Two to four configurations side by side: what differs, what was measured, the tests between them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sweeper.analysis.candidate import BASE_ROLE, Candidate
from sweeper.analysis.paired_tests import PairedDifference, paired_difference
from sweeper.errors import SweeperError
from sweeper.spec import ResultsSpec

MOST = 4
"""The most configurations that are compared at once."""


class Setting(NamedTuple):
    """One hyperparameter over the compared configurations; None where one does not have it."""

    name: str
    values: tuple[Any, ...]
    differs: bool


class Measured(NamedTuple):
    """One metric over the compared configurations.

    `differences` are each of the others minus the first, None where one of the two was not measured; see
    `paired_difference`.
    """

    metric: str
    differences: tuple[PairedDifference | None, ...]


class Comparison(NamedTuple):
    """Configurations side by side, the first being what the others are compared with.

    `metrics` begin with the objectives and constraints, in the order of the spec. `notes` are the caveats.
    """

    items: tuple[Candidate, ...]
    settings: tuple[Setting, ...]
    metrics: tuple[Measured, ...]
    notes: tuple[str, ...]


def compare_configurations(
    items: Sequence[Candidate], spec: ResultsSpec, among: Sequence[Candidate] = ()
) -> Comparison:
    """Put two to four configurations of one sweep side by side.

    `among` are all candidates of the sweep, see `paired_difference`.

    Raises:
        SweeperError: fewer, more, or one twice.
    """
    ids = [item.config_id for item in items]
    if not 2 <= len(items) <= MOST or len(set(ids)) < len(ids):
        raise SweeperError(
            f"2 to {MOST} different configurations can be compared, but got {', '.join(ids) or 'none'}"
        )
    first, *others = items
    return Comparison(
        items=tuple(items),
        settings=_settings(items),
        metrics=tuple(
            Measured(
                name, tuple(paired_difference(other, first, name, among=among) for other in others)
            )
            for name in metric_names(items, spec)
        ),
        notes=_notes(items),
    )


def metric_names(items: Sequence[Candidate], spec: ResultsSpec) -> tuple[str, ...]:
    """Every metric that one of the candidates has, objectives and constraints first."""
    judged = [item.metric for item in spec.objectives] + [item.metric for item in spec.constraints]
    have = {name for item in items for record in item.records for name in record.metrics}
    return tuple(dict.fromkeys([*judged, *sorted(have)]))


def _settings(items: Sequence[Candidate]) -> tuple[Setting, ...]:
    """In config order; settings of training do not count as differences for the untouched model."""
    names = dict.fromkeys(name for item in items for name in item.config)
    found = []
    for name in names:
        values = tuple(item.config.get(name) for item in items)
        trained = [item.config.get(name) for item in items if item.role != BASE_ROLE]
        found.append(Setting(name, values, len({repr(v) for v in trained}) > 1))
    return tuple(found)


def _notes(items: Sequence[Candidate]) -> tuple[str, ...]:
    notes = [
        "intervals and p-values are not corrected for choosing these configurations among others"
    ]
    if len({item.seeds for item in items}) > 1:
        notes.append("not all were trained under the same seeds")
    if any(len(item.seeds) == 1 for item in items if item.role != BASE_ROLE):
        notes.append(
            "one seed: differences are between these weights, and do not include the variation between "
            "training runs"
        )
    notes += [
        f"{item.config_id} is not complete: {item.excluded}"
        for item in items
        if item.excluded is not None and item.role != BASE_ROLE
    ]
    return tuple(notes)
