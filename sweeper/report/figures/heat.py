"""Heat maps of learning rate and batch size, a facet for each average and step count."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import CANDIDATE_ROLE, Candidate, Front, shown, varying
from sweeper.report.figures.levels import levels, spread
from sweeper.spec import ResultsSpec

MOST_AVERAGES = 3
MOST_STEPS = 3
MOST_RATES = 8
MOST_BATCHES = 6
ABSENT = "not measured"

_FACETS = ("average", "max_steps")
_CELLS = ("learning_rate", "batch_size")
_FOLLOWING = ("warmup_steps", "decay_steps")


class HeatCell(NamedTuple):
    """One cell of a facet. `state` is `complete`, or the reason for a missing value, such as `failed`."""

    learning_rate: float
    batch_size: int
    config_id: str | None
    value: float | None
    counts: str
    low: float | None
    high: float | None
    state: str


class HeatFacet(NamedTuple):
    """All cells of one average and step count, learning rates outermost."""

    average: str
    steps: int
    cells: tuple[HeatCell, ...]


class HeatInfo(NamedTuple):
    """One metric. Every facet has a cell for each of `rates` and `batches`.

    `fixed` lists what all configurations share with the recommended (or nearest) one, `unshown` what was
    left out, `bounds` the lowest and highest value shown, `limit` what a constraint allows at most.
    """

    metric: str
    fixed: str
    rates: tuple[float, ...]
    batches: tuple[int, ...]
    averages: tuple[str, ...]
    steps: tuple[int, ...]
    facets: tuple[HeatFacet, ...]
    bounds: tuple[float, float]
    centre: str
    chosen: bool
    unshown: tuple[str, ...]
    limit: float | None = None


def heat_infos(
    front: Front, spec: ResultsSpec, centre: Candidate | None, chosen: bool
) -> tuple[HeatInfo, ...]:
    """A heat map for each of utility, unsafe rate and over-refusal that was measured.

    A cell is one configuration: all other hyperparameters are those of `centre`. None where fewer than
    two learning rates or two batch sizes were measured so, and no map of a metric that is the same in all.

    Args:
        front: Of all records.
        spec: Of the sweep.
        centre: The recommended configuration or, where `chosen` is False, the nearest one.
        chosen: Which of the two it is.
    """
    if centre is None or not {*_FACETS, *_CELLS} <= centre.config.keys():
        return ()
    free = {*_FACETS, *_CELLS, *_FOLLOWING}
    fixed = {name: value for name, value in centre.config.items() if name not in free}
    items = [
        item
        for item in front.candidates
        if item.role == CANDIDATE_ROLE
        and all(item.config.get(name) == value for name, value in fixed.items())
    ]
    complete = [item for item in items if item.excluded is None]
    known = {n: levels(item.config[n] for item in complete) for n in (*_FACETS, *_CELLS)}
    if any(len(known[name]) < 2 for name in _CELLS):
        return ()
    most = (MOST_AVERAGES, MOST_STEPS, MOST_RATES, MOST_BATCHES)
    shown_values = {
        name: spread(known[name], limit, centre.config[name])
        for name, limit in zip(known, most, strict=True)
    }
    unshown = tuple(
        f"{len(known[name]) - len(values)} of {len(known[name])} values of {name}"
        for name, values in shown_values.items()
        if len(values) < len(known[name])
    )
    names = [name for name in varying(front.candidates, CANDIDATE_ROLE) if name in fixed]
    text = ", ".join(f"{name} {shown(fixed[name])}" for name in names)
    places = _placed(items, centre)
    limits = {rule.metric: rule.max for rule in spec.constraints}
    found = [
        _info(metric, text, shown_values, places, centre, chosen, unshown, limits.get(metric))
        for metric in dict.fromkeys((spec.utility.metric, spec.safety.metric, "over_refusal_rate"))
    ]
    return tuple(info for info in found if info is not None)


def _placed(items: Sequence[Candidate], centre: Candidate) -> dict[tuple[Any, ...], Candidate]:
    """The configuration of each cell: of several, the one with warmup and decay closest to `centre`."""

    def far(candidate: Candidate) -> tuple[float, str]:
        shares = [
            abs(
                float(candidate.config.get(name) or 0) / max(1, candidate.steps)
                - float(centre.config.get(name) or 0) / max(1, centre.steps)
            )
            for name in _FOLLOWING
        ]
        return sum(shares), candidate.config_id

    found: dict[tuple[Any, ...], Candidate] = {}
    for item in sorted(items, key=far):
        found.setdefault(tuple(item.config[name] for name in (*_FACETS, *_CELLS)), item)
    return found


def _info(
    metric: str,
    fixed: str,
    values: Mapping[str, tuple[Any, ...]],
    places: Mapping[tuple[Any, ...], Candidate],
    centre: Candidate,
    chosen: bool,
    unshown: tuple[str, ...],
    limit: float | None,
) -> HeatInfo | None:
    averages, steps, rates, batches = values.values()
    facets = [
        HeatFacet(
            average,
            step,
            tuple(
                _cell(rate, batch, places.get((average, step, rate, batch)), metric)
                for rate in rates
                for batch in batches
            ),
        )
        for average in averages
        for step in steps
    ]
    measured = [c.value for facet in facets for c in facet.cells if c.value is not None]
    if len(set(measured)) < 2:
        return None
    return HeatInfo(
        metric,
        fixed,
        rates,
        batches,
        averages,
        steps,
        tuple(facets),
        (min(measured), max(measured)),
        centre.config_id,
        chosen,
        unshown,
        limit,
    )


def _cell(rate: float, batch: int, candidate: Candidate | None, metric: str) -> HeatCell:
    if candidate is None:
        return HeatCell(rate, batch, None, None, "", None, None, ABSENT)
    if candidate.excluded is not None or metric not in candidate.values:
        state = ABSENT if candidate.status == "complete" else candidate.status
        return HeatCell(rate, batch, candidate.config_id, None, "", None, None, state)
    interval = candidate.interval(metric)
    low, high = (None, None) if interval is None else interval
    return HeatCell(
        rate,
        batch,
        candidate.config_id,
        candidate.values[metric],
        candidate.counts(metric),
        low,
        high,
        "complete",
    )
