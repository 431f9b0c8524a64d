"""Every error a user can meet, each with a stable code.

One message says what was found, what was expected and what to do. The command line prints it and ends
with exit code 2. Messages may be reworded; `code` and `values` are what programs and tests read. A class
that covers several faults lists a code for each in `faults`. Every class pickles, because errors travel
from Ray workers to the driver.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple


class SweeperError(Exception):
    """An invalid option or request that has no class of its own.

    The message alone must be enough to fix it.
    """

    code: str = "usage"
    faults: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *args: object, code: str | None = None, **values: object) -> None:
        """`code` is one of `faults`, and None is the code of the class; `values` become attributes."""
        super().__init__(*args)
        if code is not None:
            self.code = code
        vars(self).update({k: str(v) if isinstance(v, Path) else v for k, v in values.items()})

    @property
    def values(self) -> dict[str, object]:
        """What the message was made of: paths, line numbers, names of keys, limits."""
        return {name: value for name, value in vars(self).items() if name != "code"}

    def as_dict(self) -> dict[str, object]:
        """`code`, `message` and `values`, as `--json` prints them."""
        return {"code": self.code, "message": str(self), "values": self.values}


class SpecError(SweeperError):
    """A sweep file is wrong. Carries every problem found in it, not only the first."""

    code = "spec"

    def __init__(self, source: str, problems: tuple[str, ...]) -> None:
        super().__init__(source, problems)
        self.source = source
        self.problems = problems

    @property
    def keys(self) -> tuple[str, ...]:
        """The key that each problem is about, as `block.key`."""
        return tuple(problem.partition(":")[0] for problem in self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        head = f"{self.source}: {count} problem{'' if count == 1 else 's'}"
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


_HUB = {
    "gated": "a gated Hub repository whose terms have to be accepted first",
    "not_on_hub": "neither a local path nor a Hub repository that this account can access",
    "unknown_revision": "a Hub repository without the requested revision",
    "not_cached": "a Hub repository that is not, or only partly, in the cache while downloads are "
    "off",
    "not_fetched": "a Hub repository whose files could not be downloaded",
}


class DataError(SweeperError):
    """Data or a suite of prompts cannot be used."""

    code = "data"
    faults: ClassVar[Mapping[str, str]] = {
        "data.not_found": "a file or folder that does not exist",
        "data.unreadable": "a file that the system cannot read, or that is not UTF-8",
        "data.malformed": "a file that is not valid JSON, CSV, YAML or Parquet",
        "data.unknown_format": "a file that is not .json, .jsonl, .ndjson, .csv, .tsv or .parquet",
        "data.empty": "no rows, or none left after filters, held-out rows or the half of a split",
        "data.missing_column": "a column that the format needs is missing",
        "data.invalid_row": "a row whose fields are not what its format expects",
        "data.blank": "a prompt or a completion without text",
        "data.duplicate": "a suite name or a prompt id that is used twice",
        "data.setting": "a key of a data source that does not apply to it",
        "data.unknown_split": "a subset or split that the data set does not have, or none is chosen",
        "data.not_single_prompt": "a suite whose rows hold earlier turns or a system prompt",
        "data.too_long": "a text longer than `max_length` or than the window of the model",
        "data.chat_template": "a chat template or tokenizer that cannot write the conversation",
        "data.control_tokens": "rows or prompts with text that the tokenizer reads as control tokens",
        "data.builtin": "a `builtin:` source that does not exist or cannot be built",
        "data.keyword_list": "a keyword list that does not exist or is not valid",
        "data.unknown_label": "an unknown label of a completion",
        "data.answer": "a held-out completion without the answer that `answer_extractor` looks for",
        "data.too_few_prompts": "fewer prompts than a stop rule needs",
        "data.lm_eval": "a task of lm-eval that does not exist or cannot be used here",
        **{f"data.{name}": text for name, text in _HUB.items()},
    }


class ImportMapError(SweeperError):
    """Rows of another tool, or the map of their columns, cannot be used."""

    code = "import"
    faults: ClassVar[Mapping[str, str]] = {
        "import.no_rows": "no row that can be imported",
        "import.no_column": "a map that names a column the source does not have",
        "import.objectives": "a map with fewer than two objectives",
        "import.direction": "a known metric with the opposite direction",
        "import.rate": "a metric named like a rate whose range is not 0 to 1",
        "import.constraint": "a limit on what is no rate",
        "import.setting": "a setting that is NaN, infinite or a very long text",
        "import.whole": "a seed, step or count that is no whole number",
        "import.counts": "a rate that its counts do not give",
        "import.values": "values of groups for a source without responses",
    }


class ModelError(SweeperError):
    """A model or tokenizer cannot be loaded."""

    code = "model"
    faults: ClassVar[Mapping[str, str]] = {
        "model.not_found": "a model folder that does not exist or holds no model",
        "model.incomplete": "weights that are missing from a model folder",
        "model.adapter": "an adapter in the place of, or beside, the weights of the base model",
        "model.quantized": "a base model with quantised weights",
        "model.mismatch": "weights that do not belong to their configuration, or to the tokenizer",
        "model.unsupported_architecture": "a model that is not decoder-only, or cannot be scored",
        "model.not_finite": "weights or logits that are NaN or infinite",
        "model.unreadable": "a configuration, an index or a tokenizer that cannot be read",
        "model.unsafe_weights": "a model that has only pickled weights",
        "model.unsupported": "a type of model that the memory and cost model does not know",
        "model.unknown_layer": "a layer in `lora_target_modules` that the model does not have",
        "model.unsupported_layer": "a layer in `lora_target_modules` that cannot have an adapter",
        "model.setting": "a key of the model that does not apply to it",
        **{f"model.{name}": text for name, text in _HUB.items()},
    }


class DeviceError(SweeperError):
    """A trial does not fit the device it would run on."""

    code = "device"


class RunFolderError(SweeperError):
    """A run folder cannot be used."""

    code = "run"
    faults: ClassVar[Mapping[str, str]] = {
        "run.in_use": "another driver is using the folder",
        "run.not_running": "no sweep to stop runs in the folder on this machine, or as this user",
        "run.no_such_path": "no unfinished path of a run has this id",
        "run.taken_over": "another driver has taken the folder over",
        "run.other_spec": "a run of another sweep file",
        "run.other_contents": "a run started with different data or model contents",
        "run.damaged": "a damaged file of a run",
        "run.invalid_name": "an id in a record or task that cannot be the name of a file",
        "run.not_a_run": "a folder that holds no run",
        "run.version": "a run of another version of sweeper",
        "run.unwritable": "a folder that cannot be written to",
        "run.unreadable": "a file that the system cannot read",
        "run.exists": "a folder that already holds a run",
        "run.imported": "a run of another tool, which cannot be trained or exported",
    }


class DiskQuotaError(SweeperError):
    """A run needs more disk space than there is, or has used more than it may."""

    code = "quota"
    faults: ClassVar[Mapping[str, str]] = {
        "quota.plan": "the run would need more than `disk_quota_gib`",
        "quota.no_space": "the run would need more than is free",
        "quota.used_up": "the run has used up `disk_quota_gib`",
    }


class MirrorError(SweeperError):
    """The mirror of a run does not answer, or holds another run."""

    code = "mirror"
    faults: ClassVar[Mapping[str, str]] = {
        "mirror.address": "an address that is not a supported store",
        "mirror.credentials": "credentials that the store rejects",
        "mirror.unreachable": "a store that does not answer",
        "mirror.no_bucket": "a bucket or container that does not exist",
        "mirror.holds_run": "a store with a run, where `--overwrite` would start another",
        "mirror.other_run": "a store with the records of another run",
        "mirror.other_spec": "a store with a run of another sweep file",
        "mirror.other_driver": "a store that another driver writes to",
    }


class RecordError(SweeperError):
    """A record is invalid, or records.jsonl cannot be trusted."""

    code = "record"


class JudgeError(SweeperError):
    """A judge cannot be used, or its verdicts cannot be read."""

    code = "judge"
    faults: ClassVar[Mapping[str, str]] = {
        "judge.option": "an option that this kind of judge does not have",
        "judge.unsupported_model": "a model that cannot be used as a judge",
        "judge.labels": "classes of a classifier whose meaning is unknown",
        "judge.device": "a device that is not available",
        "judge.out_of_memory": "too many responses at once for the device",
        "judge.no_responses": "a run without stored responses, or none that this judge has read",
        "judge.unknown": "a judge that has not judged this run",
        "judge.ambiguous": "a name that several judges of this run share",
        "judge.rejected": "a server that rejects the request",
        "judge.unreachable": "a server that does not answer",
        "judge.base_url": "an address that is not an API",
        "judge.api_key": "a key that is missing or cannot be sent",
        "judge.damaged": "stored responses or judgements that cannot be read",
        "judge.version": "judgements of another version of sweeper",
    }


class DiskFullError(SweeperError):
    """No space is left where something has to be written."""

    code = "disk_full"

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
    """A storage is temporarily unavailable, for longer than it is retried; or it has become read-only."""

    code = "storage_unreachable"

    def __init__(self, path: str, seconds: float, reason: str) -> None:
        super().__init__(path, seconds, reason)
        self.path = path
        self.seconds = seconds
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"the storage of {self.path} is temporarily unavailable ({self.reason}; retried for "
            f"{self.seconds:g} s); all finished results are saved: once it is back, the same command "
            "continues"
        )


class MissingExtraError(SweeperError):
    """A command needs an optional dependency that is not installed."""

    code = "missing_extra"


class RankLostError(SweeperError):
    """A process of a trial on several GPUs ended without an error message."""

    code = "rank_lost"

    def __init__(self, rank: int, exit_code: int, log: str) -> None:
        super().__init__(rank, exit_code, log)
        self.rank = rank
        self.exit_code = exit_code
        self.log = log

    def __str__(self) -> str:
        return (
            f"process {self.rank} of the trial ended with code {self.exit_code}; its last lines are in "
            f"{self.log}; the same command continues from the last checkpoint"
        )


class TrainingDivergedError(SweeperError):
    """The training loss or its gradient is not finite. The trajectory ends `failed` at this step."""

    code = "diverged"

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

    code = "export"


class StorageError(SweeperError):
    """A storage of Optuna cannot be opened, or holds a study of another program."""

    code = "study_storage"
    faults: ClassVar[Mapping[str, str]] = {
        "study_storage.not_a_url": "a text that is not an Optuna storage",
        "study_storage.missing_driver": "a database whose Python driver is not installed",
        "study_storage.unusable": "a database that cannot be opened",
        "study_storage.unwritable": "a journal that cannot be written",
        "study_storage.other_study": "a study of this name that sweeper did not make",
    }


class LaunchError(SweeperError):
    """A sweep cannot be submitted to a cluster, or the cluster's tool is missing or failed."""

    code = "launch"
    faults: ClassVar[Mapping[str, str]] = {
        "launch.option": "an option that is missing, wrong, or of another target",
        "launch.not_visible": "files of this machine that the cluster cannot see",
        "launch.missing_files": "paths of the sweep that exist nowhere",
        "launch.too_large": "more files than Ray sends",
        "launch.secret_or_data": "data that are named like a secret",
        "launch.trial_too_large": "a trial that needs more than a machine has",
        "launch.path": "a path that the target cannot use",
        "launch.not_a_folder": "a folder that does not exist",
        "launch.ray_address": "an address at which no cluster accepts jobs",
        "launch.job_exists": "a job of the same run that is there and would not be continued",
        "launch.too_many_jobs": "too many jobs with one name",
        "launch.missing_tool": "the program of the target is not installed",
        "launch.refused": "the program of the target reported an error",
        "launch.timeout": "a program that did not finish in time",
        "launch.template": "a template of a job that cannot be filled",
        "launch.no_wheel": "the source tree cannot be packed",
    }


class ClusterTokenError(SweeperError):
    """A Ray cluster asks for a token that this process does not have."""

    code = "cluster_token"

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


class ErrorCode(NamedTuple):
    """A code, the class of the errors that carry it, and what it means."""

    code: str
    error: type[SweeperError]
    description: str


def error_codes() -> list[ErrorCode]:
    """Every code an error can carry, class by class, that of the class first."""
    found: list[ErrorCode] = []
    classes: list[type[SweeperError]] = [SweeperError, *SweeperError.__subclasses__()]
    for error in classes:
        summary = (error.__doc__ or "").partition("\n")[0]
        found.append(ErrorCode(error.code, error, summary))
        found += [ErrorCode(code, error, text) for code, text in error.faults.items()]
    return found
