"""Failures of an attempt at a pack, and the limits of the next attempt."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from sweeper.errors import TrainingDivergedError
from sweeper.model.gpu_memory import is_out_of_memory, memory_summary


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


@dataclass(frozen=True, slots=True)
class Limits:
    """The batch limits of an attempt, after earlier ones ran out of memory; None is no limit.

    `micro_rows` bounds the rows per path, process and forward pass, `readouts` those scored together.
    Neither is part of a configuration: they change nothing but rounding. `pack_failure` says why the pack
    that this trajectory belonged to is trained one by one.
    """

    micro_rows: int | None = None
    readouts: int | None = None
    halvings: int = 0
    pack_failure: str | None = None

    def after(self, failure: Failure) -> "Limits | None":
        """The limits of the next attempt, or None if lower limits would not help."""
        if not failure.out_of_memory:
            return None
        if failure.reason["stage"] == "train" and failure.micro_rows > 1:
            return replace(self, micro_rows=failure.micro_rows // 2, halvings=self.halvings + 1)
        if failure.reason["stage"] == "evaluate" and failure.readouts > 1:
            return replace(self, readouts=failure.readouts // 2, halvings=self.halvings + 1)
        return None


def failure_of(error: Exception, stage: str) -> Failure:
    """Convert an error to the failure of a stage."""
    reason: dict[str, Any] = {
        "class": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
        "stage": stage,
    }
    if isinstance(error, TrainingDivergedError):
        reason["step"] = error.step
    return Failure(reason)


def attempt_failure(
    error: Exception,
    stage: str,
    provenance: Mapping[str, Any],
    device: torch.device,
    micro_rows: int,
    readouts: int,
) -> Failure:
    """Convert the error of an attempt to the failure of its remaining readouts.

    Args:
        error: The error that ended the attempt.
        stage: The stage of its first path.
        provenance: The provenance of its first path.
        device: The device it ran on.
        micro_rows: The last number of rows per path and forward pass; 0 before the first.
        readouts: The last number of readouts scored together; 0 before the first.
    """
    failure = failure_of(error, stage)
    if not is_out_of_memory(error):
        return replace(failure, provenance=provenance)
    message = (
        f"out of memory ({memory_summary(device)}) with {micro_rows} row(s) per forward "
        f"pass and {readouts or 1} readout(s) scored together; set "
        "compute.gradient_checkpointing, lower data.max_length or evaluation.batch_size, use LoRA, or "
        "shard a trial over more GPUs with compute.gpus_per_trial"
    )
    return replace(
        failure,
        reason={**failure.reason, "class": "OutOfMemoryError", "message": message},
        provenance=provenance,
        out_of_memory=True,
        micro_rows=micro_rows,
        readouts=readouts,
    )
