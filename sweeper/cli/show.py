"""Output of commands: tables and messages. All terminal output goes through this module."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table

from sweeper.analysis.decision import Decision, weights_text
from sweeper.estimate import DiskNeed, Estimate, duration_text
from sweeper.estimate.decision_cost import DecisionCost
from sweeper.estimate.inputs import OnGpu
from sweeper.memory import GIB
from sweeper.planning import Accounting
from sweeper.runs.fields import Output
from sweeper.runs.terminal import Terminal

UNBOUNDED = 1000
"""The width used for a file or a pipe, so that lines do not wrap."""

out = Terminal(highlight=False, emoji=False)
if not out.is_terminal and "COLUMNS" not in os.environ:
    out.width = UNBOUNDED
err = Terminal(stderr=True, highlight=False, emoji=False)


def fit(table: Table, to: Console = out) -> None:
    """Print a table; where it is wider than the terminal, one block per row, so that nothing is cut.

    Blocks leave out what is empty.
    """
    options = to.options.update(max_width=UNBOUNDED)
    if Measurement.get(to, options, table).maximum <= to.width:
        to.print(table)
        return
    if table.title:
        to.print(table.title, style="italic")
    heads = [str(column.header) for column in table.columns]
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    if not table.show_header:
        _block(rows, max(cell_len(str(row[0])) for row in rows), to)
        return
    widest = max(map(cell_len, heads[1:]))
    for row in rows:
        to.print(row[0], style="bold")
        pairs = zip(heads[1:], row[1:], strict=True)
        _block([(head, cell) for head, cell in pairs if str(cell)], widest, to)


def _block(rows: Sequence[Sequence[RenderableType]], widest: int, to: Console) -> None:
    """Indented rows without lines, of a first column that is at most half as wide as the terminal."""
    block = Table.grid(padding=(0, 2, 0, 0))
    block.add_column(width=min(widest, to.width // 2 - 2), overflow="fold")
    for row in rows:
        block.add_row(*row)
    for column in block.columns[1:]:
        column.overflow = "fold"
    to.print(Padding(block, (0, 0, 0, 2), expand=False))


def error(message: str) -> None:
    """One error message on standard error, without markup."""
    err.print(f"error: {message}", markup=False, soft_wrap=True)


def note(text: str) -> None:
    """One plain line on standard error."""
    err.print(text, markup=False, soft_wrap=True)


def line(text: str) -> None:
    """One plain line on standard output."""
    out.print(text, markup=False, soft_wrap=True)


def data(output: Output) -> None:
    """JSON on standard output, for programs."""
    json_text(json.dumps(output.model_dump(), indent=1))


def json_text(text: str) -> None:
    """JSON text, which is ASCII, so that only DEL is left to escape."""
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")


def table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Rows of cells under a title, without headers and without markup."""
    made = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    fit(made)


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
    fit(table)
    for note in counted.notes:
        line(f"note: {note}")


def rows(counts: Mapping[str, int], unread: Iterable[str] = ()) -> None:
    """Numbers of training and held-out rows, of rows left out or truncated; and data files not read."""
    changed = [
        f"{name.replace('_', ' ')} {count:,}"
        for name, count in counts.items()
        if count and name not in ("train_rows", "heldout_rows", "safety_rows")
    ]
    mixed = f" (safety rows: {counts['safety_rows']:,})" if counts.get("safety_rows") else ""
    known = "" if "truncated_completions" in counts else "; a run counts overlong and cut rows, too"
    line(
        f"data: {counts['train_rows']:,} rows to train on{mixed}, {counts['heldout_rows']:,} held out; "
        f"{', '.join(changed) or 'none left out'}{known}"
    )
    for files in unread:
        line(f"data: {files}")


def outcome(decision: Decision | str | None, *, told: bool = False) -> None:
    """The outcome of a decision, or why there was nothing to decide; nothing where it is left out.

    `told` leaves out what the reason of a recommendation says: the last test of a finished decision.
    """
    if decision is None:
        return
    if isinstance(decision, str):
        line(decision)
        return
    told = told and decision.complete
    for step in decision.steps[:-1] if told else decision.steps:
        line(f"{step.place}. {step.config_id} {step.verdict}")
        for test in step.weights:
            line(f"   {weights_text(test)}")
    for note in decision.notes:
        line(f"note: {note}")
    if told:
        return
    spent = f"error level {decision.error:.3g} for all {decision.planned} together"
    line(f"decision: {decision.sentence} ({spent})")


def estimate(cost: Estimate, gpus: Sequence[OnGpu]) -> None:
    """The estimated time and memory of a plan, and how many trials fit on a GPU."""
    table = Table(title=f"Cost, {cost.source}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column()
    parts = cost.memory.at_peak().items()
    listed = ", ".join(f"{name} {size(value)}" for name, value in parts)
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
        ("peak memory of a trial", f"{measured}{size(cost.peak_memory_bytes)}"),
        (f"its parts, at the peak ({cost.memory.peak_phase})", listed),
        ("tokens", cost.tokens.source),
    ]
    for name, value in rows:
        table.add_row(name, escape(value))
    fit(table)
    fits = Table("GPU", title="Trials that fit at once (analytic)", title_justify="left")
    fits.add_column("trials", justify="right")
    fits.add_column("GPU-hours", justify="right")
    for item in gpus:
        hours_text = f"{item.gpu_hours:,.3g}" if item.trials else "does not fit"
        fits.add_row(escape(item.device.name), f"{item.trials}", hours_text)
    fit(fits)


def decision_cost(cost: DecisionCost, steps: int) -> None:
    """The cost of the decision at the end, beside the optimizer steps of the search."""
    texts = []
    for walk in cost:
        time = "" if walk.seconds is None else f", about {duration_text(walk.seconds)}"
        texts.append(f"{walk.steps:,} optimizer steps{time}")
    line(
        f"decision at the end: {texts[0]} ({cost.first.steps / max(1, steps):.0%} of the search's) if the "
        f"best configuration holds; at most {texts[1]}"
    )


def disk(need: DiskNeed, free: int, quota_gib: float | None) -> None:
    """The disk space a run needs, by part, and the free space."""
    named = need.to_data()
    total = named.pop("total_bytes")
    parts = ", ".join(f"{name} {size(count)}" for name, count in named.items() if count)
    quota = "" if quota_gib is None else f"; quota {quota_gib:g} GiB"
    line(f"disk: about {size(total)} at the peak ({parts}); {size(free)} free{quota}")


def size(count: int) -> str:
    """Bytes as text."""
    if count < 2**20 / 10:
        return f"{count / 2**10:.1f} KiB"
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
