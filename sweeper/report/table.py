"""The table of all configurations: one row each, whatever its status."""

import math
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from sweeper.analysis import (
    BASE_ROLE,
    CANDIDATE_ROLE,
    Candidate,
    Certainty,
    Front,
    FrontMembership,
    Recommendation,
    bounds_text,
    name_of,
    shown,
    varying,
)
from sweeper.report.measures import measure
from sweeper.spec import ResultsSpec


class Cell(NamedTuple):
    """One cell of the table of configurations: its text, and the value it is sorted by.

    `sort` is the value itself, unrounded, where the cell is `numeric`; `low` and `high` bound it with
    95 % confidence, where they are known. `counts` is `k/n` of each seed.
    """

    text: str
    sort: str | float
    numeric: bool
    detail: str = ""
    low: float | None = None
    high: float | None = None
    counts: str = ""


class Row(NamedTuple):
    """One configuration in the table. `marks` are among recommended, front, no gain."""

    config_id: str
    marks: tuple[str, ...]
    cells: tuple[Cell, ...]


class Table(NamedTuple):
    """Column heads and rows; every row has one cell for each column. `hidden` are shown on demand."""

    columns: tuple[str, ...]
    hidden: tuple[str, ...]
    rows: tuple[Row, ...]


_CERTAIN = ("P(constraints), these weights", "P(front)", "membership")


def configuration_table(
    front: Front,
    found: Recommendation,
    spec: ResultsSpec,
    metrics: Sequence[str],
    certainty: Certainty,
) -> Table:
    """All candidates, the front first, then complete ones by utility, then the rest.

    The hyperparameters that vary come first, then objectives and constraints, then the other metrics.
    """
    judged: list[str] = [item.metric for item in spec.objectives]
    judged += [item.metric for item in spec.constraints]
    leading = tuple(name for name in dict.fromkeys(judged) if name in metrics)
    others = tuple(name for name in metrics if name not in leading)
    names = varying(front.candidates)
    head = ("marks", "configuration", "name", *names, *leading, *_CERTAIN)
    members = {item.config_id for item in front.members}
    rows = tuple(
        _row(item, members, found, (leading, names, others), certainty)
        for item in _ordered(front, members, spec)
    )
    plain = {row.status for row in front.candidates} == {"complete"}
    searched = varying(front.candidates, CANDIDATE_ROLE)
    fixed = [name for name in names if name not in searched]  # They differ in controls only.
    hidden = ("marks", "name", *fixed, "P(front)", *others, "role", *(["status"] if plain else []))
    return Table((*head, *others, "role", "status"), hidden, rows)


def _ordered(front: Front, members: Set[str], spec: ResultsSpec) -> list[Candidate]:
    """Front first, then complete ones by utility, then the rest."""
    sign = 1 if spec.utility.direction == "minimize" else -1

    def rank(candidate: Candidate) -> tuple[bool, bool, float, str]:
        value = candidate.values.get(spec.utility.metric)
        loss = float("inf") if value is None else sign * value
        return (
            candidate.config_id not in members,
            candidate.excluded is not None,
            loss,
            candidate.config_id,
        )

    return sorted(front.candidates, key=rank)


def _row(
    candidate: Candidate,
    members: Set[str],
    found: Recommendation,
    names: tuple[Sequence[str], Sequence[str], Sequence[str]],
    certainty: Certainty,
) -> Row:
    leading, varied, others = names
    marks = ["recommended"] if candidate is found.chosen else []
    marks += ["front"] if candidate.config_id in members else []
    marks += ["no gain"] if candidate.gain is False else []
    base = candidate.role == BASE_ROLE
    complete = candidate.status == "complete"
    cells = [
        Cell(", ".join(marks), -len(marks), False),
        Cell(candidate.config_id, candidate.config_id, False),
        Cell(name := name_of(candidate, varied), name, False),
        *(_value_cell(None if base else candidate.config.get(name)) for name in varied),
        *(_measure_cell(candidate, metric) for metric in leading),
        Cell(
            f"{candidate.probability:.3f}" if complete else "",
            candidate.probability if complete else "",
            True,
        ),
        *_membership_cells(certainty.memberships.get(candidate.config_id)),
        *(_measure_cell(candidate, metric) for metric in others),
        Cell(candidate.role.replace("_", " "), candidate.role, False),
        Cell(_status(candidate), candidate.status, False),
    ]
    return Row(candidate.config_id, tuple(marks), tuple(cells))


def _membership_cells(membership: FrontMembership | None) -> tuple[Cell, Cell]:
    if membership is None:
        return Cell("", "", True), Cell("", "", False)
    p = membership.p_front
    return Cell(bounds_text(p, membership.p_front_upper), p, True), Cell(
        membership.label, -p, False
    )


def _status(candidate: Candidate) -> str:
    missing = (
        candidate.excluded is not None
        and candidate.status == "complete"
        and candidate.role != BASE_ROLE
    )
    return str(candidate.excluded) if missing else candidate.status


def _value_cell(value: Any) -> Cell:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    text = "" if value is None else shown(value)
    return Cell(text, float(value) if numeric else text, numeric)


def _measure_cell(candidate: Candidate, metric: str) -> Cell:
    found = measure(candidate, metric)
    value = candidate.values.get(metric)
    if value is None:
        return Cell(found.text, math.inf, True, found.detail)
    interval = candidate.interval(metric)
    low, high = (None, None) if interval is None else interval
    return Cell(found.text, value, True, found.detail, low, high, found.counts)


def table_block(
    columns: Sequence[str], rows: Sequence[Row], hidden: Sequence[str] = ()
) -> dict[str, Any]:
    """The table for the page's script: each column as its distinct cells and their positions.

    A cell is `[text, value, detail, low, high, counts]` without what is empty at its end; a value is
    None where it was not measured.
    """
    found = []
    for index, name in enumerate(columns):
        places: dict[Cell, int] = {}
        at = [places.setdefault(row.cells[index], len(places)) for row in rows]
        numeric = bool(rows) and rows[0].cells[index].numeric
        found.append(
            {"name": name, "numeric": numeric, "cells": [_packed(c) for c in places], "at": at}
        )
    ids = [row.config_id for row in rows]
    marks = [list(row.marks) for row in rows]
    return {"ids": ids, "marks": marks, "hidden": list(hidden), "columns": found}


def _packed(cell: Cell) -> list[Any]:
    absent = cell.sort in ("", math.inf) or cell.sort != cell.sort
    values = [
        cell.text,
        None if absent else cell.sort,
        cell.detail,
        cell.low,
        cell.high,
        cell.counts,
    ]
    while len(values) > 2 and values[-1] in ("", None):
        values.pop()
    return values
