"""What `show`, `compare` and `ls` print: configurations in detail, side by side, and runs in a list."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from sweeper.analysis import (
    BASE_ROLE,
    Candidate,
    Certainty,
    Comparison,
    Contrast,
    Front,
    FrontMembership,
    Measured,
    Setting,
    metric_names,
    reason_text,
    shown,
)
from sweeper.cli import show
from sweeper.cli.recommendations import difference_data, difference_text, p_text, tests
from sweeper.metrics import is_sampled
from sweeper.runs.listing import RunLine
from sweeper.spec import SweepSpec
from sweeper.stats import Interval, wilson_interval
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric

ABSENT = "not measured"


class Detail(NamedTuple):
    """One configuration, with all that is known of it."""

    item: Candidate
    front: Front
    membership: FrontMembership | None
    contrasts: Sequence[Contrast]
    folder: RunFolder
    spec: SweepSpec


def detail(found: Detail) -> None:
    """Settings, metrics by seed, constraints, controls, and where responses lie: never their text."""
    item = found.item
    show.line(f"configuration {item.config_id}")
    for text in _standing_lines(found):
        show.line(f"  {text}")
    show.table("Hyperparameters", [(name, shown(value)) for name, value in item.config.items()])
    metrics = Table(title="Metrics (95 % intervals)", title_justify="left")
    for name in ("metric", "seed"):
        metrics.add_column(name)
    for name in ("value", "k/n", "interval"):
        metrics.add_column(name, justify="right")
    for row in _metric_rows(found):
        metrics.add_row(*map(escape, row))
    show.fit(metrics)
    for text in _constraint_lines(found):
        show.line(text)
    if found.contrasts:
        title = "This configuration minus its controls (95 % intervals)"
        show.fit(tests(found.contrasts, found.spec, title))
    else:
        show.line("none of its controls has been measured")
    for text in _response_lines(found):
        show.line(text)


def _standing_lines(found: Detail) -> list[str]:
    item, membership = found.item, found.membership
    role = item.role.replace("_", " ")
    lines = [f"{role}, {item.status}; seeds {', '.join(map(str, item.seeds))}"]
    if membership is not None:
        place = "on the front" if membership.on_front else "not on the front"
        lines.append(
            f"{place} by its estimates; P(front) {membership.p_front:.3f}: {membership.label}"
        )
    if item.excluded is not None:
        lines.append(f"not compared: {item.excluded}")
    if item.gain_evidence:
        lines.append(f"{'no gain' if item.gain is False else 'gain'}: {item.gain_evidence}")
    lines += [
        f"seed {record.seed} {record.status}: {reason_text(record)}"
        for record in item.records
        if record.status != "complete"
    ]
    return lines


def _metric_rows(found: Detail) -> Iterable[tuple[str, ...]]:
    """One row per metric and seed, and the mean where there are several seeds."""
    item = found.item
    for name in metric_names([item], found.spec):
        for record in item.records:
            metric = record.metrics.get(name)
            if metric is None:
                yield name, f"{record.seed}", ABSENT, "", ""
                continue
            counts = f"n={metric.n}" if metric.k is None else f"{metric.k}/{metric.n}"
            between = _interval(name, metric)
            text = "" if between is None else f"{between[0]:.3f} to {between[1]:.3f}"
            yield name, f"{record.seed}", f"{metric.value:.4g}", counts, text
        if len(item.records) > 1:
            yield name, "mean", show.value_text(item, name), "", ""


def _interval(name: str, metric: Metric) -> Interval | None:
    """Wilson's interval under one seed, of what is a mean over independent prompts or rows."""
    if not is_sampled(name, counted=metric.k is not None):
        return None
    count = metric.value * metric.n if metric.k is None else metric.k
    return wilson_interval(count, metric.n)


def _constraint_lines(found: Detail) -> list[str]:
    lines = []
    for constraint, p in zip(found.spec.constraints, found.item.probabilities, strict=True):
        kept = "kept" if p >= constraint.confidence else "NOT kept"
        text = f"P = {p:.3f}, asked {constraint.confidence:g}: {kept}"
        if constraint.metric not in found.item.values:
            text = f"{ABSENT}, so NOT kept"
        lines.append(f"constraint {constraint.metric} <= {constraint.max:g}: {text}")
    return lines


