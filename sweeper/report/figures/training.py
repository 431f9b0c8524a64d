"""Training curves: the loss of each optimizer step, one curve for each trajectory that is shown."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sweeper.analysis import BASE_ROLE, Candidate, Front, Recommendation, varying
from sweeper.report.figures.levels import spread
from sweeper.store.folder import RunFolder
from sweeper.task import configuration_name

MOST_CURVES = 60
MOST_POINTS = 200

GROUPS = ("recommended", "trainers' defaults", "on the front", "others")
"""Why a trajectory is shown; the first reason that applies."""


class Readout(NamedTuple):
    """A step of the trajectory at which a configuration was read, and the loss of that step."""

    step: int
    loss: float
    config_id: str


class TrainingCurve(NamedTuple):
    """The losses of a trajectory at some of its steps, including the first and the last.

    `values` lists the hyperparameters in which it differs from others, `trained` is its number of steps.
    """

    trajectory_id: str
    group: str
    seed: int
    values: str
    trained: int
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    readouts: tuple[Readout, ...]


class TrainingInfo(NamedTuple):
    """All curves shown, the most important last.

    Of `trajectories` with records `missing` have no readable curve and `unshown` are left out to keep
    the figure legible. `gaps` counts steps of the curves shown whose loss was not finite.
    """

    curves: tuple[TrainingCurve, ...]
    trajectories: int
    missing: int
    unshown: int
    gaps: int


def training_info(run: RunFolder, front: Front, found: Recommendation) -> TrainingInfo | None:
    """Read the curves of the important trajectories and of some others; None where there is none."""
    paths: dict[str, list[tuple[Candidate, int]]] = {}
    for item in front.candidates:
        for record in item.records if item.role != BASE_ROLE else ():
            paths.setdefault(record.trajectory_id, []).append((item, record.seed))
    order = _ordered(paths, front, found)
    there = [name for name in order if run.trial(name).progress.is_file()]
    first = [name for name in there if order[name] != GROUPS[-1]][:MOST_CURVES]
    rest = [name for name in there if order[name] == GROUPS[-1]]
    shown = [*first, *spread(rest, MOST_CURVES - len(first))] if rest else first
    names = varying(front.candidates)
    curves, gaps = [], 0
    for name in shown:
        losses = read_losses(run.trial(name).progress)
        curve = None if losses is None else _curve(name, order[name], losses, paths[name], names)
        if curve is not None and losses is not None:
            curves.append(curve)
            gaps += sum(loss is None for loss in losses)
    if not curves:
        return None
    curves.sort(key=lambda curve: (-GROUPS.index(curve.group), curve.trajectory_id))
    missing = len(paths) - len(there) + len(shown) - len(curves)
    return TrainingInfo(tuple(curves), len(paths), missing, len(there) - len(shown), gaps)


def _ordered(
    paths: Mapping[str, Sequence[tuple[Candidate, int]]], front: Front, found: Recommendation
) -> dict[str, str]:
    """Trajectories and their groups: important ones first, the others by learning rate."""
    wanted = zip(
        GROUPS,
        (
            (found.chosen,) if found.chosen is not None else (),
            (found.default,) if found.default is not None else (),
            front.members,
        ),
        strict=False,
    )
    order: dict[str, str] = {}
    for group, items in wanted:
        for item in items:
            for record in item.records:
                order.setdefault(record.trajectory_id, group)

    def place(name: str) -> tuple[float, str]:
        return float(paths[name][0][0].config.get("learning_rate") or 0), name

    for name in sorted(paths, key=place):
        order.setdefault(name, GROUPS[-1])
    return {name: group for name, group in order.items() if name in paths}


def read_losses(path: Path) -> tuple[float | None, ...] | None:
    """The loss of each optimizer step from the first, None where it was not finite.

    None instead of a list where the file is missing or damaged.
    """
    try:
        losses = json.loads(path.read_text(encoding="utf-8"))["losses"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(losses, list) or not all(map(_is_loss, losses)):
        return None
    return tuple(
        float(loss) if loss is not None and math.isfinite(loss) else None for loss in losses
    )


def _is_loss(value: object) -> bool:
    """A number that fits a float, or None."""
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300


def _curve(
    name: str,
    group: str,
    losses: Sequence[float | None],
    items: Sequence[tuple[Candidate, int]],
    names: Iterable[str],
) -> TrainingCurve | None:
    """None where no loss is finite. Readouts after a decay tail are not on the curve and are left out."""
    known = [(step, loss) for step, loss in enumerate(losses, start=1) if loss is not None]
    if not known:
        return None
    first = items[0][0].config
    shared = [n for n in names if all(item.config.get(n) == first.get(n) for item, _ in items)]
    at = dict(known)
    readouts = {
        item.steps: Readout(item.steps, at[item.steps], item.config_id)
        for item, _ in sorted(items, key=lambda pair: (_by_raw(pair[0]), pair[0].config_id))[::-1]
        if item.steps in at and not _has_tail(item)
    }
    marked = [(step, at[step]) for step in readouts]
    shown = sorted({*spread(known, max(2, MOST_POINTS - len(marked))), *marked})
    return TrainingCurve(
        trajectory_id=name,
        group=group,
        seed=items[0][1],
        values=configuration_name(first, shared),
        trained=len(losses),
        steps=tuple(step for step, _ in shown),
        losses=tuple(loss for _, loss in shown),
        readouts=tuple(readouts[step] for step in sorted(readouts)),
    )


def _by_raw(candidate: Candidate) -> bool:
    """Raw weights first: theirs is the loss."""
    return bool(candidate.readout["kind"] != "raw")


def _has_tail(candidate: Candidate) -> bool:
    tail = candidate.config.get("lr_scheduler_type") == "warmup_stable_decay"
    return bool(tail and candidate.config.get("decay_steps"))
