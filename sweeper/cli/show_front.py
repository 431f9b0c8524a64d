"""What `sweeper front` prints: the front by its estimates, and how certain each membership is."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from sweeper.analysis import (
    CANDIDATE_ROLE,
    OFF,
    ON,
    Candidate,
    Certainty,
    Front,
    Volume,
    shown,
    varying,
)
from sweeper.cli import show
from sweeper.metrics import SAFETY_METRICS
from sweeper.spec import SweepSpec

MOST_OTHERS = 10
"""So many configurations that may be on the front, but are not by their estimates, are listed."""


def front(found: Front, certainty: Certainty, spec: SweepSpec) -> None:
    """The front, best utility first, then those that may belong to it, most probable first."""
    names = varying(found.candidates, CANDIDATE_ROLE)
    table = Table(title="Pareto front", title_justify="left")
    table.add_column("configuration")
    for name in names:
        table.add_column(name, justify="right")
    for objective in spec.objectives:
        table.add_column(objective.metric, justify="right")
    table.add_column("95 % interval", justify="right")
    for name in ("estimate", "P(front)", "membership"):
        table.add_column(name, justify="right")
    others = _others(found, certainty)
    for item in found.members:
        table.add_row(*_cells(item, names, certainty, spec))
    if found.members:
        table.add_section()
    for item in others[:MOST_OTHERS]:
        table.add_row(*_cells(item, names, certainty, spec))
    show.fit(table)
    for text in _lines(found, certainty, len(others)):
        show.line(text)
    if found.base is not None:
        show.line(f"untouched base model: {show.measured_text(found.base, spec)}")


def _others(found: Front, certainty: Certainty) -> list[Candidate]:
    memberships = certainty.memberships
    others = [
        item
        for item in found.competing
        if not memberships[item.config_id].on_front and memberships[item.config_id].label != "off"
    ]
    return sorted(others, key=lambda item: (-memberships[item.config_id].p_front, item.config_id))


def _cells(
    item: Candidate, names: Sequence[str], certainty: Certainty, spec: SweepSpec
) -> list[str]:
    config = [shown(item.config[name]) for name in names]
    values = [show.value_text(item, objective.metric) for objective in spec.objectives]
    safety = next(o.metric for o in spec.objectives if o.metric in SAFETY_METRICS)
    interval = item.interval(safety)
    between = "" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"
    membership = certainty.memberships[item.config_id]
    place = ["on" if membership.on_front else "off", f"{membership.p_front:.3f}", membership.label]
    return [escape(cell) for cell in (item.config_id, *config, *values, between, *place)]


def _lines(found: Front, certainty: Certainty, others: int) -> list[str]:
    lines = [
        f"{len(found.members)} on the front, of {len(found.competing)} complete configurations, by their "
        f"estimates; {len(found.trade_off)} on the trade-off curve without the constraints"
    ]
    if certainty.memberships:
        lines.append(
            f"by P(front): {certainty.count('on')} on (at least {ON:g}), "
            f"{certainty.count('uncertain')} uncertain, {certainty.count('off')} off (below {OFF:g}); "
            f"{certainty.draws} draws over prompts and seeds"
        )
    if others > MOST_OTHERS:
        lines.append(f"{others - MOST_OTHERS} more that may be on the front are not listed")
    if certainty.hypervolume is not None:
        lines.append(volume_text(certainty.hypervolume))
    return [*lines, *(f"note: {note}" for note in certainty.notes)]


def volume_text(volume: Volume) -> str:
    """`hypervolume 0.041 (95 % interval 0.038 to 0.043) up to rouge_l 0, unsafe_rate 0.05`."""
    low, high = volume.interval
    corner = ", ".join(f"{name} {value:.4g}" for name, value in volume.reference.items())
    return (
        f"hypervolume {volume.value:.4g} (95 % interval {low:.4g} to {high:.4g}), "
        f"reference point {corner}"
    )


def front_data(found: Front, certainty: Certainty) -> dict[str, Any]:
    """The same as data; `others` are all that may be on the front, but are not by their estimates."""
    volume = certainty.hypervolume
    return {
        "members": [_described(item, certainty) for item in found.members],
        "others": [_described(item, certainty) for item in _others(found, certainty)],
        "membership_counts": {name: certainty.count(name) for name in ("on", "uncertain", "off")},
        "draws": certainty.draws,
        "hypervolume": None
        if volume is None
        else {
            "value": volume.value,
            "interval": list(volume.interval),
            "reference": dict(volume.reference),
        },
        "notes": list(certainty.notes),
    }


def _described(item: Candidate, certainty: Certainty) -> dict[str, Any]:
    membership = certainty.memberships[item.config_id]
    return {
        "config_id": item.config_id,
        "config": dict(item.config),
        "metrics": dict(item.values),
        "on_front": membership.on_front,
        "p_front": membership.p_front,
        "p_feasible": membership.p_feasible,
        "front_membership": membership.label,
    }
