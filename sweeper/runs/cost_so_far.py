"""What a sweep has cost so far, beside its estimate."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sweeper.estimate import duration_text, spent
from sweeper.spec import SweepSpec
from sweeper.store.records import TrialRecord


class CostSoFar(NamedTuple):
    """Worker seconds in the records of a search, and those that its estimate has for all of them.

    `gpus` are those of one worker, 0 on a CPU; `usd_per_gpu_hour` is None where the sweep names no price.
    """

    seconds: float
    estimated_seconds: float | None
    gpus: float
    usd_per_gpu_hour: float | None

    @property
    def text(self) -> str:
        """`2.1 min of worker time, about 9.3 min estimated`; on GPUs in hours of them, and money."""
        if not self.gpus:
            total = self.estimated_seconds
            planned = "" if total is None else f", about {duration_text(total)} estimated"
            return f"{duration_text(self.seconds)} of worker time{planned}"
        texts = [self._amount(self.gpus / 3600, "GPU-hours")]
        if self.usd_per_gpu_hour is not None:
            texts.append(self._amount(self.gpus / 3600 * self.usd_per_gpu_hour, "USD"))
        return "; ".join(texts)

    def _amount(self, each: float, unit: str) -> str:
        """`1.20 GPU-hours, about 4.50 estimated`, at so many units for each worker second."""
        total = self.estimated_seconds
        planned = "" if total is None else f", about {total * each:.2f} estimated"
        return f"{self.seconds * each:.2f} {unit}{planned}"


def cost_so_far(
    records: Iterable[TrialRecord], estimate: Mapping[str, Any] | None, spec: SweepSpec
) -> CostSoFar:
    """See `CostSoFar`.

    Args:
        records: Of the search.
        estimate: What plan.json holds under `estimate`, or None where none could be made.
        spec: Of the sweep, whose budget may name a price.
    """
    budget = spec.compute.budget
    known = estimate or {}
    total = float(known.get("worker_seconds", 0.0))
    return CostSoFar(
        seconds=spent(records).seconds,
        estimated_seconds=total or None,
        gpus=3600 * float(known.get("gpu_hours", 0.0)) / total if total else 0.0,
        usd_per_gpu_hour=None if budget is None else budget.usd_per_gpu_hour,
    )
