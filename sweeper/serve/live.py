"""The progress of a run, which an open page requests every few seconds. Nothing is analysed for it."""

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sweeper.analysis import reason_text
from sweeper.estimate import duration_text
from sweeper.report.local_paths import without_folders
from sweeper.runs.cost_so_far import cost_so_far
from sweeper.runs.counts import decision_counts
from sweeper.runs.trials_now import STAGES
from sweeper.serve.state import LOG_LINES, QUIET_SECONDS, Known, RunView
from sweeper.store.progress import TrajectoryProgress
from sweeper.store.records import TrialRecord
from sweeper.store.trial_log import last_lines
from sweeper.task import configuration_name

MAX_WORKERS = 24
MAX_LATEST = 8
MAX_REASONS = 5
CURVE_POINTS = 60
MAX_TEXT = 400


def live_data(view: RunView, now: float | None = None) -> dict[str, Any]:
    """The state of a run as JSON-able values; NaN never occurs.

    It says nothing of the recommendation: the report beside it does.

    Args:
        view: The run.
        now: Seconds since 1970.

    Raises:
        One of `state.DAMAGE`: the folder vanished or is damaged.
    """
    now = time.time() if now is None else now
    known, decision = view.known(), decision_counts(view.folder)
    state = view.state(known, now)
    running = [item for item in view.progress() if item.running]
    if state != "running":  # A killed process could not record that it ended.
        running = [item for item in running if now - item.written_at < QUIET_SECONDS]
    running.sort(key=lambda item: -item.written_at)
    version, shown = view.shown()
    data = {
        "name": known.spec.name,
        "state": state,
        "records": len(known.records),
        "planned": known.planned,
        "statuses": dict(known.statuses),
        "decision": None
        if decision is None
        else {"records": decision.records, "planned": decision.planned},
        "left": _left(view, known, state, now),
        "cost": cost_so_far(known.records, known.estimate, known.spec).text,
        "report": {"version": version, "records": shown},
        "workers": [_worker(view, item, now) for item in running[:MAX_WORKERS]],
        "more_workers": max(0, len(running) - MAX_WORKERS),
        "latest": _latest(known),
        "failures": _failures(known.records, view.path_names()),
    }
    return without_folders(data) if view.redact else data


def _left(view: RunView, known: Known, state: str, now: float) -> str | None:
    """The time left of a running run; of a stopped one what is left, and the command that goes on."""
    if state == "stopped":
        command = shlex.join(["sweeper", "resume", str(view.folder.root)])
        return f"{view.left_to_do(known)}; go on with: {command}"
    left = view.seconds_left(known.spec, now) if state == "running" else None
    return None if left is None else f"about {duration_text(left)} left"


def _worker(view: RunView, item: TrajectoryProgress, now: float) -> dict[str, Any]:
    age = max(0.0, now - item.written_at)
    return {
        "trajectory_id": item.trajectory_id,
        "name": view.path_names().get(item.trajectory_id, item.trajectory_id),
        "stage": STAGES.get(item.stage, item.stage),
        "step": item.step,
        "steps": item.steps,
        "tokens_per_second": view.tokens_per_second(item.trajectory_id),
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


def _latest(known: Known) -> list[dict[str, Any]]:
    """The last records, newest first."""
    objectives = [item.metric for item in known.spec.objectives]
    newest = known.records[: -MAX_LATEST - 1 : -1]
    names = _differing(newest)
    return [
        {
            "config_id": record.config_id,
            "seed": record.seed,
            "role": record.role,
            "status": record.status,
            "values": configuration_name(record.config, names)[:MAX_TEXT],
            "metrics": {
                name: record.metrics[name].value
                for name in objectives
                if record.status == "complete" and name in record.metrics
            },
        }
        for record in newest
    ]


def _differing(records: Sequence[TrialRecord]) -> list[str]:
    """The hyperparameters that are not the same in all of these."""
    names = dict.fromkeys(name for record in records for name in record.config)
    values = {name: {repr(record.config.get(name)) for record in records} for name in names}
    return [name for name, found in values.items() if len(found) > 1]


def _failures(records: Sequence[TrialRecord], names: Any) -> list[dict[str, Any]]:
    """Why records failed, most frequent first, with the path of the newest one and its name."""
    newest = {reason_text(r)[:MAX_TEXT]: r.trajectory_id for r in records if r.status == "failed"}
    reasons = Counter(reason_text(r)[:MAX_TEXT] for r in records if r.status == "failed")
    return [
        {
            "reason": reason,
            "count": count,
            "trial": newest[reason],
            "name": names.get(newest[reason], newest[reason]),
        }
        for reason, count in reasons.most_common(MAX_REASONS)
    ]


def log_text(view: RunView, trial: str) -> str | None:
    """The last lines of a trial's log as `sweeper logs` prints them; None where there is none."""
    for folder in (view.stage, view.folder):
        if trial in folder.trials_with_logs():
            lines = [str(line) for line in last_lines(folder.trial(trial), LOG_LINES)]
            return "".join(
                f"{line}\n" for line in (without_folders(lines) if view.redact else lines)
            )
    return None
