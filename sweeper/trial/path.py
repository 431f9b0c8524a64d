"""A trajectory that trains: its weights, the rows of its steps, its checkpoints, its readouts."""

import json
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from sweeper.data.encode import Encoded
from sweeper.errors import SweeperError
from sweeper.model.adapters import Adapter
from sweeper.model.batches import RowOrder, micro_batches
from sweeper.model.checkpoint import State, read_checkpoints, weights_hash, write_checkpoint
from sweeper.model.finite import all_finite
from sweeper.model.saved import serialize_weights
from sweeper.model.sharding import full_tensor
from sweeper.scoring.score import Drafts, Scores, StoppedScoring
from sweeper.store.folder import write_with_retry
from sweeper.store.records import Status, TrialRecord
from sweeper.task import Readout, TrajectoryTask
from sweeper.trial.pending import PendingReadouts
from sweeper.trial.provenance import Loaded
from sweeper.trial.train import PathTrainer, step_seed


class RunningPath:
    """One trajectory of a pack on its way: at theta_0, or where its last checkpoint was written.

    Not thread-safe. It owns its trainable weights while it lives.

    Args:
        pending: What is left to be read from it; it begins no later than the first of these.
        parameters: Its trainable weights by name, at theta_0.
        adapter: What they belong to, with LoRA.
        loaded: Inputs, commit and device of its trial.
        trained_with: The ids of the trajectories that are trained beside it.
        embeddings: Which of its weights are embeddings.
    """

    def __init__(
        self,
        pending: PendingReadouts,
        parameters: dict[str, torch.nn.Parameter],
        adapter: Adapter | None,
        loaded: Loaded,
        trained_with: Sequence[str] = (),
        embeddings: Collection[str] = (),
    ) -> None:
        self.pending = pending
        self.adapter = adapter
        pending.loaded = loaded
        self._rows = loaded.inputs.data.train
        self._order = RowOrder(len(self._rows), self.task.optimizer.batch_size, self.task.seed)
        self._tokens = [0]
        self._checkpointed_at = -1
        self.steps = 0
        self.drafts: Drafts = {}
        averages = [readout.average for readout in self.task.readouts]
        self.trainer = PathTrainer(parameters, self.task.optimizer, averages, embeddings)
        self._resume(next(iter(parameters.values())).device)
        pending.shared["trained_with"] = list(trained_with)

    @property
    def task(self) -> TrajectoryTask:
        """What is trained and read."""
        return self.pending.task

    @property
    def seed(self) -> int:
        """What the next step's dropout is seeded with; processes see other rows and drop otherwise."""
        return step_seed(self.task.seed, self.trainer.step) + 7919 * self.pending.world.rank

    @property
    def progress(self) -> tuple[int, tuple[float, ...]]:
        """The optimizer steps taken, and the losses of those that were looked at already."""
        return self.trainer.step, self.trainer.seen_losses

    def log_start(self, paths: int) -> None:
        """Log where the path goes on, and how many are trained together."""
        self.pending.log.write(
            "start",
            readouts=len(self.pending.waiting),
            step=self.trainer.step,
            device=None if self.pending.loaded is None else self.pending.loaded.device,
            processes=self.pending.world.size,
            paths=paths,
            host=socket.gethostname(),
        )

    def _resume(self, device: torch.device) -> None:
        """Go on from the newest checkpoint that every process of the trial has whole and of one step."""
        states = self._checkpoints()
        state = next(states, None)
        while True:
            steps = self.pending.world.gather(-1 if state is None else int(state["step"]))
            if min(steps) == max(steps) or min(steps) < 0:
                break
            if state is not None and int(state["step"]) > min(steps):
                state = next(states, None)
        if state is not None and min(steps) == max(steps):
            self.trainer.restore({name: value.to(device) for name, value in state.items()})

    def _checkpoints(self) -> Iterator[State]:
        """What lies on disk, newest first; what is of no use costs time, not correctness."""
        pending = self.pending
        first = min(pending.trunk_step(readout) for readout in pending.waiting)
        path = pending.storage.shard(pending.world.rank, pending.world.size)
        for found in read_checkpoints(path):
            if found.state is None:
                pending.warn("checkpoints_refused", found.fault)
            elif self.trainer.fits(found.state) and int(found.state["step"]) <= first:
                yield found.state

    def next_stop(self) -> int | None:
        """The next trunk step to stop at: for a readout, for the branch of a tail, for a checkpoint."""
        needed = {self.pending.trunk_step(readout) for readout in self.pending.waiting}
        if not needed:
            return None
        every = self.task.compute.checkpoint_every
        stops = needed | set(range(every, max(needed), every))
        here = self.trainer.step
        return min(
            (s for s in stops if s > here or (s == here and s > self._checkpointed_at)),
            default=None,
        )

    def checkpoint_at(self, step: int) -> None:
        """Write the checkpoint of a stop whole or not at all.

        Where the disk refuses it training goes on: an interruption would cost more time, and no record.
        """
        self._checkpointed_at = step
        state = self.trainer.state_to_write()
        world = self.pending.world
        try:
            write_checkpoint(self.pending.storage.shard(world.rank, world.size), state)
        except (SweeperError, OSError) as error:
            self.pending.warn("checkpoints_skipped", f"step {step}: {error}")

    def batch(self) -> list[Encoded]:
        """The rows of the next step's effective batch."""
        return [self._rows[i] for i in self._order.batch(self.trainer.step)]

    def micro_batches(self, rows: int) -> list[Sequence[Encoded]]:
        """The micro-batches of the next step, of at most so many rows per process.

        Of each, this process's share. A process without a row of its own has one without targets.
        """
        world = self.pending.world
        parts = micro_batches(self.batch(), rows * world.size)
        return [world.share(part) or [part[0]._replace(completion=())] for part in parts]

    def tokens_until(self, step: int) -> int:
        """Tokens in the batches of the first `step` steps, however often they were interrupted."""
        while len(self._tokens) <= step:
            rows = [self._rows[i] for i in self._order.batch(len(self._tokens) - 1)]
            tokens = sum(len(row.prompt) + len(row.completion) for row in rows)
            self._tokens.append(self._tokens[-1] + tokens)
        return self._tokens[step]

    def weights(self, readout: Readout) -> list[torch.Tensor]:
        """The weights of a readout, averaged as it says, in the dtype of the trained ones."""
        values = self.trainer.values
        averaged = self.trainer.read(readout.average)
        if averaged is None:
            return list(values)
        return [value.to(own.dtype) for value, own in zip(averaged, values, strict=True)]

    def has_finite_weights(self, readout: Readout) -> bool:
        """Whether no weight of a readout is NaN or infinite, in any process."""
        return all(self.pending.world.gather(all_finite(self.weights(readout))))

    def keep(
        self, readout: Readout, scores: Scores | StoppedScoring, weights: Sequence[torch.Tensor]
    ) -> TrialRecord:
        """Make what was measured durable: responses first, then the record in the outbox.

        The next readouts begin with the responses of the last raw one.
        """
        pending = self.pending
        if readout.average.kind == "raw" or not self.drafts:
            self.drafts = scores.drafts
        parts = zip(self.trainer.parameters, weights, strict=True)
        digest = weights_hash(full_tensor(parameter, part) for parameter, part in parts)
        if self.task.compute.keeps_weights:
            self._keep_weights(readout, weights)
        lines = "".join(f"{json.dumps(line)}\n" for line in scores.lines)
        if pending.world.is_main_process:
            responses = pending.storage.generations(readout.config_id, self.task.seed)
            write_with_retry(responses, lines)
        status, reason = self._outcome(scores)
        measured = {
            "weights_sha256": digest,
            "tokens": {
                "trained": self.tokens_until(readout.step),
                "generated": scores.tokens_generated,
            },
            "responses_cut": scores.responses_cut,
        }
        found = scores if isinstance(scores, Scores) else None
        return pending.finish(readout, status, found, reason, measured)

    def _keep_weights(self, readout: Readout, weights: Sequence[torch.Tensor]) -> None:
        """Leave the weights of a readout by name, in the dtype they were measured in."""
        parts = zip(self.trainer.names, self.trainer.parameters, weights, strict=True)
        kept = {
            name: full_tensor(own, part).detach().cpu().contiguous() for name, own, part in parts
        }
        if self.pending.world.is_main_process:
            path = self.pending.storage.weights(readout.config_id)
            write_with_retry(path, serialize_weights(kept))

    def _outcome(self, scores: Scores | StoppedScoring) -> tuple[Status, Mapping[str, Any] | None]:
        """The status of a readout that was scored, at least in part, and its reason."""
        if isinstance(scores, StoppedScoring):
            return "pruned", {**scores.reason, "prompts_left": scores.requests_left}
        missing = [name for name in self.task.objectives if name not in scores.metrics]
        return ("unscored", {"missing_metrics": missing}) if missing else ("complete", None)
