"""Which configurations a page lists one by one, where a sweep has more than a browser can handle."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from sweeper.analysis import Candidate, Certainty, Front, Recommendation, side_by_side
from sweeper.report.related import RelatedConfigurations
from sweeper.spec import ResultsSpec

MOST = 10_000
"""The most configurations in the table and the charts of single configurations; pages stay below 15 MB."""


class Listing(NamedTuple):
    """The front with the configurations that a page lists, and those of the whole sweep.

    `listed` has the members of the whole, and of its candidates a part, all where `note` is empty. What
    counts, averages or compares many configurations is about `whole`. `metrics` are those of the table.
    """

    listed: Front
    whole: Front
    certainty: Certainty
    metrics: tuple[str, ...]
    note: str


def make_listing(
    front: Front,
    found: Recommendation,
    spec: ResultsSpec,
    certainty: Certainty,
    metrics: Sequence[str] = (),
    most: int | None = None,
) -> Listing:
    """List all of a sweep, or the front, the recommended one, what it is compared with, then the safest.

    Always listed are the members of the front, what `recommend` names, and the configurations without
    averaging beside each of them. The rest follows by the unsafe rate, lowest first, with a gain over the
    untouched model before without, incomplete ones last, up to `most`.
    """
    most = MOST if most is None else most
    if len(front.candidates) <= most:
        return Listing(front, front, certainty, tuple(metrics), "")
    first = [*front.members, *(item for _, item in side_by_side(found))]
    raws = [item for item in front.candidates if item.config.get("average") == "raw"]
    related = RelatedConfigurations(raws)
    twins = [raw for item in first for raw in related.twins(item)]
    ids = dict.fromkeys(item.config_id for item in (*first, *twins))
    rest = sorted(
        (i for i in front.candidates if i.config_id not in ids), key=lambda i: _rank(i, spec)
    )
    ids |= dict.fromkeys(item.config_id for item in rest[: max(0, most - len(ids))])
    listed = front._replace(candidates=tuple(i for i in front.candidates if i.config_id in ids))
    return Listing(
        listed,
        front,
        certainty,
        tuple(metrics),
        f"Listed here are {len(listed.candidates):,} of {len(front.candidates):,} configurations: the "
        "front, the recommended one and its controls, all of these without averaging, and then the "
        "safest with a gain. Numbers about many configurations are about all.",
    )


def _rank(candidate: Candidate, spec: ResultsSpec) -> tuple[bool, bool, float, float, str]:
    """The safest with a gain first; incomplete ones last."""
    sign = 1 if spec.utility.direction == "minimize" else -1
    return (
        candidate.excluded is not None,
        candidate.gain is False,
        candidate.values.get("unsafe_rate", math.inf),
        sign * candidate.values.get(spec.utility.metric, -sign * math.inf),
        candidate.config_id,
    )