def _responses(found: Detail) -> list[tuple[int, Path, bool]]:
    places = [
        (record.seed, found.folder.trial(record.trajectory_id), record.config_id)
        for record in found.item.records
    ]
    paths = [(seed, storage.generations(name, seed)) for seed, storage, name in places]
    return [(seed, path, path.exists()) for seed, path in paths]


def _response_lines(found: Detail) -> list[str]:
    return [
        f"responses under seed {seed}: {path}{'' if there else ' (not there)'}"
        for seed, path, there in _responses(found)
    ]


def detail_data(found: Detail) -> dict[str, Any]:
    """The same as data."""
    item, membership = found.item, found.membership
    return {
        "config_id": item.config_id,
        "role": item.role,
        "status": item.status,
        "excluded": item.excluded,
        "seeds": list(item.seeds),
        "config": dict(item.config),
        "readout": dict(item.readout),
        "metrics": {name: _metric_data(item, name) for name in metric_names([item], found.spec)},
        "front": None if membership is None else _membership_data(membership),
        "constraints": [
            {
                "metric": constraint.metric,
                "max": constraint.max,
                "confidence": constraint.confidence,
                "probability": p if constraint.metric in item.values else None,
                "kept": p >= constraint.confidence,
            }
            for constraint, p in zip(found.spec.constraints, item.probabilities, strict=True)
        ],
        "gain": item.gain,
        "gain_evidence": item.gain_evidence,
        "controls": [
            {
                "name": name,
                "config_id": other.config_id,
                "unsafe_rate": difference_data(unsafe),
                "utility": difference_data(utility),
            }
            for name, other, unsafe, utility in found.contrasts
        ],
        "reasons": [
            {"seed": r.seed, "status": r.status, "reason": reason_text(r)}
            for r in item.records
            if r.status != "complete"
        ],
        "responses": [
            {"seed": seed, "path": str(path), "exists": there}
            for seed, path, there in _responses(found)
        ],
    }


def _membership_data(membership: FrontMembership) -> dict[str, Any]:
    return {
        "on_front": membership.on_front,
        "p_front": membership.p_front,
        "p_feasible": membership.p_feasible,
        "front_membership": membership.label,
    }


def _metric_data(item: Candidate, name: str) -> dict[str, Any]:
    """Mean and envelope over seeds, and each seed's own; None for what is no finite number."""
    between = item.interval(name) if name in item.values else None
    return {
        "value": item.values.get(name),
        "interval": None if between is None else list(between),
        "seeds": [
            {
                "seed": record.seed,
                "value": metric.value if math.isfinite(metric.value) else None,
                "k": metric.k,
                "n": metric.n,
                "interval": None if (own := _interval(name, metric)) is None else list(own),
            }
            for record in item.records
            if (metric := record.metrics.get(name)) is not None
        ],
    }


def comparison(found: Comparison, certainty: Certainty) -> None:
    """Settings that differ, then metrics with intervals, then the tests against the first."""
    title = "Side by side (95 % intervals); `>` marks what differs"
    table = Table("", title=title, title_justify="left")
    for number, item in enumerate(found.items, start=1):
        table.add_column(f"{number}: {escape(item.config_id)}")
    for setting in found.settings:
        if setting.differs:
            table.add_row(*_setting_row(setting, found.items))
    table.add_section()
    for metric in found.metrics:
        table.add_row(escape(metric.metric), *(_value(item, metric) for item in found.items))
    table.add_row("P(front)", *(_p_front(item, certainty) for item in found.items))
    show.fit(table)
    same = sum(not setting.differs for setting in found.settings)
    show.line(f"{same} other hyperparameters are the same; `sweeper show` prints all of one")
    show.fit(_gaps(found))
    for note in found.notes:
        show.line(f"note: {note}")


def _setting_row(setting: Setting, items: Sequence[Candidate]) -> list[str]:
    values = [
        "-" if item.role == BASE_ROLE else shown(value)
        for item, value in zip(items, setting.values, strict=True)
    ]
    name = f"[bold]> {escape(setting.name)}[/bold]"
    return [name, *(f"[bold]{escape(value)}[/bold]" for value in values)]


