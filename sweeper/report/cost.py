"""The estimated cost of the sweep beside the cost in its records."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.estimate import duration_text, saved, spent
from sweeper.store.records import TrialRecord

PHASES = ("load", "train", "evaluate")
"""The phases in both the estimate and the records; worker startup and idle time are not recorded."""


def cost_rows(
    estimate: Mapping[str, Any] | None, records: Sequence[TrialRecord]
) -> tuple[tuple[str, str], ...]:
    """Rows of worker time, estimated and measured, their ratio, and the savings by early stopping.

    Args:
        estimate: What plan.json holds under `estimate`, or None where none could be made.
        records: Of the run.
    """
    rows: list[tuple[str, str]] = []
    expected = None
    if estimate is not None:
        phases = [float(estimate[f"{name}_seconds"]) for name in PHASES]
        expected = sum(phases)
        rows.append((f"worker time estimated before the run ({estimate['source']})", _text(phases)))
    actual = spent(records)
    if actual.records and actual.seconds:
        phases = [actual.load_seconds, actual.train_seconds, actual.evaluate_seconds]
        of = f"{actual.records} of {len(records)} records"
        rows.append((f"worker time measured (sum over {of})", _text(phases)))
        if expected:
            ratio = f"{actual.seconds / expected:.2g}-fold"
            rows.append(("measured compared with the estimate of the whole plan", ratio))
    if (less := saved(records)) is not None:
        rows.append(("stopped early", less.text))
    return tuple(rows)


def _text(phases: Sequence[float]) -> str:
    named = [f"{n} {duration_text(value)}" for n, value in zip(PHASES, phases, strict=True)]
    return f"{duration_text(sum(phases))} ({', '.join(named)})"
