"""What would be recommended if the limit of the unsafe rate, or the demanded confidence, were another."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import SAFEST_USEFUL, Candidate, find_front, measured_text, name_of
from sweeper.analysis.policies import qualified
from sweeper.analysis.recommend import surely_qualified
from sweeper.analysis.selection import Selection
from sweeper.spec import ResultsSpec
from sweeper.store.records import TrialRecord

LIMITS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5)
CONFIDENCES = (0.8, 0.9, 0.95, 0.99)
MOST = 2_000
"""Above this many records nothing is worked out: each pair of a limit and a confidence takes a second."""


class Choice(NamedTuple):
    """What is recommended at a limit and a confidence; `chosen` is None where nothing is."""

    limit: float
    confidence: float
    chosen: Candidate | None
    front: tuple[str, ...]


def choices(records: Iterable[TrialRecord], spec: ResultsSpec) -> tuple[Choice, ...]:
    """The recommendation of the search for each pair of LIMITS and CONFIDENCES and those of the spec.

    They follow the rules of `sweeper recommend`: qualified candidates, best first, of which the first is
    taken that keeps every constraint with the correction for all that were compared.

    Args:
        records: Of the search.
        spec: Of the sweep; without a limit of the unsafe rate there is no choice.
    """
    records = tuple(records)
    own = next((c for c in spec.constraints if c.metric == spec.safety.metric), None)
    if own is None or len(records) > MOST:
        return ()
    found: list[Choice] = []
    drawn: dict[Any, Any] = {}
    for limit in sorted({*LIMITS, own.max}):
        for confidence in sorted({*CONFIDENCES, own.confidence}):
            changed = own.model_copy(update={"max": limit, "confidence": confidence})
            rules = [changed if rule is own else rule for rule in spec.constraints]
            asked = spec.model_copy(update={"constraints": rules})
            front = find_front(records, asked)
            ranked = qualified(front, asked, SAFEST_USEFUL)
            selection = Selection(front, asked, drawn)
            sure = surely_qualified(ranked, selection, asked, SAFEST_USEFUL)
            members = tuple(item.config_id for item in front.members)
            found.append(Choice(limit, confidence, sure[0] if sure else None, members))
    return tuple(found)


def choice_block(
    records: Iterable[TrialRecord], spec: ResultsSpec, names: Sequence[str]
) -> dict[str, Any] | None:
    """The choices for the page's script; None where there are none.

    `choices` are `[id or null, front]` by limit, then confidence; `said` has the words for each id: its
    name, unsafe rate and utility.

    Args:
        records: Of the search.
        spec: Of the sweep.
        names: The hyperparameters that vary.
    """
    found = choices(records, spec)
    own = next((c for c in spec.constraints if c.metric == spec.safety.metric), None)
    if not found or own is None:
        return None
    items = {c.chosen.config_id: c.chosen for c in found if c.chosen is not None}
    utility = spec.utility.metric
    said = {
        identity: [
            name_of(item, names),
            *(
                measured_text(item, metric, interval=True)
                for metric in (spec.safety.metric, utility)
            ),
        ]
        for identity, item in items.items()
    }
    return {
        "limits": sorted({c.limit for c in found}),
        "confidences": sorted({c.confidence for c in found}),
        "limit": own.max,
        "confidence": own.confidence,
        "safety": spec.safety.metric,
        "utility": utility,
        "choices": [[c.chosen.config_id if c.chosen else None, list(c.front)] for c in found],
        "said": said,
    }
