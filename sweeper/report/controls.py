"""Averaged configurations beside their controls."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sweeper.analysis import (
    Candidate,
    Front,
    interpolation_control,
    learning_rate_control,
    unaveraged_control,
    varying,
)
from sweeper.report.measures import measure
from sweeper.report.related import RelatedConfigurations
from sweeper.spec import ResultsSpec
from sweeper.task import configuration_name


class ControlTable(NamedTuple):
    """One kind of comparison. A line is a configuration; its cells follow `columns`."""

    title: str
    meaning: str
    summary: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


class _Pair(NamedTuple):
    item: Candidate
    control: Candidate


def control_tables(
    front: Front, spec: ResultsSpec, listed: Front | None = None
) -> tuple[ControlTable, ...]:
    """Shadow EMA against raw and interpolation; fed-back EMA against its matched learning rate.

    With `listed` only its configurations have a line; the summaries are about all.
    """
    competing = front.competing
    shadows = [item for item in competing if item.readout["kind"] == "ema"]
    fed_back = [
        item for item in competing if str(item.config.get("average")).startswith("feedback")
    ]
    related = RelatedConfigurations(competing)
    listed = front if listed is None else listed
    tables = []
    if shadows:
        tables.append(_shadow_table(shadows, related, listed, spec))
    if fed_back:
        tables.append(_feedback_table(fed_back, related, listed, spec))
    return tuple(tables)


def _shadow_table(
    shadows: Sequence[Candidate], related: RelatedConfigurations, listed: Front, spec: ResultsSpec
) -> ControlTable:
    raw = _pairs(shadows, lambda item: unaveraged_control(item, related.twins(item)))
    mixed = _pairs(shadows, lambda item: interpolation_control(item, related.twins(item)))
    controls = {pair.item.config_id: pair.control for pair in raw}
    mixtures = {pair.item.config_id: pair.control for pair in mixed}
    columns, lines = _lines(shadows, listed, spec, (("raw", controls), ("interpolated", mixtures)))
    summary = f"Against raw: {_tally(raw, spec)} Against interpolation: {_tally(mixed, spec)}"
    return ControlTable(
        "Shadow EMA",
        "The same training run read three ways: as an EMA, as it is, and interpolated towards the "
        "initial weights with the weight the EMA left on them (decay^steps). An effect that "
        "interpolation has as well is not due to averaging along the path. There is no "
        "interpolation where that weight is below 0.001.",
        summary,
        columns,
        lines,
    )


def _feedback_table(
    fed_back: Sequence[Candidate], related: RelatedConfigurations, listed: Front, spec: ResultsSpec
) -> ControlTable:
    plain = _pairs(fed_back, lambda item: learning_rate_control(item, related.of(item), spec))
    raw = _pairs(fed_back, lambda item: unaveraged_control(item, related.twins(item)))
    matched = {pair.item.config_id: pair.control for pair in plain}
    controls = {pair.item.config_id: pair.control for pair in raw}
    columns, lines = _lines(fed_back, listed, spec, (("raw", controls), ("matched rate", matched)))
    summary = f"Against the matched learning rate: {_tally(plain, spec)}"
    return ControlTable(
        "Fed-back EMA",
        "Feeding the EMA back after every step is plain training at learning_rate * (1 - decay); "
        "feeding it back more rarely is another method. The matched rate is that plain training.",
        summary,
        columns,
        lines,
    )


def _pairs(
    items: Sequence[Candidate], control_of: Callable[[Candidate], Candidate | None]
) -> list[_Pair]:
    return [_Pair(item, control) for item in items if (control := control_of(item)) is not None]


def _lines(
    items: Sequence[Candidate],
    listed: Front,
    spec: ResultsSpec,
    controls: Sequence[tuple[str, dict[str, Candidate]]],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Column heads and one line for each item: unsafe rate and utility of it and of its controls."""
    names, utility = varying(listed.candidates), spec.utility.metric
    heads = ["averaged", *(name for name, _ in controls)]
    columns = ("configuration", *(f"{h}: {m}" for m in ("unsafe", utility) for h in heads))
    lines = []
    known = {item.config_id for item in listed.candidates}
    for item in (item for item in items if item.config_id in known):
        row = [item, *(found.get(item.config_id) for _, found in controls)]
        unsafe = ["" if each is None else _rate(each) for each in row]
        useful = ["" if each is None else measure(each, utility).text for each in row]
        lines.append((configuration_name(item.config, names), *unsafe, *useful))
    return columns, tuple(lines)


def _rate(candidate: Candidate) -> str:
    found = measure(candidate, "unsafe_rate")
    return f"{found.text} ({found.counts})" if found.counts else found.text


def _tally(pairs: Sequence[_Pair], spec: ResultsSpec) -> str:
    """How often the averaged one is safer, and the mean differences, without a test."""
    measured = [
        (pair.item.values, pair.control.values)
        for pair in pairs
        if all("unsafe_rate" in each.values for each in pair)
    ]
    if not measured:
        return "no complete pair."
    name = spec.utility.metric
    unsafe = [mine["unsafe_rate"] - its["unsafe_rate"] for mine, its in measured]
    useful = [mine[name] - its[name] for mine, its in measured]
    lower, equal = sum(d < 0 for d in unsafe), sum(d == 0 for d in unsafe)
    count = len(measured)
    return (
        f"unsafe rate lower in {lower}, equal in {equal}, higher in {count - lower - equal} of "
        f"{count} pair{'' if count == 1 else 's'}; mean difference "
        f"{100 * sum(unsafe) / count:+.1f} points in unsafe rate, {sum(useful) / count:+.3f} in {name}."
    )
