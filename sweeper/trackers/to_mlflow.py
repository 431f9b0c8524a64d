"""Runs for MLflow, on its tracking server or in a file store. The only file importing mlflow."""

import re
import time
from collections.abc import Mapping, Sequence

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from sweeper.trackers.logged import ConfigurationRun, TrajectoryRun

STATUSES = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "unscored": "FAILED"}

BATCH = 500
"""Metrics sent at a time; the server takes 1000."""


class MLflow:
    """An experiment of the sweep's name. A tag distinguishes the runs of several run folders in it."""

    def __init__(self, uri: str, experiment: str, sweep: str) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = (
            self._client.create_experiment(experiment) if found is None else found.experiment_id
        )
        self._sweep = sweep

    def configuration(self, run: ConfigurationRun) -> None:
        """Hyperparameters, and metrics at the step of the readout."""
        tags = {
            "kind": "configuration",
            "status": run.status,
            "role": run.role,
            "seed": str(run.seed),
            "trajectory_id": run.trajectory_id,
            "reason": run.reason,
        }
        run_id = self._new_run(run.key, tags)
        params = [Param(_name(name), str(value)) for name, value in run.params.items()]
        self._client.log_batch(run_id, params=params[:100])
        metrics = [(name, value, run.step) for name, value in run.metrics.items()]
        self._log(run_id, metrics)
        self._client.set_terminated(run_id, STATUSES[run.status])

    def trajectory(self, run: TrajectoryRun) -> None:
        """The training loss by optimizer step."""
        run_id = self._new_run(f"trajectory-{run.trajectory_id}", {"kind": "trajectory"})
        losses = enumerate(run.losses, start=1)
        self._log(run_id, [("train/loss", loss, step) for step, loss in losses])
        self._client.set_terminated(run_id, "FINISHED")

    def _new_run(self, key: str, tags: Mapping[str, str]) -> str:
        """A new run with this key, replacing an existing one."""
        full = f"{self._sweep}/{key}"
        for old in self._client.search_runs([self._experiment], f"tags.`sweeper.key` = '{full}'"):
            self._client.delete_run(old.info.run_id)
        named = {f"sweeper.{name}": value for name, value in tags.items() if value}
        run = self._client.create_run(
            self._experiment, tags={**named, "sweeper.key": full}, run_name=key
        )
        return str(run.info.run_id)

    def _log(self, run_id: str, metrics: Sequence[tuple[str, float, int]]) -> None:
        now = int(1000 * time.time())
        rows = [Metric(_name(name), value, now, step) for name, value, step in metrics]
        for start in range(0, len(rows), BATCH):
            self._client.log_batch(run_id, metrics=rows[start : start + BATCH])


def _name(name: str) -> str:
    """A name valid in every store: in a file store, a slash would create a folder."""
    return re.sub(r"[^\w\-. ]", ".", name)
