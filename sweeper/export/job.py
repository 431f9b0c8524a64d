"""The common parts of all exports: the batch split, the averaging, the header, and YAML."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from sweeper.analysis import BASE_ROLE, Candidate, feedback_of
from sweeper.errors import DataError, ExportError, RunFolderError, SweeperError
from sweeper.estimate.inputs import local_path
from sweeper.spec import SweepSpec
from sweeper.store.folder import write_atomic
from sweeper.task import ALL_LINEAR

DEFAULT_MICRO_BATCH = 8

CALLBACK_KEY = {"requires_callback": "ema_callback.WeightAveraging"}
"""In a file of an averaged configuration for a command line that takes no callbacks.

`trl sft` and `llamafactory-cli` refuse the unknown key, so that nobody trains without the average unawares;
the script beside the file removes it.
"""


class BatchSplit(NamedTuple):
    """per_device * accumulation * world_size is the effective batch, exactly."""

    per_device: int
    accumulation: int
    world_size: int


class Averaging(NamedTuple):
    """The settings of the averaging callback.

    `decay`, `weight`, `every` and `bema` are None where they do not apply.
    """

    kind: Literal["ema", "interpolate", "bema", "feedback"]
    decay: float | None = None
    weight: float | None = None
    every: int | None = None
    bema: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Where a configuration comes from.

    `run` is the name of its run folder, `compared` how many complete configurations it was compared with,
    itself included; both are None where unknown. `recommended` says that the sweep recommends it. `judge`
    is the judge of the rates, if not the first keyword list. `claims` say in sentences what the search
    measured, corrected for the choice, and `decision` what is missing of an unfinished search, and whether
    the decision stage found that it holds.
    """

    run: str | None = None
    compared: int | None = None
    recommended: bool = False
    base: Candidate | None = None
    judge: str | None = None
    claims: tuple[str, ...] = ()
    decision: tuple[str, ...] = ()


UNKNOWN = Origin()


@dataclass(frozen=True, slots=True, eq=False)
class ExportJob:
    """One configuration to be written, with everything a format needs."""

    candidate: Candidate
    spec: SweepSpec
    split: BatchSplit
    averaging: Averaging | None
    origin: Origin = UNKNOWN
    unaveraged: bool = False
    """The configuration is averaged, and the files are to train it without."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The flat hyperparameters."""
        return self.candidate.config

    @property
    def stem(self) -> str:
        """The prefix of file names."""
        return stem(self.candidate, self.spec)


def make_job(
    candidate: Candidate,
    spec: SweepSpec,
    world_size: int,
    micro_batch: int | None,
    origin: Origin = UNKNOWN,
    allow_unaveraged: bool = False,
) -> ExportJob:
    """Check that a configuration can be exported and split its batch.

    With `allow_unaveraged` the averaging is left out.

    Raises:
        SweeperError: see `check_exportable`; or an average the spec does not know; or a batch that does
            not divide.
    """
    check_exportable(candidate)
    asked = micro_batch or spec.compute.micro_batch_size
    split = split_batch(int(candidate.config["batch_size"]), world_size, micro_batch, asked)
    unaveraged = allow_unaveraged and is_averaged(candidate)
    averaging = None if unaveraged else averaging_of(candidate, spec)
    return ExportJob(candidate, spec, split, averaging, origin, unaveraged)


def stem(candidate: Candidate, spec: SweepSpec) -> str:
    """The prefix of the names of a configuration's files."""
    return f"{spec.name}-{candidate.config_id}"


def check_exportable(candidate: Candidate) -> None:
    """Reject a configuration that cannot be trained again, or whose id cannot be in a file name.

    Raises:
        SweeperError: the untouched base model, or an id unfit for a file name.
    """
    if candidate.role == BASE_ROLE or candidate.steps == 0:
        raise SweeperError(
            f"configuration {candidate.config_id} is the untouched base model: there is nothing "
            "to train; export another one"
        )
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", candidate.config_id):
        raise SweeperError(f"the id {candidate.config_id!r} cannot be part of a file name")


