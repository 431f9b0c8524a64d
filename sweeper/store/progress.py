"""The progress file of a trajectory, written by its trial while it runs.

The file is a heartbeat and a training curve, not a result: no measured value comes from it. It may be on a
shared disk, from another version, or damaged, so every field is validated when it is read.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PROGRESS_VERSION = 1

STAGES = ("load", "train", "checkpoint", "evaluate", "end")
"""The stages of a trial; at `end` its readouts have been measured or have failed."""

MAX_BYTES = 64 * 1024**2
"""The maximum size of a progress file: a million losses take a third of it."""

_TRAJECTORY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class TrajectoryProgress:
    """The progress of one trajectory at its last update.

    `step` of `steps` optimizer steps are done; the last readout is at `steps`. `losses` are the losses of
    steps 1, 2, ... fetched so far, in nats per target token: on a GPU there may be fewer than `step`. On a
    decay tail, `step` and `losses` cover the trunk and this tail. `beat` increases with every update, even
    across restarts. `written_at` is the writer's clock, in seconds since 1970.
    """

    trajectory_id: str
    stage: str
    step: int
    steps: int
    losses: tuple[float, ...]
    beat: int
    written_at: float

    @property
    def running(self) -> bool:
        """Whether its trial was running at the last update. A killed trial still appears as running."""
        return self.stage != "end"

    def to_json(self) -> str:
        """The contents of the file."""
        names = ("stage", "step", "steps", "losses", "beat", "written_at")
        return json.dumps(
            {"version": PROGRESS_VERSION, **{name: getattr(self, name) for name in names}}
        )


def read_trajectory(path: Path) -> TrajectoryProgress | None:
    """Read the progress file of one trajectory; None if it is missing or invalid.

    Args:
        path: `trajectories/ID/progress.json`. Symbolic links are not followed.
    """
    name = path.parent.name
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        return _validated(name, raw)
    except (OSError, ValueError, RecursionError):
        return None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a valid loss")


def _validated(name: str, raw: Any) -> TrajectoryProgress:
    """The progress in a file, with the type and range of every field checked.

    Raises:
        ValueError: a field is invalid.
    """
    if not isinstance(raw, dict) or raw.get("version") != PROGRESS_VERSION:
        raise ValueError("not a progress file of this version")
    stage, losses, counts = raw.get("stage"), raw.get("losses"), []
    for field in ("step", "steps", "beat"):
        value = raw.get(field)
        if type(value) is not int or value < 0:
            raise ValueError(f"{field} is not a count")
        counts.append(value)
    if stage not in STAGES or not isinstance(losses, list) or not _TRAJECTORY_ID.fullmatch(name):
        raise ValueError("unknown stage, invalid id, or missing losses")
    values = tuple(_finite(item) for item in losses)
    step, steps, beat = counts
    return TrajectoryProgress(
        name, str(stage), step, steps, values, beat, _finite(raw.get("written_at"))
    )


def _finite(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"expected a number, found {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("the number is too large") from None
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number
