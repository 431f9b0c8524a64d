"""Runs for Weights & Biases, online or offline as WANDB_MODE says. The only file importing wandb."""

from pathlib import Path
from typing import Any

import wandb

from sweeper.trackers.logged import ConfigurationRun, TrajectoryRun


class WandB:
    """A project of the sweep's name, configurations and their trajectory grouped together."""

    def __init__(self, root: Path, project: str, sweep: str) -> None:
        self._root = root
        self._project = project
        self._sweep = sweep
        root.mkdir(parents=True, exist_ok=True)

    def configuration(self, run: ConfigurationRun) -> None:
        """Hyperparameters, and metrics as the run's summary."""
        about = {"role": run.role, "seed": run.seed, "status": run.status, "step": run.step}
        opened = self._open(
            run.key,
            group=run.trajectory_id,
            job_type="configuration",
            config={**run.params, **about},
            tags=[run.status, run.role],
            notes=run.reason or None,
        )
        opened.summary.update(dict(run.metrics))
        opened.finish(exit_code=0 if run.status == "complete" else 1)

    def trajectory(self, run: TrajectoryRun) -> None:
        """The training loss by optimizer step."""
        opened = self._open(
            f"trajectory-{run.trajectory_id}", group=run.trajectory_id, job_type="trajectory"
        )
        for step, loss in enumerate(run.losses, start=1):
            opened.log({"train/loss": loss}, step=step)
        opened.finish()

    def _open(self, key: str, **about: Any) -> Any:
        """A run whose id comes from its key, so that the same key replaces it."""
        return wandb.init(
            project=self._project,
            name=key,
            id=f"{self._sweep}-{key}",
            dir=str(self._root),
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                init_timeout=30,
                x_disable_stats=True,
                x_disable_machine_info=True,
            ),
            **about,
        )
