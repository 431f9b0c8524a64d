"""The task of one trial: `TrajectoryTask` and its parts.

Frozen dataclasses of the standard library only: trials run where the driver's packages are missing. A
task is complete: two workers given the same task and the same files write the same records.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from sweeper.errors import SweeperError
from sweeper.task.blocks import from_plain
from sweeper.task.compute import ComputeSettings
from sweeper.task.data import DataSettings
from sweeper.task.evaluation import EvaluationSettings
from sweeper.task.model import ModelSource, Tuning
from sweeper.task.optimizer import OptimizerSettings
from sweeper.task.stop_rules import StopRules

TASK_VERSION = 2

Item = TypeVar("Item")

AverageKind = Literal["raw", "ema", "interpolate"]


@dataclass(frozen=True, slots=True)
class Average:
    """How weights are read from a path: unchanged, as an EMA, or mixed with theta_0.

    `decay` in (0, 1) belongs to `ema`: e <- decay * e + (1 - decay) * theta after each optimizer step,
    e_0 = theta_0. `weight` in [0, 1] belongs to `interpolate`: (1 - weight) * theta + weight * theta_0.
    """

    kind: AverageKind = "raw"
    decay: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if (self.kind == "ema") != (self.decay is not None):
            raise SweeperError(f"`decay` belongs to `ema` only, but got {self}")
        if (self.kind == "interpolate") != (self.weight is not None):
            raise SweeperError(f"`weight` belongs to `interpolate` only, but got {self}")

    @property
    def label(self) -> str:
        """The average in short notation: `raw`, `ema(0.99)`, `interpolate(0.5)`."""
        value = self.decay if self.kind == "ema" else self.weight
        return "raw" if value is None else f"{self.kind}({value:.6g})"


@dataclass(frozen=True, slots=True)
class Readout:
    """One configuration read from a trajectory at `step` (0 = the untouched base model).

    `segment` is the index of the task's segment that `step` lies on.
    """

    config_id: str
    role: str
    segment: int
    step: int
    average: Average
    config: dict[str, Any] = field(compare=False, hash=False)

    def described(self) -> dict[str, Any]:
        """The readout as a record states it."""
        return {
            "step": self.step,
            "kind": self.average.kind,
            "decay": self.average.decay,
            "weight": self.average.weight,
            "label": self.average.label,
        }


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of optimizer steps `start + 1 ... stop` under one schedule.

    The trunk starts at 0. A decay tail of `warmup_stable_decay` branches from the trunk at `start` and
    does not continue it. `total_steps` is the length that the schedule assumes, `decay_steps` the length
    of its decay; a trunk's decay begins after its last step.
    """

    start: int
    stop: int
    total_steps: int
    decay_steps: int = 0


def equal_parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut into as few parts of at most `size` as possible, of nearly equal length, in order."""
    parts = -(-len(items) // size)
    bounds = [len(items) * i // max(1, parts) for i in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class TrajectoryTask:
    """One optimizer path and every readout of it."""

    trajectory_id: str
    seed: int
    model: ModelSource
    tuning: Tuning
    data: DataSettings
    optimizer: OptimizerSettings
    evaluation: EvaluationSettings
    compute: ComputeSettings
    objectives: tuple[str, ...]
    segments: tuple[Segment, ...]
    readouts: tuple[Readout, ...]
    stop: StopRules | None = None
    version: int = TASK_VERSION

    def to_json(self) -> str:
        """The task as one JSON document; floats survive bit for bit."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "TrajectoryTask":
        """Read `to_json` back.

        Raises:
            SweeperError: not JSON, another version, or fields this version does not know.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SweeperError(f"the task is not JSON: {error}; use `sweeper plan`") from None
        found = raw.get("version") if isinstance(raw, dict) else None
        if found != TASK_VERSION:
            raise SweeperError(
                f"task version {found!r} is unknown; this sweeper reads {TASK_VERSION}"
            )
        try:
            return from_plain(cls, raw)
        except (TypeError, ValueError) as error:
            raise SweeperError(f"the task does not have the expected fields: {error}") from None

    @classmethod
    def read(cls, path: Path) -> "TrajectoryTask":
        """Read a task file; see `from_json` for what it raises."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SweeperError(f"cannot read the task {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SweeperError(f"the task {path} is not UTF-8 text") from None
