"""The logged data of a record and of a trajectory, the same for every tracker."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sweeper.store.records import TrialRecord

Param = str | int | float | bool

MAX_TEXT = 500
"""Longer texts are cut: some trackers refuse them."""


class ConfigurationRun(NamedTuple):
    """One configuration under one seed, as a run of its own.

    `metrics` is empty unless the record is complete: stopped or failed ones have no metrics. `reason` says
    why it is not complete, without the traceback.
    """

    key: str
    trajectory_id: str
    status: str
    role: str
    seed: int
    step: int
    params: Mapping[str, Param]
    metrics: Mapping[str, float]
    reason: str


class TrajectoryRun(NamedTuple):
    """One optimizer run: its training losses, in nats per target token, of steps 1, 2, ..."""

    trajectory_id: str
    losses: Sequence[float]


class Tracker(Protocol):
    """The interface of a tracker.

    A run with an existing key is replaced. All calls come from one thread.
    """

    def configuration(self, run: ConfigurationRun) -> None:
        """Log a configuration and end its run."""

    def trajectory(self, run: TrajectoryRun) -> None:
        """Log a training curve and end its run."""


def configuration_of(record: TrialRecord) -> ConfigurationRun:
    """The logged data of a record."""
    complete = record.status == "complete"
    reason = {k: v for k, v in (record.reason or {}).items() if k != "traceback"}
    return ConfigurationRun(
        key=f"{record.config_id}-{record.seed}",
        trajectory_id=record.trajectory_id,
        status=record.status,
        role=record.role,
        seed=record.seed,
        step=int(record.readout["step"]),
        params=dict(flat_params(record.config)),
        metrics={name: item.value for name, item in record.metrics.items()} if complete else {},
        reason="" if complete else json.dumps(reason)[:MAX_TEXT],
    )


def flat_params(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Param]]:
    """The hyperparameters with dotted names; lists as JSON, and nothing for None."""
    for key, value in raw.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat_params(value, f"{name}.")
        elif isinstance(value, str | int | float | bool):
            yield name, value[:MAX_TEXT] if isinstance(value, str) else value
        elif value is not None:
            yield name, json.dumps(value)[:MAX_TEXT]
