"""The contents of the report as plain values.

Every number is computed here; the page only does the layout.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import (
    BASE_ROLE,
    CANDIDATE_ROLE,
    OFF,
    ON,
    Candidate,
    Certainty,
    Front,
    Recommendation,
    find_front,
    front_certainty,
    recommend,
    shown,
    side_by_side,
    varying,
)
from sweeper.analysis.decision import decided_of
from sweeper.judges import RejudgedRecords
from sweeper.keywords.lists import LIMITS
from sweeper.metrics import harness_metric
from sweeper.report.averaging import (
    EffectRow,
    averaging_effects,
    averaging_pairs,
    effect_rows,
)
from sweeper.report.axes import axis_block
from sweeper.report.controls import ControlTable, control_tables
from sweeper.report.cost import cost_rows
from sweeper.report.decision import DecisionTable, decided_answer, decision_table
from sweeper.report.exports import export_block
from sweeper.report.figures import FrontInfo, StepInfo, front_info, step_curves
from sweeper.report.headline import Headline, headline
from sweeper.report.listing import Listing, make_listing
from sweeper.report.lists import KeywordListRow, list_rows
from sweeper.report.measures import ABSENT, Measure, measure
from sweeper.report.outcomes import TrialOutcome, trial_outcomes
from sweeper.report.pairs import pair_block
from sweeper.report.references import ReferenceTable, reference_tables
from sweeper.report.sections import ChartInfos, chart_infos
from sweeper.report.slices import slice_block
from sweeper.report.table import Row, configuration_table
from sweeper.report.warnings import facts, so_far, warnings
from sweeper.report.what_if import choice_block
from sweeper.search.refine import RefinementRow, refinement_rows
from sweeper.spec import ResultsSpec, SweepSpec, spec_hash
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord
from sweeper.sweep.decision import read_decision
from sweeper.task import configuration_name

_EACH_ITS_OWN = ("seconds", "tokens", "weights_sha256")
_MOST_VALUES = 3


class Compared(NamedTuple):
    """One column of the comparison: a name, the configuration, and its measures."""

    name: str
    config_id: str
    values: str
    measures: tuple[Measure, ...]
    gain: str


class ReportData(NamedTuple):
    """The whole report."""

    run: str
    name: str
    description: str
    question: str
    headline: Headline
    found: bool
    answer: str
    reason: str
    decision: DecisionTable | None
    selection_bias: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    constants: tuple[tuple[str, str], ...]
    pairs: Mapping[str, Any]
    exports: Mapping[str, Any]
    choices: Mapping[str, Any] | None
    slices: Mapping[str, Any] | None
    compared: tuple[Compared, ...]
    front: FrontInfo
    axes: Mapping[str, Any] | None
    memberships: tuple[str, ...]
    refinements: tuple[tuple[str, ...], ...]
    curves: tuple[StepInfo, ...]
    columns: tuple[str, ...]
    hidden_columns: tuple[str, ...]
    rows: tuple[Row, ...]
    averaging: tuple[EffectRow, ...]
    controls: tuple[ControlTable, ...]
    references: tuple[ReferenceTable, ...]
    outcomes: tuple[TrialOutcome, ...]
    accounting: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    keyword_lists: tuple[KeywordListRow, ...]
    keyword_limits: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    charts: ChartInfos
    listing: Listing


def report_data(
    run: RunFolder,
    records: Iterable[TrialRecord],
    spec: ResultsSpec,
    accounting: Mapping[str, Any] | None,
    estimate: Mapping[str, Any] | None = None,
    judged: RejudgedRecords | None = None,
) -> ReportData:
    """Gather the report of one run.

    Args:
        run: The run folder; only its name is shown, so a report does not reveal paths.
        records: Its records, in any order.
        spec: The spec they were made from.
        accounting: What plan.json holds under `accounting`, or None where there is none.
        estimate: What it holds under `estimate`, likewise.
        judged: The judge of the rates, if not the first keyword list.
    """
    records = tuple(records)
    front = find_front(records, spec)
    sweep = spec if isinstance(spec, SweepSpec) else None
    decision = None if judged else read_decision(run, spec, front)
    found = recommend(front, spec, decided=decided_of(decision))
    own = varying(front.candidates, CANDIDATE_ROLE)
    certainty = front_certainty(front, spec)
    pairings = averaging_pairs(front, spec)
    centre = found.chosen or found.nearest
    metrics = _metrics(front, spec)
    names = varying(front.candidates)
    listing = make_listing(front, found, spec, certainty, metrics)
    listed = listing.listed
    table = configuration_table(listed, found, spec, metrics, certainty)
    costs = facts(front, accounting or {}, records)
    part = so_far(front, spec, accounting or {})
    answer = _answer(found, own, spec)
    curves = [step_curves(front, spec, centre, name) for name in curve_metrics(spec)]
    return ReportData(
        run=run.root.name,
        name=spec.name,
        description=spec.description.strip(),
        question=_question(spec),
        headline=headline(found, decision, own, spec, costs, run.root.name, part),
        found=found.chosen is not None,
        answer=decided_answer(decision, own, spec)
        if decision is not None and decision.complete
        else answer
        if part is None
        else part.words(answer),
        reason=found.reason,
        decision=decision_table(decision, own, spec),
        selection_bias=_selection_bias(found, spec)
        + ("" if judged is None else f" Here, {judged.summary}."),
        facts=costs,
        warnings=warnings(front, found, spec, accounting or {}, judged),
        constants=_constants(front),
        pairs=pair_block(front, spec, [row.config_id for row in table.rows], found.chosen),
        choices=None if judged else choice_block(records, spec, own),
        slices=slice_block(listed, spec, metrics, found),
        exports={} if sweep is None else export_block(front, found, sweep, run.root.name),
        compared=tuple(_compared(name, item, names, metrics) for name, item in side_by_side(found)),
        front=front_info(listed, spec, found.chosen, certainty),
        axes=axis_block(listed, spec),
        memberships=_membership_texts(certainty),
        refinements=()
        if sweep is None
        else tuple(map(_refinement, refinement_rows(run, sweep, records))),
        curves=tuple(curve for curve in curves if curve is not None),
        columns=table.columns,
        hidden_columns=table.hidden,
        rows=table.rows,
        averaging=effect_rows(averaging_effects(front, spec, pairings)),
        controls=control_tables(front, spec, listed),
        references=reference_tables(front, spec),
        outcomes=trial_outcomes(records),
        accounting=(*_accounting(accounting or {}), *cost_rows(estimate, records)),
        notes=tuple((accounting or {}).get("notes", ())),
        keyword_lists=list_rows(spec, records, judged),
        keyword_limits=LIMITS,
        provenance=_provenance(run, records, spec),
        charts=chart_infos(run, listing, spec, found, pairings),
        listing=listing,
    )


def _constants(front: Front) -> tuple[tuple[str, str], ...]:
    """The hyperparameters that are the same in every trained configuration."""
    trained = [item for item in front.candidates if item.role != BASE_ROLE]
    free = {*varying(trained), "average"}
    config = trained[0].config if trained else {}
    return tuple((name, shown(value)) for name, value in config.items() if name not in free)


def _membership_texts(certainty: Certainty) -> tuple[str, ...]:
    """Sentences on the certainty of the front."""
    if not certainty.memberships:
        return ()
    texts = [
        f"P(front) is about {certainty.about}. Of {len(certainty.memberships)} configurations "
        f"{certainty.count('on')} on the front, with at least {ON:g} against all others together, "
        f"{certainty.count('uncertain')} uncertain, {certainty.count('off')} off it, with less than "
        f"{OFF:g} against one other alone ({certainty.draws} draws)."
    ]
    if (volume := certainty.hypervolume) is not None:
        low, high = volume.interval
        corner = ", ".join(f"{name} {value:.4g}" for name, value in volume.reference.items())
        texts.append(
            f"Hypervolume of the front {volume.value:.4g} (95 % interval {low:.4g} to {high:.4g}), "
            f"reference point {corner}."
        )
    return (*texts, *(f"{note[0].upper()}{note[1:]}." for note in certainty.notes))


def _refinement(row: RefinementRow) -> tuple[str, ...]:
    state, volume = row.state, row.state.hypervolume
    counts = (row.paths, row.spent, state.on, state.uncertain, state.off, state.undecided)
    area = ABSENT if volume is None else "{:.4g} ({:.4g} to {:.4g})".format(*volume)
    return (*(f"{count:,}" for count in counts), area)


def _metrics(front: Front, spec: ResultsSpec) -> tuple[str, ...]:
    """Objectives first, then constraints, then other requested metrics that were measured."""
    wanted: list[str] = [item.metric for item in spec.objectives]
    wanted += [item.metric for item in spec.constraints]
    wanted += [*spec.utility_metrics, "unsafe_rate", "over_refusal_rate"]
    measured = {name for item in front.candidates for name in item.values}
    asked = tuple(harness_metric(task, "") for task in spec.harness_tasks)
    wanted += sorted(name for name in measured if name.startswith(asked))
    wanted += [f"unsafe_rate/{name}" for name in spec.keyword_lists]
    wanted += ["degenerate_rate/harmful"]
    return tuple(name for name in dict.fromkeys(wanted) if name in measured)


def curve_metrics(spec: ResultsSpec) -> tuple[str, ...]:
    """The metrics that are shown by training step."""
    return spec.utility.metric, spec.safety.metric


def _question(spec: ResultsSpec) -> str:
    kept = [f"the {_words(c.metric)} at or below {100 * c.max:g} %" for c in spec.constraints]
    demand = f" while keeping {' and '.join(kept)}" if kept else ""
    return f"Which {spec.subject} gives the best {spec.utility.metric}{demand}?"


def _words(metric: str) -> str:
    return metric.replace("over_refusal", "over-refusal").replace("_", " ")


def _answer(found: Recommendation, names: Sequence[str], spec: ResultsSpec) -> str:
    """One sentence with its interval."""
    if found.chosen is None:
        return "No configuration of this sweep can be recommended."
    item, name = found.chosen, spec.utility.metric
    safety = spec.safety.metric
    claims = [claim for claim in found.claims if claim.metric == safety]
    words = configuration_name(item.config, names) or "The only configuration"
    head = f"{words}: {name} {measure(item, name).text}"
    if safety != "unsafe_rate":
        beside = measure(item, safety)
        detail = f" ({beside.detail})" if beside.detail else ""
        return f"{head}, and {safety} {beside.text}{detail}."
    if not claims:
        unsafe = measure(item, safety)
        return f"{head}, and {unsafe.text} of harmful prompts answered unsafely ({unsafe.counts})."
    rates = ", and ".join(
        f"{_OF[claim.scope]} {100 * claim.rate:.1f} % of harmful prompts unsafely "
        f"(95 % interval {100 * claim.interval.low:.1f} to {100 * claim.interval.high:.1f} %)"
        for claim in claims
    )
    return f"{head}, and {rates}, corrected for the choice among {found.compared}."


_OF = {"these weights": "these weights answer", "trained again": "trained again it answers"}


def _selection_bias(found: Recommendation, spec: ResultsSpec) -> str:
    seeds = len(spec.seeds)
    return (
        f"{found.compared} configuration{' was' if found.compared == 1 else 's were'} compared on "
        f"the same prompts under {seeds} seed{'' if seeds == 1 else 's'}. The best "
        "of many looks better than it is; "
        + (
            "the search has not been followed by a decision on new prompts and seeds."
            if found.decided is None
            else "the decision was made on other prompts or seeds, and only its numbers are free of that."
        )
    )


def _compared(
    name: str, candidate: Candidate, names: Sequence[str], metrics: Sequence[str]
) -> Compared:
    values = "" if candidate.role == "base" else configuration_name(candidate.config, names)
    gain = candidate.gain_evidence if candidate.gain is False else ""
    measures = tuple(measure(candidate, metric) for metric in metrics)
    return Compared(name, candidate.config_id, values, measures, gain)


_ACCOUNTS = {
    "configurations": "configurations of the space",
    "controls": "controls",
    "trajectories": "training runs (trajectories)",
    "readouts": "readouts evaluated",
    "steps_alone": "optimizer steps, every configuration trained alone",
    "steps_planned": "optimizer steps planned, controls included",
}


def _accounting(account: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    rows = [(text, f"{account[name]:,}") for name, text in _ACCOUNTS.items() if name in account]
    if "ratio" in account:
        rows.append(("saved by sharing, at least", f"{account['ratio']:.1f}-fold"))
    return tuple(rows)


def _provenance(
    run: RunFolder, records: Sequence[TrialRecord], spec: ResultsSpec
) -> tuple[tuple[str, str], ...]:
    """Each fact with its value, or its values where records differ."""
    # Each distinct block is flattened once: most are the same in every record.
    blocks: dict[tuple[str, str], Any] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for record in records:
        for name, block in record.provenance.items():
            if name not in _EACH_ITS_OWN:
                key = name, repr(block)
                blocks.setdefault(key, block)
                counts[key] += 1
    facts: dict[str, Counter[str]] = {}
    for key, block in blocks.items():
        for name, value in _flat(block, key[0]):
            facts.setdefault(name, Counter())[value] += counts[key]
    head = [("run", run.root.name), ("records", str(len(records)))]
    if isinstance(spec, SweepSpec):
        head.insert(1, ("spec hash", spec_hash(spec)))
    return tuple(head + [(name, _agreed(facts[name])) for name in sorted(facts)])


def _flat(value: Any, prefix: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    elif value is not None:
        yield prefix, str(value)


def _agreed(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    listed = [f"{value} ({count} records)" for value, count in values.most_common(_MOST_VALUES)]
    more = len(values) - _MOST_VALUES
    return "; ".join(listed) + (f"; and {more} more values" if more > 0 else "")
