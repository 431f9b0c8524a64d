"""Front + policy -> recommendation: why this configuration, what it beat, how sure that is."""

from sweeper.select.policies import NAMES, Policy, policy_of, unsafe_upper_bound
from sweeper.select.recommend import (
    Contrast,
    Recommendation,
    comparison,
    multiplicity,
    recommend,
)
from sweeper.select.shortfall import prompts_needed
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
    "Contrast",
    "Policy",
    "Recommendation",
    "comparison",
    "feedback_of",
    "interpolation_twin",
    "learning_rate_twin",
    "multiplicity",
    "policy_of",
    "prompts_needed",
    "rate_text",
    "raw_twin",
    "recommend",
    "trainers_default",
    "unsafe_upper_bound",
]
