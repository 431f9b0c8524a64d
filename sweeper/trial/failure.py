"""Why an attempt at a trajectory ended before its readouts were measured."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.errors import TrainingDivergedError


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended before its readouts were measured.

    `reason` is that of a record: class, message, traceback, stage. Out of memory, `micro_rows` and
    `readouts` are what was tried.
    """

    reason: Mapping[str, Any]
    provenance: Mapping[str, Any] | None = None
    out_of_memory: bool = False
    micro_rows: int = 0
    readouts: int = 0


def failure_of(error: Exception, stage: str) -> Failure:
    """An error as a failure of some stage."""
    reason: dict[str, Any] = {
        "class": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "stage": stage,
    }
    if isinstance(error, TrainingDivergedError):
        reason["step"] = error.step
    return Failure(reason)
