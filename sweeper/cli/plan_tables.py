"""Tables of a plan: what it trains, its data, its cost and the disk space it needs."""

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from sweeper.cli import show
from sweeper.estimate import DiskNeed, Estimate, duration_text
from sweeper.estimate.decision_cost import DecisionCost
from sweeper.estimate.inputs import OnGpu
from sweeper.planning import Accounting
from sweeper.sweep.budget_schedule import settings_of, settings_text
from sweeper.sweep.forecast import Forecast

MOST_STARTS = 20
"""Trials of an order that are shown."""


def accounting(name: str, counted: Accounting) -> None:
    """The counts of a plan and the steps saved by sharing."""
    table = Table(title=f"Plan of {escape(name)}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    rows = [
        ("configurations", f"{counted.configurations}"),
        ("controls", f"{counted.controls}"),
        ("trajectories to train", f"{counted.trajectories}"),
        ("readouts to score", f"{counted.readouts}"),
        ("optimizer steps, every configuration alone", f"{counted.steps_alone:,}"),
        ("optimizer steps planned, controls included", f"{counted.steps_planned:,}"),
        ("ratio", f"{counted.ratio:.1f}x"),
    ]
    for row in rows:
        table.add_row(*row)
    show.fit(table)
    for note in counted.notes:
        show.line(f"note: {note}")


def rows(counts: Mapping[str, int], unread: Iterable[str] = ()) -> None:
    """Numbers of training and held-out rows, of rows left out or truncated; and data files not read."""
    changed = [
        f"{name.replace('_', ' ')} {count:,}"
        for name, count in counts.items()
        if count and name not in ("train_rows", "heldout_rows", "safety_rows")
    ]
    mixed = f" (safety rows: {counts['safety_rows']:,})" if counts.get("safety_rows") else ""
    known = "" if "truncated_completions" in counts else "; a run counts overlong and cut rows, too"
    show.line(
        f"data: {counts['train_rows']:,} rows to train on{mixed}, {counts['heldout_rows']:,} held out; "
        f"{', '.join(changed) or 'none left out'}{known}"
    )
    for files in unread:
        show.line(f"data: {files}")


def estimate(cost: Estimate, gpus: Sequence[OnGpu]) -> None:
    """The estimated time and memory of a plan, and how many trials fit on a GPU."""
    table = Table(title=f"Cost, {cost.source}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column()
    parts = cost.memory.at_peak().items()
    listed = ", ".join(f"{name} {show.size(value)}" for name, value in parts)
    measured = "" if cost.measured_memory_bytes is None else "measured; "
    phases = [
        ("train", cost.train_seconds),
        ("evaluate", cost.evaluate_seconds),
        ("load", cost.load_seconds),
        ("start", cost.startup_seconds),
    ]
    hours = cost.gpu_hours or cost.cpu_core_hours
    rows = [
        (f"wall time, {cost.workers} at once", duration_text(cost.wall_seconds)),
        ("GPU-hours" if cost.gpu_hours else "CPU-core-hours", f"{hours:,.3g}"),
        ("worker time", ", ".join(f"{name} {duration_text(value)}" for name, value in phases)),
        ("device of a trial", cost.rates.device),
        ("peak memory of a trial", f"{measured}{show.size(cost.peak_memory_bytes)}"),
        (f"its parts, at the peak ({cost.memory.peak_phase})", listed),
        ("tokens", cost.tokens.source),
    ]
    for name, value in rows:
        table.add_row(name, escape(value))
    show.fit(table)
    fits = Table("GPU", title="Trials that fit at once (analytic)", title_justify="left")
    fits.add_column("trials", justify="right")
    fits.add_column("GPU-hours", justify="right")
    for item in gpus:
        hours_text = f"{item.gpu_hours:,.3g}" if item.trials else "does not fit"
        fits.add_row(escape(item.device.name), f"{item.trials}", hours_text)
    show.fit(fits)


def decision_cost(cost: DecisionCost, steps: int) -> None:
    """The cost of the decision at the end, beside the optimizer steps of the search."""
    texts = []
    for walk in cost:
        time = "" if walk.seconds is None else f", about {duration_text(walk.seconds)}"
        texts.append(f"{walk.steps:,} optimizer steps{time}")
    show.line(
        f"decision at the end: {texts[0]} ({cost.first.steps / max(1, steps):.0%} of the search's) if the "
        f"best configuration holds; at most {texts[1]}"
    )


def forecast(found: Forecast) -> None:
    """The order of a search, and where its budget is expected to end."""
    shown = Table("begins", "ends", "paths", "seed", "settings", title="Order, by the estimate")
    for item in found.starts[:MOST_STARTS]:
        first = item.pack[0]
        settings = settings_text(list(map(settings_of, item.pack))) if first.steps else "untouched"
        times = (duration_text(item.began), duration_text(item.ended))
        shown.add_row(*times, f"{len(item.pack)}", f"{first.seed}", escape(settings))
    show.fit(shown)
    if (more := len(found.starts) - MOST_STARTS) > 0:
        show.line(f"and {more} more trials; `sweeper plan --json` has all under a budget")
    if found.end is not None:
        show.line(f"expected: {found.end.text}")


def disk(need: DiskNeed, free: int, quota_gib: float | None) -> None:
    """The disk space a run needs, by part, and the free space."""
    named = need.to_data()
    total = named.pop("total_bytes")
    parts = ", ".join(f"{name} {show.size(count)}" for name, count in named.items() if count)
    quota = "" if quota_gib is None else f"; quota {quota_gib:g} GiB"
    show.line(
        f"disk: about {show.size(total)} at the peak ({parts}); {show.size(free)} free{quota}"
    )
