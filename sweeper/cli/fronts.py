"""The front as tables: five members that fit 80 columns, or every column of all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from sweeper import analysis
from sweeper.analysis import (
    CANDIDATE_ROLE,
    OFF,
    ON,
    Candidate,
    Certainty,
    Volume,
    bounds_text,
    measured_text,
    name_of,
    shown,
    varying,
)
from sweeper.cli import show
from sweeper.metrics import SAFETY_METRICS, range_text
from sweeper.runs.outputs import uncertain_others
from sweeper.runs.value_texts import objectives_text
from sweeper.spec import ResultsSpec

if TYPE_CHECKING:  # It needs pandas.
    from sweeper.runs.results import Front, Recommendation

MOST_MEMBERS = 5
"""The most members shown where not all are asked for."""

MOST_OTHERS = 10
"""The most listed configurations that may be on the front, but are not by their estimates."""

SHORTEST_ID = 6
"""Digits of an id where they tell all configurations of the run apart."""

NAME_WIDTH = 26
"""Columns of a name, so that the table fits 80."""


def print_front(result: "Recommendation", *, everything: bool = False) -> None:
    """The members by name, the recommended one first, then best utility first; at most `MOST_MEMBERS`.

    `everything` shows all of them.
    """
    front, chosen = result.front, result.chosen
    found, certainty = front.analysis, front.certainty
    rows = [item for item in found.members if item is not chosen]
    rows = rows if chosen is None else [chosen, *rows]
    listed = rows if everything else rows[:MOST_MEMBERS]
    show.fit(_compact(listed, result))
    for text in _compact_lines(len(listed), result):
        show.line(text)
    for note in (*result.missing, *certainty.notes):
        show.line(f"note: {note}")
    if found.base is not None:
        show.line(f"untouched model: {objectives_text(found.base, front.spec)}")


def _compact(items: Sequence[Candidate], result: "Recommendation") -> Table:
    found, spec, places = (
        result.front.analysis,
        result.front.spec,
        result.front.certainty.memberships,
    )
    names, digits = varying(found.candidates, CANDIDATE_ROLE), _id_digits(found.candidates)
    safety = _safety_metric(spec)
    table = Table(box=None, pad_edge=False)
    table.add_column("* id")
    table.add_column("configuration", max_width=NAME_WIDTH)
    for head in (safety, spec.utility.metric, "P(front)", "seeds"):
        table.add_column(head, justify="right")
    for item in items:
        place = places[item.config_id]
        between = dict.fromkeys(f"{p:.2f}" for p in (place.p_front, place.p_front_upper))
        cells = (
            f"{'*' if item is result.chosen else ' '} {item.config_id[:digits]}",
            name_of(item, names),
            ",\n".join(measured_text(item, safety, interval=True).rsplit(", ", 1)),
            measured_text(item, spec.utility.metric),
            "-".join(between),
            f"{len(item.seeds)}",
        )
        table.add_row(*map(escape, cells))
    return table


def _id_digits(candidates: Sequence[Candidate]) -> int:
    """How many digits of an id tell all configurations apart."""
    whole = max((len(item.config_id) for item in candidates), default=SHORTEST_ID)
    each = range(SHORTEST_ID, whole)
    return next(
        (n for n in each if len({c.config_id[:n] for c in candidates}) == len(candidates)), whole
    )


def _compact_lines(listed: int, result: "Recommendation") -> list[str]:
    front = result.front
    found, certainty = front.analysis, front.certainty
    members = len(found.members)
    outside = result.chosen is not None and result.chosen not in found.members
    lines = [
        f"{members} on the front, of {len(found.competing)} complete configurations, by their estimates",
        "no configuration is recommended: `sweeper recommend` says why"
        if result.chosen is None
        else "* recommended" + (", not on the front by its estimates" if outside else ""),
    ]
    if hidden := members + outside - listed:
        lines.append(f"{hidden} more not shown: --all shows them, --wide every column")
    lines.append(
        f"P(front) of {certainty.about}: {certainty.count('on')} on, {certainty.count('uncertain')} "
        f"uncertain, {certainty.count('off')} off"
    )
    return lines


def print_wide(result: "Front") -> None:
    """The front, best utility first, then configurations that may be on it, most probable first."""
    found, certainty, spec = result.analysis, result.certainty, result.spec
    names = varying(found.candidates, CANDIDATE_ROLE)
    title = f"Pareto front; P(front) of {certainty.about}"
    table = Table(title=title, title_justify="left")
    table.add_column("configuration")
    for name in names:
        table.add_column(name, justify="right")
    for objective in spec.objectives:
        table.add_column(objective.metric, justify="right")
    table.add_column("95 % interval", justify="right")
    for name in ("estimate", "P(front)", "membership"):
        table.add_column(name, justify="right")
    others = uncertain_others(found, certainty)
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
        show.line(f"untouched model: {objectives_text(found.base, spec)}")


def _safety_metric(spec: ResultsSpec) -> str:
    named = (item.metric for item in spec.objectives if item.metric in SAFETY_METRICS)
    return next(named, spec.safety.metric)


def _cells(
    candidate: Candidate, names: Sequence[str], certainty: Certainty, spec: ResultsSpec
) -> list[str]:
    config = [shown(candidate.config.get(name, "")) for name in names]
    values = [measured_text(candidate, objective.metric) for objective in spec.objectives]
    safety = _safety_metric(spec)
    interval = candidate.interval(safety)
    inside = "" if interval is None else range_text(safety, *interval)
    membership = certainty.memberships[candidate.config_id]
    between = bounds_text(membership.p_front, membership.p_front_upper)
    place = ["on" if membership.on_front else "off", between, membership.label]
    return [escape(cell) for cell in (candidate.config_id, *config, *values, inside, *place)]


def _lines(found: analysis.Front, certainty: Certainty, others: int) -> list[str]:
    lines = [
        f"{len(found.members)} on the front, of {len(found.competing)} complete configurations, by their "
        f"estimates; {len(found.trade_off)} on the trade-off curve without the constraints"
    ]
    if certainty.memberships:
        lines.append(
            f"by P(front): {certainty.count('on')} on (at least {ON:g} against all others together), "
            f"{certainty.count('uncertain')} uncertain, {certainty.count('off')} off (below {OFF:g} "
            f"against one other alone); {certainty.draws} draws"
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
