"""The progress of a run, which an open page requests every few seconds."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sweeper.analysis import reason_text
from sweeper.serve.state import QUIET_SECONDS, RunSnapshot, RunView
from sweeper.store.progress import TrajectoryProgress
from sweeper.store.records import TrialRecord
from sweeper.task import configuration_name

MAX_TRAJECTORIES = 24
MAX_LATEST = 8
MAX_REASONS = 5
CURVE_POINTS = 60
MAX_TEXT = 400

STAGE_NAMES = {
    "load": "loading",
    "train": "training",
    "checkpoint": "saving",
    "evaluate": "scoring",
}
"""Stages of a trial as texts."""


def live_data(view: RunView, now: float | None = None) -> dict[str, Any]:
    """The state of a run as JSON-able values; NaN never occurs.

    Args:
        view: The run.
        now: Seconds since 1970.

    Raises:
        One of `state.DAMAGE`: the folder vanished or is damaged.
    """
    now = time.time() if now is None else now
    found = view.found_lately()
    state = view.state(len(found.records), found.planned, now)
    running = [item for item in view.progress() if item.running]
    if state == "finished":  # A killed process could not record that it ended.
        running = [item for item in running if now - item.written_at < QUIET_SECONDS]
    running.sort(key=lambda item: -item.written_at)
    chosen = found.recommendation.chosen
    return {
        "name": found.spec.name,
        "state": state,
        "records": len(found.records),
        "planned": found.planned,
        "statuses": dict(found.statuses),
        "front": len(found.front.members),
        "recommended": None if chosen is None else chosen.config_id,
        "trajectories": [_trajectory(item, now) for item in running[:MAX_TRAJECTORIES]],
        "more_trajectories": max(0, len(running) - MAX_TRAJECTORIES),
        "latest": _latest(found),
        "failures": _failures(found.records),
    }


def _trajectory(item: TrajectoryProgress, now: float) -> dict[str, Any]:
    age = max(0.0, now - item.written_at)
    return {
        "trajectory_id": item.trajectory_id,
        "stage": STAGE_NAMES.get(item.stage, item.stage),
        "step": item.step,
        "steps": item.steps,
        "loss": item.losses[-1] if item.losses else None,
        "curve": thinned(item.losses),
        "age_seconds": round(age, 1),
        "quiet": age > QUIET_SECONDS,
    }


def thinned(losses: Sequence[float], points: int = CURVE_POINTS) -> list[float]:
    """At most `points` losses, evenly spaced, including the first and the last."""
    if len(losses) <= points:
        return list(losses)
    return [losses[i * (len(losses) - 1) // (points - 1)] for i in range(points)]


def _latest(found: RunSnapshot) -> list[dict[str, Any]]:
    """The last records, newest first."""
    objectives = [item.metric for item in found.spec.objectives]
    return [
        {
            "config_id": record.config_id,
            "seed": record.seed,
            "role": record.role,
            "status": record.status,
            "values": configuration_name(record.config, found.names)[:MAX_TEXT],
            "metrics": {
                name: record.metrics[name].value
                for name in objectives
                if record.status == "complete" and name in record.metrics
            },
        }
        for record in found.records[: -MAX_LATEST - 1 : -1]
    ]


def _failures(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Why records failed, most frequent first."""
    reasons = Counter(
        reason_text(record)[:MAX_TEXT] for record in records if record.status == "failed"
    )
    return [
        {"reason": reason, "count": count} for reason, count in reasons.most_common(MAX_REASONS)
    ]