def _value(item: Candidate, metric: Measured) -> str:
    name = metric.metric
    if name not in item.values:
        return ABSENT
    counts, between = item.counts(name), item.interval(name)
    inside = counts and f"{counts}; "
    inside = "" if between is None else f" ({inside}{between.low:.3f} to {between.high:.3f})"
    return f"{item.values[name]:.3f}{inside}"


def _p_front(item: Candidate, certainty: Certainty) -> str:
    membership = certainty.memberships.get(item.config_id)
    return "-" if membership is None else f"{membership.p_front:.3f} ({membership.label})"


def _gaps(found: Comparison) -> Table:
    first, *others = found.items
    table = Table(title=f"Each minus the first, {escape(first.config_id)}", title_justify="left")
    for name in ("configuration", "metric"):
        table.add_column(name)
    for name in ("difference (95 % interval)", "exact McNemar p"):
        table.add_column(name, justify="right")
    table.add_column("on")
    for index, other in enumerate(others):
        for metric in found.metrics:
            gap = metric.differences[index]
            on = "" if gap is None else f"{gap.n} {'pairs' if gap.paired else 'each, unpaired'}"
            cells = (
                other.config_id,
                metric.metric,
                difference_text(gap, mark=False),
                p_text(gap),
                on,
            )
            table.add_row(*map(escape, cells))
        table.add_section()
    return table


def comparison_data(found: Comparison, certainty: Certainty) -> dict[str, Any]:
    """The same as data; gaps are each of the others minus the first."""
    memberships = [certainty.memberships.get(item.config_id) for item in found.items]
    return {
        "configurations": [
            {
                "config_id": item.config_id,
                "role": item.role,
                "status": item.status,
                "config": dict(item.config),
                "metrics": {m.metric: _metric_data(item, m.metric) for m in found.metrics},
                "front": None if membership is None else _membership_data(membership),
            }
            for item, membership in zip(found.items, memberships, strict=True)
        ],
        "differing": [setting.name for setting in found.settings if setting.differs],
        "tests": [
            {
                "config_id": other.config_id,
                "against": found.items[0].config_id,
                "metrics": {m.metric: difference_data(m.differences[index]) for m in found.metrics},
            }
            for index, other in enumerate(found.items[1:])
        ],
        "notes": list(found.notes),
    }


def runs(found: Sequence[RunLine], root: Path) -> None:
    """One line per run, and below the table what is wrong with damaged ones."""
    if not found:
        show.line(f"no runs in {root} or below it; `sweeper run` writes one")
        return
    table = Table(title="Runs", title_justify="left")
    for name in ("run", "name", "state"):
        table.add_column(name)
    for name in ("records", "failed", "front"):
        table.add_column(name, justify="right")
    for name in ("recommended", "its objectives", "last written"):
        table.add_column(name)
    table.add_column("size", justify="right")
    for item in found:
        table.add_row(*map(escape, _run_cells(item, root)))
    show.fit(table)
    for item in found:
        if item.problem is not None:
            show.line(f"damaged: {item.path}: {item.problem}")


def _run_cells(item: RunLine, root: Path) -> list[str]:
    where = "." if item.path == root else str(item.path.relative_to(root))
    if item.state == "damaged":
        return [where, "", item.state, "", "", "", "", "", "", show.size(item.size_bytes)]
    best = ", ".join(f"{name} {value:.3f}" for name, value in item.best.items())
    assert item.written is not None
    local = datetime.fromisoformat(item.written).astimezone()
    return [
        where,
        item.name or "",
        item.state,
        f"{item.records}/{item.planned}",
        f"{item.failed}",
        f"{item.front}",
        item.recommended or "none",
        best,
        f"{local:%Y-%m-%d %H:%M}",
        show.size(item.size_bytes),
    ]


def runs_data(found: Sequence[RunLine], root: Path) -> dict[str, Any]:
    """The same as data."""
    return {
        "folder": str(root),
        "runs": [{**item._asdict(), "path": str(item.path)} for item in found],
    }
