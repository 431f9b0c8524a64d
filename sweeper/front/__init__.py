"""Records of one sweep gathered into candidates, compared, and the front among them."""

from sweeper.front.candidate import (
    BASE_ROLE,
    CANDIDATE_ROLE,
    Candidate,
    describe,
    loss,
    losses,
    reason_text,
    shown,
    varying,
)
from sweeper.front.dominance import non_dominated
from sweeper.front.find import GAIN_CONFIDENCE, UNTOUCHED, Front, find_front
from sweeper.front.lookup import find_candidate
from sweeper.front.pairs import (
    Gap,
    gap,
    has_verdicts,
    interval_of_mean,
    interval_of_verdicts,
    lower_bound_of,
    rows_of,
)

__all__ = [
    "BASE_ROLE",
    "CANDIDATE_ROLE",
    "GAIN_CONFIDENCE",
    "UNTOUCHED",
    "Candidate",
    "Front",
    "Gap",
    "describe",
    "find_candidate",
    "find_front",
    "gap",
    "has_verdicts",
    "interval_of_mean",
    "interval_of_verdicts",
    "loss",
    "losses",
    "lower_bound_of",
    "non_dominated",
    "reason_text",
    "rows_of",
    "shown",
    "varying",
]
