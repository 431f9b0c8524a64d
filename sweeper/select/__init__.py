"""Front + policy -> recommendation: why this configuration, what it beat, how sure that is."""

from sweeper.select.compare import (
    Comparison,
    Measured,
    Setting,
    compare,
    contrasts,
    controls,
    metric_names,
)
from sweeper.select.policies import NAMES, UNSAFE, Policy, asked, policy_of, unsafe_upper_bound
from sweeper.select.recommend import (
    SAFEST_USEFUL,
    Contrast,
    Recommendation,
    comparison,
    multiplicity,
    recommend,
)
from sweeper.select.shortfall import prompts_needed, unmet
from sweeper.select.twins import (
    feedback_of,
    interpolation_twin,
    learning_rate_twin,
    raw_twin,
    trainers_default,
)
from sweeper.select.wording import rate_text

__all__ = [
    "NAMES",
    "SAFEST_USEFUL",
    "UNSAFE",
    "Comparison",
    "Contrast",
    "Measured",
    "Policy",
    "Recommendation",
    "Setting",
    "asked",
    "compare",
    "comparison",
    "contrasts",
    "controls",
    "feedback_of",
    "interpolation_twin",
    "learning_rate_twin",
    "metric_names",
    "multiplicity",
    "policy_of",
    "prompts_needed",
    "rate_text",
    "raw_twin",
    "recommend",
    "trainers_default",
    "unmet",
    "unsafe_upper_bound",
]