def split_batch(
    batch_size: int, world_size: int, micro_batch: int | None, preferred: int | None = None
) -> BatchSplit:
    """Split an effective batch over devices and accumulation, exactly.

    Args:
        batch_size: The effective batch, in rows.
        world_size: Devices.
        micro_batch: Rows per device and forward pass as set by the user, exactly.
        preferred: An upper bound if `micro_batch` is not set.

    Raises:
        SweeperError: it does not divide; the message lists what does.
    """
    if world_size < 1 or batch_size % world_size:
        fitting = [n for n in range(1, batch_size + 1) if batch_size % n == 0]
        raise SweeperError(
            f"the effective batch of {batch_size} rows cannot be split over {world_size} devices; "
            f"use {_listed(fitting)} devices"
        )
    share = batch_size // world_size
    divisors = [n for n in range(1, share + 1) if share % n == 0]
    if micro_batch is not None and micro_batch not in divisors:
        raise SweeperError(
            f"{micro_batch} rows per device on {world_size} devices do not divide the effective "
            f"batch of {batch_size} rows; use {_listed(divisors)} rows per device"
        )
    bound = preferred or DEFAULT_MICRO_BATCH
    chosen = micro_batch or max(n for n in divisors if n <= bound)
    return BatchSplit(chosen, share // chosen, world_size)


def _listed(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last


def is_averaged(candidate: Candidate) -> bool:
    """Whether the measured weights are not simply those of the last step."""
    return bool(candidate.config["average"] != "raw")


def averaging_of(candidate: Candidate, spec: SweepSpec) -> Averaging | None:
    """The averaging of the weights; None for a raw configuration.

    Raises:
        SweeperError: a feedback EMA that is not in the spec, so that its exact decay is unknown.
        ExportError: an average that the callback does not have.
    """
    readout, label = candidate.readout, str(candidate.config["average"])
    if label.startswith("feedback"):
        feedback = feedback_of(candidate, spec)
        if feedback is None:
            raise SweeperError(f"`{label}` is not among the averages of sweep {spec.name}")
        return Averaging("feedback", decay=feedback.decay, every=feedback.every)
    if readout["kind"] == "ema":
        return Averaging("ema", decay=readout["decay"])
    if readout["kind"] == "interpolate":
        return Averaging("interpolate", weight=readout["weight"])
    if readout["kind"] == "bema":
        return Averaging("bema", bema=readout["bema"])
    if readout["kind"] == "raw":
        return None
    raise ExportError(
        f"no trainer's export can average as `{label}` does; use --format yaml --weights for the averaged "
        "weights themselves, or --allow-unaveraged for files that train without"
    )


def has_adapter(config: Mapping[str, Any]) -> bool:
    """Whether an adapter was trained."""
    return bool(config["method"] != "full")


def is_quantized(config: Mapping[str, Any]) -> bool:
    """Whether the adapter was trained over a base in 4 bits."""
    return bool(config["method"] == "qlora")


def loaded_dtype(config: Mapping[str, Any]) -> str:
    """The dtype the model's weights are loaded in; `mixed_bf16` needs fp32 only for trained weights."""
    if config["dtype"] == "pure_bf16" or (config["dtype"] == "mixed_bf16" and has_adapter(config)):
        return "bfloat16"
    return "float32"


def openable(model: str) -> str:
    """A model path that another trainer can open: for a `builtin:` model, its folder if it is built."""
    try:
        return local_path(model)
    except DataError:
        return model


def adapter_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `peft.LoraConfig` under their own names.

    `all-linear` is a string there, not a list.
    """
    targets = list(config["lora_target_modules"])
    return {
        "r": config["lora_r"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config["lora_dropout"],
        "target_modules": targets[0] if targets == [ALL_LINEAR] else targets,
        "bias": "none",
        "use_rslora": config.get("use_rslora", False),
        "use_dora": config.get("use_dora", False),
        "task_type": "CAUSAL_LM",
    }


def whole_alpha(alpha: float) -> int:
    """`lora_alpha` for targets that accept only whole numbers.

    Raises: ExportError: it is not a whole number.
    """
    if not float(alpha).is_integer():
        raise ExportError(
            f"lora_alpha is {alpha}, but this target accepts only whole numbers; use --format "
            f"transformers, as peft accepts any number"
        )
    return int(alpha)


def write_files(folder: Path, contents: Mapping[str, str], what: str) -> tuple[Path, ...]:
    """Write files, name to content, into a folder, which is created if missing.

    Raises: RunFolderError: one of them cannot be written; `what` names the part of the export.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_atomic(folder / name, content)
    except OSError as error:
        raise RunFolderError(
            f"cannot write {what} to {folder}: {error.strerror}; choose another with --out"
        ) from None
    return tuple(folder / name for name in contents)


def dump(values: Mapping[str, Any]) -> str:
    """YAML in the given order. PyYAML writes floats as `2.0e-05`, which every YAML reader takes."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
