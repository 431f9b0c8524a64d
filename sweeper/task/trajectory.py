"""The task of one trial: `TrajectoryTask` and its parts.

Frozen dataclasses of the standard library only: trials run where the driver's packages are missing. A
task is complete: two workers given the same task and the same files write the same records.
"""

import json
from collections.abc import Iterable, Sequence
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

AverageKind = Literal["raw", "ema", "interpolate", "bema"]


@dataclass(frozen=True, slots=True)
class Bema:
    """Settings of a bias-corrected EMA, by the names of TRL's `BEMACallback` (arXiv 2508.00180).

    At every step t that `update_freq` divides, with s = lag + multiplier * t:
    e <- (1 - b) * e + b * theta, b = s^-ema_power, e starting at theta_0.
    Read are the weights e + s^-bias_power * (theta - theta_0).
    """

    update_freq: int = 1
    ema_power: float = 0.5
    bias_power: float = 0.2
    lag: int = 10
    multiplier: float = 1.0

    def newest_weight(self, step: int) -> float:
        """The weight b of theta in the update at a step, in (0, 1]; 0 where there is no update."""
        return 0.0 if step % self.update_freq else float(self._age(step) ** -self.ema_power)

    def correction(self, step: int) -> float:
        """The factor on theta - theta_0 at a step, in (0, 1]."""
        return float(self._age(step) ** -self.bias_power)

    def _age(self, step: int) -> float:
        return self.lag + self.multiplier * step


@dataclass(frozen=True, slots=True)
class Average:
    """How weights are read from a path: unchanged, as an EMA, mixed with theta_0, or as a BEMA.

    `decay` in (0, 1) belongs to `ema`: e <- decay * e + (1 - decay) * theta after each optimizer step,
    e_0 = theta_0. `weight` in [0, 1] belongs to `interpolate`: (1 - weight) * theta + weight * theta_0.
    `bema` has its own settings.
    """

    kind: AverageKind = "raw"
    decay: float | None = None
    weight: float | None = None
    bema: Bema | None = None

    def __post_init__(self) -> None:
        if (self.kind == "ema") != (self.decay is not None):
            raise SweeperError(f"`decay` belongs to `ema` only, but got {self}")
        if (self.kind == "interpolate") != (self.weight is not None):
            raise SweeperError(f"`weight` belongs to `interpolate` only, but got {self}")
        if (self.kind == "bema") != (self.bema is not None):
            raise SweeperError(f"`bema` belongs to `bema` only, but got {self}")

    @property
    def running(self) -> float | Bema | None:
        """What is averaged along the path: the decay of an EMA, a BEMA, or nothing."""
        return self.bema if self.decay is None else self.decay

    @property
    def label(self) -> str:
        """The average in short notation: `raw`, `ema(0.99)`, `interpolate(0.5)`."""
        value = self.decay if self.kind == "ema" else self.weight
        return "raw" if value is None else f"{self.kind}({value:.6g})"


def running_averages(averages: Iterable[Average]) -> list[float | Bema]:
    """What has to be averaged along a path read with these averages, each once, in a stable order."""
    found = {item.running for item in averages if item.running is not None}
    return sorted(found, key=lambda one: (isinstance(one, Bema), repr(one)))


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
            **({} if self.average.bema is None else {"bema": asdict(self.average.bema)}),
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

    @property
    def steps(self) -> int:
        """Optimizer steps of all segments, decay tails included."""
        return sum(segment.stop - segment.start for segment in self.segments)

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
