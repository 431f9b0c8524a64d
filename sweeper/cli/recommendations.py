"""What `sweeper recommend` prints: the choice, what it was held against, what confirming it says."""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from sweeper.analysis import (
    Candidate,
    Contrast,
    PairedDifference,
    Recommendation,
    multiplicity,
    side_by_side,
)
from sweeper.cli import show
from sweeper.spec import SweepSpec
from sweeper.sweep.confirm import HOLDS, Confirmation, Shrinkage


def recommendation(found: Recommendation, spec: SweepSpec) -> None:
    """The recommended configuration, what it stands beside, and the tests against its controls."""
    show.line("")
    show.line(found.reason)
    table = Table()
    table.add_column("")
    table.add_column("configuration")
    for objective in spec.objectives:
        table.add_column(objective.metric, justify="right")
    for name, item in side_by_side(found):
        values = [show.value_text(item, objective.metric) for objective in spec.objectives]
        table.add_row(name, item.config_id, *values)
    show.fit(table)
    if found.contrasts:
        show.fit(tests(found.contrasts, spec, "Recommended minus its controls (95 % intervals)"))
    show.line(multiplicity(found))


def tests(contrasts: Sequence[Contrast], spec: SweepSpec, title: str) -> Table:
    """A configuration against others, one per row, with the exact test of the unsafe rate."""
    table = Table(title=title, title_justify="left")
    table.add_column("against")
    table.add_column("unsafe_rate", justify="right")
    table.add_column("only it unsafe, only the other")
    table.add_column("exact McNemar p", justify="right")
    table.add_column(spec.utility.metric, justify="right")
    for name, _, unsafe, utility in contrasts:
        cells = (
            difference_text(unsafe),
            _discordant(unsafe),
            p_text(unsafe),
            difference_text(utility),
        )
        table.add_row(name, *cells)
    return table


def difference_text(found: PairedDifference | None, *, mark: bool = True) -> str:
    """`-0.021 (-0.044 to -0.002)`; with `mark`, `unpaired` where rows are not stored."""
    if found is None:
        return "not measured"
    if found.interval is None:
        return f"{found.difference:+.3f} (no interval)"
    low, high = found.interval
    unpaired = ", unpaired" if mark and not found.paired else ""
    return f"{found.difference:+.3f} ({low:+.3f} to {high:+.3f}{unpaired})"


def p_text(found: PairedDifference | None) -> str:
    """The largest p over seeds; a dash where there are no verdicts to pair."""
    if found is None or found.p_value is None:
        return "-"
    return "below 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}"


def _discordant(found: PairedDifference | None) -> str:
    pairs = () if found is None else found.discordant
    return "; ".join(f"{pair.first}, {pair.second} of {pair.n}" for pair in pairs) or "-"


def recommendation_data(found: Recommendation) -> dict[str, Any]:
    """The same as data."""
    return {
        "policy": found.policy._asdict(),
        "chosen": candidate_data(found.chosen),
        "reason": found.reason,
        "compared": found.compared,
        "multiplicity": multiplicity(found),
        "qualified": [item.config_id for item in found.ranked],
        "tests": [
            {
                "against": name,
                "config_id": other.config_id,
                "unsafe_rate": difference_data(unsafe),
                "utility": difference_data(utility),
            }
            for name, other, unsafe, utility in found.contrasts
        ],
        "base": candidate_data(found.base),
        "default": candidate_data(found.default),
        "without_averaging": candidate_data(found.unaveraged),
        "nearest": candidate_data(found.nearest),
    }


def candidate_data(item: Candidate | None) -> dict[str, Any] | None:
    """Id, hyperparameters, and means over seeds."""
    if item is None:
        return None
    return {
        "config_id": item.config_id,
        "role": item.role,
        "config": dict(item.config),
        "metrics": dict(item.values),
        "probabilities": list(item.probabilities),
    }


def difference_data(found: PairedDifference | None) -> dict[str, Any] | None:
    """A difference with its interval and test."""
    if found is None:
        return None
    return {
        "metric": found.metric,
        "first": found.first,
        "second": found.second,
        "difference": found.difference,
        "interval": None if found.interval is None else list(found.interval),
        "paired": found.paired,
        "n": found.n,
        "discordant": [pair._asdict() for pair in found.discordant],
        "mcnemar_p": found.p_value,
    }


def shrinkage(found: Sequence[Shrinkage], confirm: Confirmation, spec: SweepSpec) -> None:
    """Each configuration in the search and again, and what has become of it."""
    name = spec.utility.metric
    table = Table(title="Search and confirmation (95 % intervals)", title_justify="left")
    table.add_column("")
    heads = ("unsafe_rate: search", "again", "again - search")
    for head in (*heads, f"{name}: search", "new seeds - search"):
        table.add_column(head, justify="right")
    for item in found:
        again = "not measured" if item.again is None else _rate(item.again)
        cells = (
            _rate(item.search),
            again,
            difference_text(item.unsafe, mark=not confirm.new_prompts),
        )
        useful = show.value_text(item.search, name), difference_text(item.utility)
        table.add_row(*map(escape, (item.name, *cells, *useful)))
    show.fit(table)
    for item in found:
        show.line(f"{item.name} ({item.config_id}): {item.verdict}")
    for note in confirm.notes:
        show.line(f"note: {note}")
    if found:
        held = found[0].verdict == HOLDS
        show.line(f"the recommendation is {'confirmed' if held else 'NOT confirmed'}")


def _rate(item: Candidate) -> str:
    between = item.interval("unsafe_rate")
    if between is None or "unsafe_rate" not in item.values:
        return "not measured"
    counts = item.counts("unsafe_rate")
    return f"{item.values['unsafe_rate']:.3f} ({counts}; {between.low:.3f} to {between.high:.3f})"


def shrinkage_data(found: Sequence[Shrinkage], confirm: Confirmation) -> dict[str, Any]:
    """The same as data."""
    return {
        "run": str(confirm.folder.root),
        "new_prompts": confirm.new_prompts,
        "seeds": list(confirm.spec.seeds),
        "notes": list(confirm.notes),
        "confirmed": bool(found) and found[0].verdict == HOLDS,
        "configurations": [
            {
                "name": item.name,
                "config_id": item.config_id,
                "search": candidate_data(item.search),
                "again": candidate_data(item.again),
                "unsafe_rate": difference_data(item.unsafe),
                "utility": difference_data(item.utility),
                "verdict": item.verdict,
            }
            for item in found
        ],
    }
