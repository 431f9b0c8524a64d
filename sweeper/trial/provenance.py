"""Where the numbers of a trial come from, as its records state it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sweeper.keywords.lists import load_keyword_list
from sweeper.model.quantized import QUANT_TYPE
from sweeper.scoring.inputs import Inputs
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.task import HarnessSettings, TrajectoryTask


class Loaded(NamedTuple):
    """What a trial has loaded: inputs, the commit of its model, the name of its device, its end tokens."""

    inputs: Inputs
    commit: str | None
    device: str
    end_tokens: tuple[int, ...] = ()


def provenance(
    task: TrajectoryTask,
    processes: int,
    seconds: Mapping[str, float],
    shared: Mapping[str, Any],
    loaded: Loaded | None,
) -> dict[str, Any]:
    """Where the numbers of a task come from, as far as it is known by now.

    Args:
        task: The task.
        processes: How many work on it.
        seconds: Spent so far, by stage.
        shared: What its trial did for several readouts or paths at once.
        loaded: None before model and data are there.
    """
    lists = task.evaluation.keyword_lists
    return {
        "average_space": "factors" if task.tuning.has_adapter else "weights",
        **_quantization(task),
        "keyword_lists": {name: load_keyword_list(name).digest for name in lists},
        "decoding": {
            "strategy": "greedy",
            "max_new_tokens": task.evaluation.max_new_tokens,
            "batch_size": task.evaluation.batch_size,
            "stop_generation_early": task.evaluation.stop_generation_early,
            "answer_extractor": task.evaluation.answer_extractor,
            "end_tokens": {} if loaded is None else _named_tokens(loaded),
        },
        "lm_eval": _described(task.evaluation.lm_eval),
        "model": {
            "name": task.model.name,
            "revision": task.model.revision,
            "commit": None if loaded is None else loaded.commit,
            "dtype": task.model.dtype,
            "attention": task.model.attention,
        },
        "data_sha256": {} if loaded is None else loaded.inputs.hashes,
        "data_counts": {} if loaded is None else loaded.inputs.data.counts,
        "versions": package_versions(),
        "git_commit": git_commit(),
        "hardware": hardware("unknown" if loaded is None else loaded.device),
        "num_threads": task.compute.cpus_per_trial,
        "processes": processes,
        "seconds": {
            name: round(value, 3 if name in STAGES else 9) for name, value in seconds.items()
        },
        "shared": dict(shared),
    }


def _quantization(task: TrajectoryTask) -> dict[str, Any]:
    """How the base was held in training, and what its adapters were scored on; nothing without QLoRA."""
    if not task.tuning.quantized:
        return {}
    kind = f"{QUANT_TYPE}, double quantisation"
    return {"quantization": {"trained_on": kind, "scored_on": task.evaluation.base_weights}}


STAGES = ("load", "train", "evaluate")
"""What the seconds of a record are spent on."""


def _named_tokens(loaded: Loaded) -> dict[str, int]:
    """The tokens that end a response, by their text."""
    tokenizer = loaded.inputs.tokenizer
    return {str(tokenizer.convert_ids_to_tokens(token)): token for token in loaded.end_tokens}


def _described(harness: HarnessSettings | None) -> dict[str, Any] | None:
    """The tasks of lm-evaluation-harness as a record states them; `data_sha256` says where from."""
    if harness is None:
        return None
    return {
        "tasks": list(harness.tasks),
        "num_fewshot": harness.num_fewshot,
        "limit": harness.limit,
    }
