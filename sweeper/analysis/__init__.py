"""The front, how certain it is, and the choice: numpy and plain records, no torch."""

from sweeper.analysis.candidate import (
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
from sweeper.analysis.dominance import non_dominated
from sweeper.analysis.front import GAIN_CONFIDENCE, UNTOUCHED, Front, find_front
from sweeper.analysis.lookup import find_candidate
from sweeper.analysis.membership import (
    DRAWS,
    OFF,
    ON,
    Certainty,
    FrontMembership,
    Volume,
    front_certainty,
)
from sweeper.analysis.paired_tests import (
    Comparison,
    Measured,
    Setting,
    compare,
    contrasts,
    controls,
    metric_names,
)
from sweeper.analysis.pairs import (
    Gap,
    gap,
    has_verdicts,
    interval_of_verdicts,
    lower_bound_of,
    rows_of,
)
from sweeper.analysis.policies import NAMES, UNSAFE, Policy, asked, policy_of, unsafe_upper_bound
from sweeper.analysis.recommend import (
    SAFEST_USEFUL,
    Contrast,
    Recommendation,
    comparison,
    multiplicity,
    recommend,
)
from sweeper.analysis.shortfall import prompts_needed, unmet
from sweeper.analysis.twins import (
    feedback_of,
    interpolation_twin,
    learning_rate_twin,
    raw_twin,
    trainers_default,
)
from sweeper.analysis.wording import rate_text

__all__ = [
    "BASE_ROLE",
    "CANDIDATE_ROLE",
    "DRAWS",
    "GAIN_CONFIDENCE",
    "NAMES",
    "OFF",
    "ON",
    "SAFEST_USEFUL",
    "UNSAFE",
    "UNTOUCHED",
    "Candidate",
    "Certainty",
    "Comparison",
    "Contrast",
    "Front",
    "FrontMembership",
    "Gap",
    "Measured",
    "Policy",
    "Recommendation",
    "Setting",
    "Volume",
    "asked",
    "compare",
    "comparison",
    "contrasts",
    "controls",
    "describe",
    "feedback_of",
    "find_candidate",
    "find_front",
    "front_certainty",
    "gap",
    "has_verdicts",
    "interpolation_twin",
    "interval_of_verdicts",
    "learning_rate_twin",
    "loss",
    "losses",
    "lower_bound_of",
    "metric_names",
    "multiplicity",
    "non_dominated",
    "policy_of",
    "prompts_needed",
    "rate_text",
    "raw_twin",
    "reason_text",
    "recommend",
    "rows_of",
    "shown",
    "trainers_default",
    "unmet",
    "unsafe_upper_bound",
    "varying",
]
