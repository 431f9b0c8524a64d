"""Measured values in tables and lines of the terminal."""

from sweeper.analysis import Candidate
from sweeper.spec import SweepSpec


def objectives_text(candidate: Candidate, spec: SweepSpec) -> str:
    """`rouge_l 0.412, unsafe_rate 0.008 (2/256)`."""
    parts = []
    for objective in spec.objectives:
        counts = candidate.counts(objective.metric)
        suffix = f" ({counts})" if counts else ""
        parts.append(f"{objective.metric} {value_text(candidate, objective.metric)}{suffix}")
    return ", ".join(parts)


def value_text(candidate: Candidate, metric: str) -> str:
    """A metric as shown in tables."""
    value = candidate.values.get(metric)
    return "not measured" if value is None else f"{value:.3f}"
