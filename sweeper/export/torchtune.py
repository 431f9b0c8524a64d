"""For torchtune: `tune run`. It has no callbacks, so averaged weights cannot be had there."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.errors import ExportError
from sweeper.export.header import header
from sweeper.export.job import ExportJob, adapter_fields, dump, openable
from sweeper.task import ALL_LINEAR

FILL_IN = "FILL_IN"
"""What only the user knows. torchtune stops at it: no component and no file has this name."""

_ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj"}

_NO_AVERAGE = (
    "torchtune HAS NO HOOK FOR THAT, so TRAINED WITH THIS FILE THE NUMBERS DO NOT HOLD: export for "
    "another trainer, or take the weights themselves with `sweeper export --weights`."
)
_NOTES = (
    "torchtune writes its own chat template around every row: give `dataset` plain prompts and "
    "completions, not the rows of `sweeper export --rows`.",
    f"Replace every {FILL_IN}.",
)
_NOTE_DTYPE = (
    "torchtune has no autocast and holds everything that is trained in `dtype`, where the sweep held it in "
    "fp32: small updates round away and THE NUMBERS NEED NOT HOLD."
)


class _Builder(NamedTuple):
    """Where torchtune makes a model, full or with an adapter, and what its checkpointer calls it."""

    module: str
    name: str
    model_type: str


_LLAMA_3_1, _LLAMA_3_2 = "torchtune.models.llama3_1", "torchtune.models.llama3_2"
BUILDERS = {
    "Llama-3.1-8B": _Builder(_LLAMA_3_1, "llama3_1_8b", "LLAMA3"),
    "Llama-3.1-70B": _Builder(_LLAMA_3_1, "llama3_1_70b", "LLAMA3"),
    "Llama-3.2-1B": _Builder(_LLAMA_3_2, "llama3_2_1b", "LLAMA3_2"),
    "Llama-3.2-3B": _Builder(_LLAMA_3_2, "llama3_2_3b", "LLAMA3_2"),
}
"""The last part of a hub id, without `-Instruct` -> torchtune 0.6's builder."""


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.torchtune.yaml`.

    Raises:
        ExportError: a schedule or LoRA targets that torchtune cannot have.
    """
    config, name = job.config, f"{job.stem}.torchtune.yaml"
    lora = config["method"] == "lora"
    recipe = "lora_finetune" if lora else "full_finetune"
    many = job.split.world_size > 1
    launch = f"--nproc_per_node {job.split.world_size} " if many else ""
    side = "distributed" if many else "single_device"
    exact = config["dtype"] == "float32" or (config["dtype"] == "pure_bf16" and not lora)
    notes = _NOTES if exact else (*_NOTES, _NOTE_DTYPE)
    target = f"torchtune: `tune run {launch}{recipe}_{side} --config {name}`"
    return {name: header(job, target, _NO_AVERAGE, notes) + dump(_escaped(values(job)))}


def values(job: ExportJob) -> dict[str, Any]:
    """Keys of torchtune 0.6's fine-tuning recipes. One epoch over enough rows is the whole training."""
    config = job.config
    found: dict[str, Any] = {
        "output_dir": job.stem,
        "model": _model(config),
        "tokenizer": {
            "_component_": "torchtune.models.llama3.llama3_tokenizer",
            "path": f"{FILL_IN}/tokenizer.model",
            "max_seq_len": config["max_length"],
        },
        "checkpointer": _checkpointer(job),
        "resume_from_checkpoint": False,
        "dataset": {
            "_component_": "torchtune.datasets.instruct_dataset",
            "source": "json",
            "data_files": f"{FILL_IN}.jsonl",
            "column_map": {"input": "prompt", "output": "completion"},
            "train_on_input": False,
            "packed": False,
        },
        "seed": job.candidate.seeds[0],
        "shuffle": False,
        "batch_size": job.split.per_device,
        "gradient_accumulation_steps": job.split.accumulation,
        "epochs": 1,
        "max_steps_per_epoch": config["max_steps"],
        "clip_grad_norm": config["max_grad_norm"],
        "optimizer": {
            "_component_": "torch.optim.AdamW",
            "lr": config["learning_rate"],
            "betas": [config["adam_beta1"], config["adam_beta2"]],
            "eps": config["adam_epsilon"],
            "weight_decay": config["weight_decay"],
            "fused": True,
        },
    }
    if config["method"] == "full":
        found["optimizer_in_bwd"] = False
    return {
        **found,
        "lr_scheduler": _schedule(config),
        "loss": {"_component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"},
        "metric_logger": {
            "_component_": "torchtune.training.metric_logging.DiskLogger",
            "log_dir": f"{job.stem}/logs",
        },
        "device": "cuda",
        "dtype": "fp32" if config["dtype"] == "float32" else "bf16",
        "compile": False,
        "enable_activation_checkpointing": job.spec.compute.gradient_checkpointing,
        "enable_activation_offloading": False,
    }


def _builder(model: str) -> _Builder | None:
    return BUILDERS.get(model.rpartition("/")[2].removesuffix("-Instruct"))


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    builder = _builder(config["model"])
    lora = config["method"] == "lora"
    component = FILL_IN
    if builder is not None:
        component = f"{builder.module}.{'lora_' if lora else ''}{builder.name}"
    return {"_component_": component, **(_adapter(adapter_fields(config)) if lora else {})}


def _adapter(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Torchtune scales by alpha / rank; rank-stabilised LoRA by alpha / sqrt(rank) (arXiv 2312.03732)."""
    alpha, rank = fields["lora_alpha"], fields["r"]
    return {
        **_layers(fields["target_modules"]),
        "lora_rank": rank,
        "lora_alpha": alpha * math.sqrt(rank) if fields["use_rslora"] else alpha,
        "lora_dropout": fields["lora_dropout"],
        "use_dora": fields["use_dora"],
    }


def _layers(targets: str | Sequence[str]) -> dict[str, Any]:
    names = (
        {*_ATTENTION, *_MLP} if targets == ALL_LINEAR else {n.rpartition(".")[2] for n in targets}
    )
    unknown = names - {*_ATTENTION, *_MLP}
    if unknown or names & _MLP not in (set(), _MLP):
        raise ExportError(
            f"torchtune cannot adapt just {', '.join(sorted(names))}: it takes any of "
            f"{', '.join(_ATTENTION)}, and {', '.join(sorted(_MLP))} together; export for another "
            "trainer"
        )
    return {
        "lora_attn_modules": [theirs for ours, theirs in _ATTENTION.items() if ours in names],
        "apply_lora_to_mlp": bool(names & _MLP),
        "apply_lora_to_output": False,
    }


def _checkpointer(job: ExportJob) -> dict[str, Any]:
    builder = _builder(job.config["model"])
    place = openable(job.config["model"])
    return {
        "_component_": "torchtune.training.FullModelHFCheckpointer",
        "checkpoint_dir": FILL_IN if builder is not None else place,
        "checkpoint_files": [f"{FILL_IN}.safetensors"],
        "output_dir": job.stem,
        "model_type": FILL_IN if builder is None else builder.model_type,
    }


def _schedule(config: Mapping[str, Any]) -> dict[str, Any]:
    """A component that takes `num_training_steps` and `last_epoch` from the recipe, as torchtune asks."""
    kind, warmup = config["lr_scheduler_type"], config["warmup_steps"]
    known = {
        "cosine": ("torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup", {}),
        "linear": ("transformers.get_linear_schedule_with_warmup", {}),
        "constant": ("transformers.get_wsd_schedule", {"num_decay_steps": 0}),
        "constant_with_warmup": ("transformers.get_wsd_schedule", {"num_decay_steps": 0}),
        "warmup_stable_decay": (
            "transformers.get_wsd_schedule",
            {"num_decay_steps": config["decay_steps"]},
        ),
    }
    if kind not in known:
        raise ExportError(
            f"torchtune cannot follow the schedule {kind}; it takes {', '.join(known)}; export for "
            "another trainer"
        )
    component, extra = known[kind]
    steps = 0 if kind == "constant" else warmup
    return {"_component_": component, "num_warmup_steps": steps, **extra}


def _escaped(value: Any) -> Any:
    """OmegaConf fills in what stands in `${...}`; a backslash before it keeps it text."""
    if isinstance(value, Mapping):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("${", r"\${") if isinstance(value, str) else value
