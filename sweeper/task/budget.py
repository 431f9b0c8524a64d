"""How much a whole run may use. It changes which paths are trained, never the result of one."""

import math
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any

from sweeper.task.fields import After, Before, Doc, Positive


def _written(raw: Any) -> Any:
    """Read what YAML took for a date or a time as text."""
    return raw.isoformat() if isinstance(raw, date) else raw


def _moment(text: str) -> str:
    """Reject a text that is no time in ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f'found {text!r}; a time in ISO 8601 is expected, like "2026-12-01T08:00"'
        ) from None
    return text


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may use, its decision and earlier starts of the same run included.

    Of several limits the first one reached ends the run. Where trials have no GPU, an hour of one counts
    as a GPU-hour.
    """

    gpu_hours: Annotated[
        Positive | None, Doc("Hours of trials times their GPUs; on CPUs, hours of trials.")
    ] = None
    until: Annotated[
        Annotated[str, Before(_written), After(_moment)] | None,
        Doc("A time in ISO 8601, by the clock of the machine that runs `sweeper`."),
    ] = None
    usd: Annotated[Positive | None, Doc("Money, at `usd_per_gpu_hour`.")] = None
    usd_per_gpu_hour: Annotated[Positive | None, Doc("What a GPU-hour costs.")] = None

    def __post_init__(self) -> None:
        if self.gpu_hours is None and self.until is None and self.usd is None:
            raise ValueError("a budget needs `gpu_hours`, `until` or `usd`")
        if (self.usd is None) != (self.usd_per_gpu_hour is None):
            raise ValueError("`usd` and `usd_per_gpu_hour` belong together: give both or none")

    def worker_seconds(self, gpus: float) -> float:
        """The seconds of trials with so many GPUs each that gpu_hours and usd pay for; or infinity."""
        hours = [] if self.gpu_hours is None else [self.gpu_hours]
        if self.usd is not None and self.usd_per_gpu_hour is not None:
            hours.append(self.usd / self.usd_per_gpu_hour)
        return 3600 * min(hours, default=math.inf) / (gpus or 1.0)

    @property
    def deadline(self) -> float:
        """`until` in seconds since 1970, infinity where there is none; without a zone, local time."""
        return math.inf if self.until is None else datetime.fromisoformat(self.until).timestamp()
