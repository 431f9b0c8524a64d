"""What can be chosen for the charts of one setting, and of two settings, against one metric."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.analysis import CANDIDATE_ROLE, Front, Recommendation, varying
from sweeper.report.figures.levels import MOST_LEVELS
from sweeper.spec import ResultsSpec

FACETS = 4
"""The most values of a setting that can be shown side by side."""

PANELS = 9
"""The most heat maps side by side."""


def slice_block(
    front: Front, spec: ResultsSpec, metrics: Sequence[str], found: Recommendation
) -> dict[str, Any] | None:
    """Settings that vary over what was searched, those that can be shown side by side, metrics and limits.

    None where no setting varies. The script takes the values from the table. `maps` is what can be chosen
    for heat maps, around the recommended (or nearest) configuration.

    Args:
        front: Of the sweep.
        spec: Of the sweep.
        found: The recommendation.
        metrics: The measured ones, in order.
    """
    settings = varying(front.candidates, CANDIDATE_ROLE)
    if not settings or not metrics:
        return None
    searched = [item.config for item in front.candidates if item.role == CANDIDATE_ROLE]
    counts = {n: len({str(config.get(n)) for config in searched}) for n in settings}
    first = "learning_rate" if "learning_rate" in settings else settings[0]
    shown = spec.safety.metric if spec.safety.metric in metrics else metrics[0]
    centre = found.chosen or found.nearest
    which = "recommended" if found.chosen else "nearest"
    maps = None if centre is None else _maps(counts, centre.config_id, which)
    return {
        "maps": maps,
        "settings": [first, *(name for name in settings if name != first)],
        "facets": [name for name in settings if counts[name] <= FACETS],
        "metrics": [shown, *(name for name in metrics if name != shown)],
        "limits": {rule.metric: rule.max for rule in spec.constraints},
    }


def _maps(counts: Mapping[str, int], centre: str, which: str) -> dict[str, Any] | None:
    """Settings of two to MOST_LEVELS values; None where there is no pair of them."""
    settings = [name for name, count in counts.items() if 2 <= count <= MOST_LEVELS]
    if len(settings) < 2:
        return None
    preferred = ("learning_rate", "batch_size", "average", "max_steps")
    y, x, *rest = sorted(settings, key=lambda n: preferred.index(n) if n in preferred else 4)
    facets = [name for name in settings if counts[name] <= PANELS]
    facet = next((name for name in rest if name in facets), "")
    return {
        "centre": centre,
        "which": which,
        "settings": settings,
        "facets": facets,
        "x": x,
        "y": y,
        "facet": facet,
    }
