"""What can be chosen for the chart of one setting against one metric."""

from collections.abc import Sequence
from typing import Any

from sweeper.analysis import CANDIDATE_ROLE, Front, varying
from sweeper.spec import SweepSpec

FACETS = 4
"""The most values of a setting that can be shown side by side."""


def slice_block(front: Front, spec: SweepSpec, metrics: Sequence[str]) -> dict[str, Any] | None:
    """Settings that vary over what was searched, those that can be shown side by side, metrics and limits.

    None where no setting varies. The script takes the values from the table.

    Args:
        front: Of the sweep.
        spec: Of the sweep.
        metrics: The measured ones, in order.
    """
    settings = varying(front.candidates, CANDIDATE_ROLE)
    if not settings or not metrics:
        return None
    searched = [item.config for item in front.candidates if item.role == CANDIDATE_ROLE]
    counts = {n: len({str(config.get(n)) for config in searched}) for n in settings}
    first = "learning_rate" if "learning_rate" in settings else settings[0]
    shown = "unsafe_rate" if "unsafe_rate" in metrics else metrics[0]
    return {
        "settings": [first, *(name for name in settings if name != first)],
        "facets": [name for name in settings if counts[name] <= FACETS],
        "metrics": [shown, *(name for name in metrics if name != shown)],
        "limits": {rule.metric: rule.max for rule in spec.constraints},
    }
