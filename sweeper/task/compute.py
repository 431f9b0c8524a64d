"""What one trial may use, and where a sweep runs. None of it affects the result."""

from dataclasses import dataclass
from typing import Annotated, Literal

from sweeper.task.budget import Budget
from sweeper.task.fields import (
    After,
    Before,
    Count,
    Doc,
    Pattern,
    Placement,
    Planned,
    Positive,
    Range,
    listed,
    whole_or_share,
)

MirrorUrl = Annotated[
    str,
    Pattern(
        r"^((s3|gs)://[a-z0-9][a-z0-9._-]+"
        r"|abfss?://[a-z0-9-]+@[a-z0-9]+\.dfs\.core\.windows\.net"
        r"|file://(/[A-Za-z0-9_.=-]+))(/[A-Za-z0-9_.=-]+)*$"
    ),
]
"""A bucket of S3 or Google, a container of Azure, or a folder; and a prefix in it."""


@dataclass(frozen=True, slots=True)
class ComputeSettings:
    """How a trial uses its device. `checkpoint_every` and micro-batches never change the result."""

    cpus_per_trial: Annotated[Count, Doc("CPU cores, and threads, of a trial.")] = 1
    gpus_per_trial: Annotated[
        Literal["auto"] | Annotated[float, Range(ge=0), After(whole_or_share)],
        Placement(),
        Doc(
            "`auto` is one GPU if available; a fraction shares one; 2 and more shard one model over "
            "them."
        ),
    ] = "auto"
    max_concurrent_trials: Annotated[
        Count | None, Placement(), Doc("The most trials that run at the same time.")
    ] = None
    micro_batch_size: Annotated[
        Count | None, Doc("Rows of a forward pass; by default as many as fit.")
    ] = None
    deterministic: Annotated[bool, Doc("Deterministic kernels: runs repeat bit for bit.")] = True
    checkpoint_every: Annotated[Count, Placement(), Doc("Optimizer steps between checkpoints.")] = (
        100
    )
    stall_timeout_minutes: Annotated[
        Positive,
        Placement(),
        Doc("A trial without progress for this long is restarted from its checkpoint."),
    ] = 60.0
    logging_steps: Annotated[
        Count, Placement(), Doc("Optimizer steps between the lines of a trial's log.")
    ] = 10
    gradient_checkpointing: Annotated[
        bool, Doc("Compute activations twice instead of keeping them; the result is the same.")
    ] = False
    torch_compile: Annotated[bool, Doc("Compile the training step; rounding differs.")] = False
    adapters_per_trial: Annotated[
        Literal["auto"] | Count, Doc("LoRA trajectories trained together; 1: each alone.")
    ] = "auto"
    ray_address: Annotated[
        str | None,
        Placement(),
        Doc("Ray cluster to join; by default RAY_ADDRESS, else a local Ray is started."),
    ] = None
    keep_weights: Annotated[
        Literal["front", "all", "none"],
        Placement(),
        Doc("Which weights are kept on disk: of configurations on the front, of all, or of none."),
    ] = "none"
    disk_quota_gib: Annotated[
        Positive | None, Placement(), Doc("A run that needs more disk is rejected.")
    ] = None
    mirror: Annotated[
        MirrorUrl | None,
        Placement(),
        Doc(
            "A bucket, a container or a folder by its address (`s3://`, `gs://`, `abfss://`, `file://`) "
            "to which the running run is copied."
        ),
    ] = None
    mirror_checkpoints: Annotated[
        bool, Placement(), Doc("Copy checkpoints, too: what is unfinished goes on elsewhere.")
    ] = False
    budget: Annotated[
        Budget | None,
        Placement(),
        Doc("The most that the whole run may use; a larger one continues the run."),
    ] = None
    trackers: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...],
        Before(listed),
        Placement(),
        Doc("Experiment trackers that receive every result."),
    ] = ()
    device: Annotated[str, Planned()] = "auto"

    @property
    def processes(self) -> int:
        """How many processes one trial runs in: one for each of its GPUs where it has several."""
        asked = self.gpus_per_trial
        return 1 if asked == "auto" else max(1, int(asked))

    @property
    def gpu_share(self) -> float:
        """The fraction of each of its GPUs that one trial uses."""
        asked = self.gpus_per_trial
        return 1.0 if asked == "auto" or not 0 < asked < 1 else asked

    @property
    def keeps_weights(self) -> bool:
        """Whether a trial leaves the weights of a readout in its storage, beside the record."""
        return self.keep_weights != "none"

    @property
    def stall_timeout_seconds(self) -> float:
        """Seconds without progress after which a trial is stopped."""
        return 60 * self.stall_timeout_minutes
