"""Candidates, rates and probabilities as recommendations say them."""

from sweeper.analysis.candidate import CANDIDATE_ROLE, Candidate, describe, varying
from sweeper.analysis.front import Front
from sweeper.spec import ConstraintSpec


def rate_text(item: Candidate, metric: str) -> str:
    """`unsafe_rate 2/256 = 0.8 % (95 % interval 0.2 to 2.8 %)`; one count for each seed."""
    interval, counts = item.interval(metric), item.counts(metric)
    if interval is None or metric not in item.values:
        return f"{metric} not measured"
    return (
        f"{metric} {counts} = {100 * item.values[metric]:.1f} % "
        f"(95 % interval {100 * interval.low:.1f} to {100 * interval.high:.1f} %)"
    )


def constraint_text(item: Candidate, index: int, constraint: ConstraintSpec) -> str:
    """`P(unsafe_rate <= 0.05) = 0.998`, or that the rate was not measured under every seed."""
    if constraint.metric not in item.values:
        return f"{constraint.metric} <= {constraint.max:g}: not measured"
    return f"P({constraint.metric} <= {constraint.max:g}) = {_share(item.probabilities[index])}"


def _share(probability: float) -> str:
    """Three digits, and never a rounded certainty."""
    if 0.9995 <= probability < 1:
        return "more than 0.999"
    return f"{probability:.3f}"


def valued(item: Candidate, front: Front) -> str:
    """`3f2a... (learning_rate 0.002, max_steps 40)`: the id, and what varies over the space."""
    values = describe(item.config, varying(front.candidates, CANDIDATE_ROLE))
    return f"{item.config_id} ({values})" if values else item.config_id
