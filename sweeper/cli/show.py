"""What commands print: tables, progress, messages."""

import json
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sweeper.agreement import Calibration, Share
from sweeper.cost import GIB, Estimate, duration_text
from sweeper.facts import OnGpu
from sweeper.front import Candidate, find_front
from sweeper.plan import Accounting, Plan
from sweeper.records import RecordsRead, TrialRecord
from sweeper.select import recommend
from sweeper.spec import SweepSpec

if TYPE_CHECKING:  # It imports torch, which reading commands do without.
    from sweeper.verify import Verification

out = Console(highlight=False)
if not out.is_terminal:
    out.width = 160  # A file or a pipe has no edge to wrap at.
err = Console(stderr=True, highlight=False)


def error(message: str) -> None:
    """One message on standard error, as it is: nothing in it is read as markup."""
    err.print(f"error: {message}", markup=False, soft_wrap=True)


def line(text: str) -> None:
    """One plain line on standard output."""
    out.print(text, markup=False, soft_wrap=True)


def data(content: Any) -> None:
    """JSON on standard output, for programs."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Rows of cells under a title, without heads; nothing in them is read as markup."""
    made = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        made.add_row(*(escape(cell) for cell in row))
    out.print(made)


def accounting(name: str, counted: Accounting) -> None:
    """What a plan costs and what sharing saves."""
    table = Table(title=f"Plan of {escape(name)}", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    rows = [
        ("configurations", f"{counted.configurations}"),
        ("controls beside them", f"{counted.controls}"),
        ("trajectories to train", f"{counted.trajectories}"),
        ("readouts to score", f"{counted.readouts}"),
        ("optimizer steps, every configuration alone", f"{counted.steps_alone:,}"),
        ("optimizer steps planned, controls included", f"{counted.steps_planned:,}"),
        ("ratio", f"{counted.ratio:.1f}x"),
    ]
    for row in rows:
        table.add_row(*row)
    out.print(table)
    for note in counted.notes:
        line(f"note: {note}")


def rows(counts: Mapping[str, int]) -> None:
    """Rows to train on and held out, and how many were left out or cut, where any were."""
    changed = [
        f"{name.replace('_', ' ')} {count:,}"
        for name, count in counts.items()
        if count and name not in ("train_rows", "heldout_rows")
    ]
    known = "" if "truncated_completions" in counts else "; a run counts overlong and cut rows, too"
    line(
        f"data: {counts['train_rows']:,} rows to train on, {counts['heldout_rows']:,} held out; "
        f"{', '.join(changed) or 'none left out'}{known}"
    )


def estimate(cost: Estimate, gpus: Sequence[OnGpu]) -> None:
    """What a plan will cost in time and memory, and how many of its trials a GPU holds."""
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
    out.print(table)
    fits = Table("GPU", title="Trials that fit at once (analytic)", title_justify="left")
    fits.add_column("trials", justify="right")
    fits.add_column("GPU-hours", justify="right")
    for item in gpus:
        hours_text = f"{item.gpu_hours:,.3g}" if item.trials else "does not fit"
        fits.add_row(escape(item.device.name), f"{item.trials}", hours_text)
    out.print(fits)


def size(count: int) -> str:
    """Bytes as people read them."""
    if count < 2**20 / 10:
        return f"{count / 2**10:.1f} KiB"
    return f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def value_text(item: Candidate, metric: str) -> str:
    """A metric as the tables show it."""
    value = item.values.get(metric)
    return "not measured" if value is None else f"{value:.3f}"


def measured_text(item: Candidate, spec: SweepSpec) -> str:
    """The objectives of a candidate, with the counts of rates."""
    parts = []
    for objective in spec.objectives:
        counts = item.counts(objective.metric)
        suffix = f" ({counts})" if counts else ""
        parts.append(f"{objective.metric} {value_text(item, objective.metric)}{suffix}")
    return ", ".join(parts)


def verifications(found: "Sequence[Verification]") -> None:
    """What `verify` found, one line per configuration and a sum."""
    for item in found:
        marks = {
            "weights bit-equal": item.bit_equal,
            "responses equal": item.responses_equal,
            "verdicts equal": item.verdicts_equal,
        }
        shown = ", ".join(f"{name}: {'yes' if held else 'NO'}" for name, held in marks.items())
        failure = f"; retraining failed: {item.failure}" if item.failure else ""
        packed = f", trained beside {item.packed_with} others" if item.packed_with else ""
        line(
            f"{item.config_id} seed {item.seed} {item.label} step {item.step} "
            f"(shared its path with {item.shared_with}{packed}): {shown}, "
            f"largest metric difference {item.difference:.1g}{failure}"
        )
    equal = sum(item.bit_equal for item in found)
    verdicts = sum(item.verdicts_equal for item in found)
    held = sum(item.holds for item in found)
    line(
        f"{equal} of {len(found)} bit-equal, {verdicts} of {len(found)} with equal verdicts, "
        f"{held} of {len(found)} as promised"
    )


def calibration(found: Calibration) -> None:
    """Each keyword list against people, best first, with 95 % intervals."""
    table = Table(title="Agreement with people (95 % Wilson intervals)", title_justify="left")
    table.add_column("list")
    for name in ("agreement", "false refusals", "missed refusals", "n"):
        table.add_column(name, justify="right")
    for item in found.lists:
        shares = [_share(item.agreement), _share(item.false_refusals), _share(item.missed_refusals)]
        table.add_row(escape(item.name), *shares, f"{item.agreement.n}")
    out.print(table)
    line(f"counted apart: {found.empty} empty and {found.degenerate} repetitive completions")


def _share(share: Share) -> str:
    if share.rate is None or share.interval is None:
        return "none"
    low, high = share.interval
    return f"{share.k}/{share.n} = {share.rate:.3f} ({low:.3f} to {high:.3f})"


def calibration_data(found: Calibration) -> dict[str, Any]:
    """The same as data: counts as integers, rates and intervals beside them."""
    return {
        "lists": [
            {
                "name": item.name,
                "agreement": item.agreement.rate,
                "agreement_interval": item.agreement.interval,
                "false_refusals": item.false_refusals.k,
                "false_refusal_rate": item.false_refusals.rate,
                "false_refusal_interval": item.false_refusals.interval,
                "missed_refusals": item.missed_refusals.k,
                "missed_refusal_rate": item.missed_refusals.rate,
                "missed_refusal_interval": item.missed_refusals.interval,
                "n": item.agreement.n,
                "compliances": item.false_refusals.n,
                "refusals": item.missed_refusals.n,
                "empty": found.empty,
                "degenerate": found.degenerate,
            }
            for item in found.lists
        ]
    }


class SweepProgress:
    """Progress of a sweep: a bar on a terminal, a plain line per finished tenth otherwise."""

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._records: list[TrialRecord] = []
        self._total = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[best]}", markup=False),
            console=err,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task(spec.name, best="", start=False)

    def __enter__(self) -> "SweepProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, plan: Plan, found: RecordsRead) -> None:
        """Show what will be done and start counting."""
        before = found.records
        self._records = list(before)
        self._total = plan.accounting.readouts
        accounting(self._spec.name, plan.accounting)
        if found.torn:
            line(f"cut {len(found.torn)} bytes of a line torn by a crash; it is measured again")
        if before:
            line(f"resuming: {len(before)} of {self._total} records are there already")
        self._bar.start()
        self._bar.start_task(self._task)
        self._bar.update(self._task, total=self._total, completed=len(before))

    def record(self, record: TrialRecord) -> None:
        """Count one new record."""
        self._records.append(record)
        done = len(self._records)
        tenth = max(1, self._total // 10)
        if record.status != "complete":
            reason = record.reason or {}
            err.print(
                f"{record.config_id} seed {record.seed}: {record.status}: "
                f"{reason.get('message', reason.get('evidence', reason))}",
                markup=False,
            )
        if not err.is_terminal and (done % tenth == 0 or done == self._total):
            planned = f"/{self._total}" if done <= self._total else ""  # A search may add more.
            line(f"{done}{planned} records{self._best()}")
        elif err.is_terminal:
            if done % tenth == 0 or done == self._total:  # The front costs more than a record.
                self._bar.update(self._task, best=self._best())
            self._bar.update(self._task, completed=done)

    def _best(self) -> str:
        chosen = recommend(find_front(self._records, self._spec), self._spec).chosen
        return "" if chosen is None else f"; best feasible: {measured_text(chosen, self._spec)}"
