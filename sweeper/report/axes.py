"""What the axes and colours of the trade-off can be, where more than two metrics decide."""

from typing import Any

from sweeper.analysis import CANDIDATE_ROLE, Front, varying
from sweeper.spec import ResultsSpec


def axis_block(front: Front, spec: ResultsSpec) -> dict[str, Any] | None:
    """Objectives and metrics with a limit, for the page's script; None where there are only two.

    `metrics` are `[name, whether more is better, limit or null]`, the axes of the first figure in front;
    `eligible` are the complete configurations that keep every constraint, of which a front is drawn, and
    `members` those on the front in all objectives. The script takes the values from the table.
    """
    maximize = {rule.metric: False for rule in spec.constraints}
    maximize |= {item.metric: item.direction == "maximize" for item in spec.objectives}
    limits = {rule.metric: rule.max for rule in spec.constraints}
    measured = {name for item in front.competing for name in item.values}
    safety = spec.safety.metric
    names = dict.fromkeys((safety, spec.utility.metric, *maximize))
    metrics = [n for n in names if n in measured]
    if len(metrics) < 3 or metrics[:2] != [safety, spec.utility.metric]:
        return None
    settings = varying(front.candidates, CANDIDATE_ROLE)
    return {
        "metrics": [[n, maximize.get(n, False), limits.get(n)] for n in metrics],
        "objectives": [item.metric for item in spec.objectives],
        "colour": "learning_rate" if "learning_rate" in settings else "",
        "eligible": [item.config_id for item in front.competing if item.feasible],
        "members": [item.config_id for item in front.members],
    }
