"""Measured values in lines of the terminal."""

from sweeper.analysis import Candidate, measured_text
from sweeper.spec import ResultsSpec


def objectives_text(candidate: Candidate, spec: ResultsSpec) -> str:
    """`rouge_l 0.412, unsafe_rate 0.8 % (2/256)`."""
    return ", ".join(
        f"{objective.metric} {measured_text(candidate, objective.metric)}"
        for objective in spec.objectives
    )
