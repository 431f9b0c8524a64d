"""For `accelerate launch`: how the devices share the work, beside TRL's configuration and script."""

from typing import Any

from sweeper.export import trl
from sweeper.export.header import header
from sweeper.export.job import ExportJob, dump


def files(job: ExportJob) -> dict[str, str]:
    """`<stem>.accelerate.yaml`, and what `trl.files` writes, which it launches."""
    name = f"{job.stem}.accelerate.yaml"
    script = f"`accelerate launch --config_file {name} {job.stem}.trl.py --dataset_name FILE`"
    callback = f"WITHOUT ema_callback.py THE NUMBERS DO NOT HOLD; {job.stem}.trl.py passes it on."
    return {
        name: header(job, f"accelerate: {script}", callback) + dump(values(job)),
        **trl.files(job),
    }


def values(job: ExportJob) -> dict[str, Any]:
    """Fields of accelerate's cluster configuration.

    Full fine-tuning on several devices is sharded by FSDP2. With an adapter, every device holds the whole
    frozen model. Accumulation is set in the training arguments.
    """
    config, devices = job.config, job.split.world_size
    sharded = devices > 1 and config["method"] == "full"
    kind = "FSDP" if sharded else "MULTI_GPU" if devices > 1 else "NO"
    found: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": kind,
        "mixed_precision": "bf16" if config["dtype"] == "mixed_bf16" else "no",
        "num_machines": 1,
        "num_processes": devices,
        "machine_rank": 0,
        "main_training_function": "main",
        "use_cpu": False,
    }
    if sharded:
        found["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_offload_params": False,
            "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
            "fsdp_activation_checkpointing": False,
        }
    return found
