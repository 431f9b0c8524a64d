"""How far a trajectory is, as its trial writes it beside the records while it runs.

The file is a sign of life and a training curve, not a result: nothing that is measured comes from it. It
may lie on a shared disk, be of another version, or be damaged, so reading trusts nothing in it.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PROGRESS_VERSION = 1

STAGES = ("load", "train", "checkpoint", "evaluate", "end")
"""What a trial is doing; `end`: nothing more, whether its readouts are measured or failed."""

MAX_BYTES = 64 * 1024**2
"""No trial writes a longer file: a million losses are a third of it."""

_TRAJECTORY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class TrajectoryProgress:
    """How far one trajectory was when it last wrote.

    `step` of `steps` optimizer steps are done; `steps` is where its last readout lies. `losses` holds, in
    nats per target token, those that were looked at so far, of steps 1, 2, ...: on a GPU there may be fewer
    than `step`. On a decay tail `step` and `losses` are those of the trunk and this tail. `beat` goes up
    with every writing, restarts included. `written_at` is the writer's clock, in seconds since 1970.
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
        """Whether its trial was at work when it wrote. One that was killed could not say so."""
        return self.stage != "end"

    def to_json(self) -> str:
        """What the file holds."""
        names = ("stage", "step", "steps", "losses", "beat", "written_at")
        return json.dumps(
            {"version": PROGRESS_VERSION, **{name: getattr(self, name) for name in names}}
        )


def read_trajectory(path: Path) -> TrajectoryProgress | None:
    """The progress file of one trajectory, or None where there is none that can be believed.

    Args:
        path: `trajectories/ID/progress.json`. A link is not followed.
    """
    name = path.parent.name
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        return _believed(name, raw)
    except (OSError, ValueError, RecursionError):
        return None


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no loss")


def _believed(name: str, raw: Any) -> TrajectoryProgress:
    """The fields of a file, each of its type and in its range.

    Raises:
        ValueError: one of them is not.
    """
    if not isinstance(raw, dict) or raw.get("version") != PROGRESS_VERSION:
        raise ValueError("not a progress file of this version")
    stage, losses, counts = raw.get("stage"), raw.get("losses"), []
    for field in ("step", "steps", "beat"):
        value = raw.get(field)
        if type(value) is not int or value < 0:
            raise ValueError(f"{field} is no count")
        counts.append(value)
    if stage not in STAGES or not isinstance(losses, list) or not _TRAJECTORY_ID.fullmatch(name):
        raise ValueError("an unknown stage or name, or no losses")
    values = tuple(_finite(item) for item in losses)
    step, steps, beat = counts
    return TrajectoryProgress(
        name, str(stage), step, steps, values, beat, _finite(raw.get("written_at"))
    )


def _finite(value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{type(value).__name__} is no number")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("too large a number") from None
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number
