"""Event files for TensorBoard, below the run folder. The only file importing tensorboardX."""

import shutil
from pathlib import Path

from tensorboardX import SummaryWriter
from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo
from tensorboardX.summary import hparams

from sweeper.trackers.logged import ConfigurationRun, TrajectoryRun


class TensorBoard:
    """`configurations/KEY` and `trajectories/ID` below a folder, each with one event file."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def configuration(self, run: ConfigurationRun) -> None:
        """Metrics at the step of the readout, and a row of the HParams tab."""
        with self._writer(self._root / "configurations" / run.key) as writer:
            params = {**run.params, "role": run.role, "seed": run.seed, "status": run.status}
            experiment, start, end = hparams(params, dict(run.metrics))
            if run.status != "complete":
                failure = SessionEndInfo(status=Status.Value("STATUS_FAILURE"))
                content = HParamsPluginData(session_end_info=failure, version=0)
                end.value[0].metadata.plugin_data.content = content.SerializeToString()
                writer.add_text("reason", run.reason, run.step)
            for summary in (experiment, start):
                writer.file_writer.add_summary(summary)
            for name, value in run.metrics.items():
                writer.add_scalar(name, value, run.step)
            writer.file_writer.add_summary(end)

    def trajectory(self, run: TrajectoryRun) -> None:
        """The training loss by optimizer step."""
        with self._writer(self._root / "trajectories" / run.trajectory_id) as writer:
            for step, loss in enumerate(run.losses, start=1):
                writer.add_scalar("train/loss", loss, step)

    def _writer(self, folder: Path) -> SummaryWriter:
        shutil.rmtree(folder, ignore_errors=True)
        return SummaryWriter(str(folder))
