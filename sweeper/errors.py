"""Every error a user can meet.

One message says what was found, what was expected and what to do. The command line prints it and ends
with exit code 2. Every class pickles, because errors travel from Ray workers to the driver.
"""


class SweeperError(Exception):
    """Something the user can mend. The message alone must be enough to mend it."""


class SpecError(SweeperError):
    """A sweep file is wrong. Carries every problem found in it, not only the first."""

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.source}: {count} problem{'' if count == 1 else 's'}"
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


class DataError(SweeperError):
    """A data file or suite is missing, malformed, empty, or does not fit the model's window."""


class ModelError(SweeperError):
    """A model or tokenizer cannot be loaded as asked."""


class DeviceError(SweeperError):
    """A trial does not fit the device it would run on."""


class RunFolderError(SweeperError):
    """A run folder is unwritable, in use by another driver, or belongs to another spec."""


class DiskQuotaError(SweeperError):
    """A run needs, or has taken, more disk than there is or than it may."""


class MirrorError(SweeperError):
    """The mirror of a run does not answer, or holds another run."""


class RecordError(SweeperError):
    """A record breaks a law of `TrialRecord`, or records.jsonl cannot be trusted."""


class JudgeError(SweeperError):
    """A judge cannot be asked or does not answer, or what judges said cannot be read."""


class DiskFullError(SweeperError):
    """No space is left where something has to be written."""

    def __init__(self, path: str, needed_bytes: int | None, free_bytes: int | None) -> None:
        super().__init__(path, needed_bytes, free_bytes)
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes

    def __str__(self) -> str:
        needed = "" if self.needed_bytes is None else f" ({self.needed_bytes:,} bytes)"
        free = "unknown" if self.free_bytes is None else f"{self.free_bytes:,} bytes"
        return (
            f"no space left to write {self.path}{needed}; free there: {free}, or a quota is used up; "
            "no record is lost: make room and the same command continues"
        )


class UnreachableError(SweeperError):
    """A storage did not answer for longer than it is waited for."""

    def __init__(self, path: str, seconds: float, reason: str) -> None:
        super().__init__(path, seconds, reason)
        self.path = path
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the storage of {self.path} did not answer for {self.seconds:g} s ({self.reason}); no record "
            "is lost: once it is back the same command continues"
        )


class MissingExtraError(SweeperError):
    """A command needs an optional dependency that is not installed."""


class RankLostError(SweeperError):
    """A process of a trial on several GPUs ended without saying why."""

    def __init__(self, rank: int, code: int, log: str) -> None:
        super().__init__(rank, code, log)
        self.rank = rank
        self.code = code
        self.log = log

    def __str__(self) -> str:
        return (
            f"process {self.rank} of the trial ended with code {self.code}; its last words are in "
            f"{self.log}; the same command continues from the last checkpoint"
        )


class TrainingDivergedError(SweeperError):
    """The training loss or its gradient is not finite. The trajectory ends `failed` at this step."""

    def __init__(self, step: int, loss: float, gradient_norm: float) -> None:
        super().__init__(step, loss, gradient_norm)
        self.step = step
        self.loss = loss
        self.gradient_norm = gradient_norm

    def __str__(self) -> str:
        return (
            f"the training loss is {self.loss} and its gradient norm {self.gradient_norm} at optimizer "
            f"step {self.step}; lower learning_rate, add warmup_steps, or set max_grad_norm"
        )


class ExportError(SweeperError):
    """A configuration has a setting that the trainer it is exported for cannot have."""


class StorageError(SweeperError):
    """A storage of Optuna cannot be opened, or holds somebody else's study."""


class LaunchError(SweeperError):
    """A sweep cannot be sent to a cluster as asked, or the cluster's tool is missing or refused."""


class ClusterTokenError(SweeperError):
    """A Ray cluster asks for a token that this process does not have."""

    def __init__(self, address: str, found: str) -> None:
        super().__init__(address, found)
        self.address = address
        self.found = found

    def __str__(self) -> str:
        return (
            f"the Ray cluster at {self.address} asks for a token: {self.found.strip().splitlines()[0]}; "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with its token. A cluster asks "
            "for one where ~/.ray/auth_token lay when it was started; RAY_AUTH_MODE=disabled before "
            "`ray start` turns that off"
        )
