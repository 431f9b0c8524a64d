"""Writes what the targets are to read: one folder per configuration, with the settings beside the files.

    python tests/export/targets/cases.py FOLDER     # in the project's own environment

Each folder holds `settings.json`, the flat configuration with seed and world size, from which the checks
work out by themselves what the target must have understood. The folder `trained` holds the export of a
configuration of a real small sweep, its rows, and the weights it was measured on.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from support.factories import make_config, make_lora_config, make_record, make_spec  # noqa: E402
from support.world import make_world, spec_text  # noqa: E402

from sweeper.analysis import find_front  # noqa: E402
from sweeper.errors import ExportError  # noqa: E402
from sweeper.export import FORMATS, Origin, export  # noqa: E402
from sweeper.export.rows import export_rows  # noqa: E402
from sweeper.planning import make_plan, make_tasks  # noqa: E402
from sweeper.spec import parse_spec  # noqa: E402
from sweeper.store.folder import TrialStorage  # noqa: E402
from sweeper.store.records import TrialRecord  # noqa: E402
from sweeper.trial.run import run_trajectory  # noqa: E402

HOSTILE = 'dir\'s "model": #1\n- ${oc.env:HOME} {x: [y'
EVERY = {
    "learning_rate": 2e-5,
    "batch_size": 32,
    "max_steps": 77,
    "weight_decay": 0.013,
    "adam_beta1": 0.87,
    "adam_beta2": 0.985,
    "adam_epsilon": 3e-9,
    "max_grad_norm": 0.7,
    "warmup_steps": 9,
    "max_length": 384,
    "revision": "abc123",
    "attention": "eager",
}
"""No value is anybody's default."""


class Case(NamedTuple):
    """One configuration, and how it is exported."""

    config: dict[str, Any]
    world_size: int = 1
    checkpointing: bool = False


CASES = {
    "full-cosine": Case(make_config(**EVERY, lr_scheduler_type="cosine"), 2),
    "full-constant": Case(
        make_config(learning_rate=3e-6, average="interpolate(0.25)", model="org/Llama-3.2-1B")
    ),
    "full-mixed": Case(
        make_config(
            **{**EVERY, "model": "meta-llama/Llama-3.2-1B-Instruct", "dtype": "mixed_bf16"},
            lr_scheduler_type="warmup_stable_decay",
            decay_steps=21,
            average="ema(0.99)",
        ),
        4,
        True,
    ),
    "full-bf16": Case(make_config(**EVERY, lr_scheduler_type="inverse_sqrt", dtype="pure_bf16")),
    "lora": Case(
        make_lora_config(**EVERY, lr_scheduler_type="linear", model="org/Llama-3.1-8B", lora_r=12)
    ),
    "lora-one-layer": Case(
        make_lora_config(
            lora_target_modules=["self_attn.q_proj"],
            dtype="mixed_bf16",
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=5,
            average="feedback(0.9, every=4)",
        ),
        2,
    ),
    "lora-everywhere": Case(
        make_lora_config(
            lora_target_modules=["all-linear"],
            use_dora=True,
            use_rslora=True,
            dtype="pure_bf16",
            average="ema(0.95)",
            model="meta-llama/Llama-3.2-3B",
        )
    ),
    "qlora": Case(
        make_lora_config(
            **EVERY, method="qlora", dtype="mixed_bf16", optim="paged_adamw_8bit", lora_r=12
        )
    ),
    "hostile": Case(make_lora_config(model=HOSTILE, template=HOSTILE, train={"path": HOSTILE})),
}


def write_cases(root: Path) -> None:
    """Export every case in every format; a format that refuses a case leaves its reason."""
    for name, case in CASES.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        spec = make_spec(f"compute.gradient_checkpointing={str(case.checkpointing).lower()}")
        item = find_front([make_record(identity="abc", config=case.config)], spec).candidates[0]
        origin = Origin(run=HOSTILE, compared=12)
        refused = {}
        for fmt in FORMATS:
            try:
                export(item, spec, fmt, folder, case.world_size, origin=origin)
            except ExportError as error:
                refused[fmt] = str(error)
        settings = {
            **case.config,
            "seed": item.seeds[0],
            "world_size": case.world_size,
            "gradient_checkpointing": case.checkpointing,
            "refused": refused,
        }
        (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


SMALL = (
    "tuning={method: lora, lora_r: 4, lora_alpha: 12, lora_target_modules: v_proj}",
    "space.learning_rate=0.004",
    "space.max_steps=6",
    "space.weight_decay=0.1",
    "space.warmup_steps=2",
    "space.lr_scheduler_type=linear",
    "space.average={values: [{kind: ema, decay: 0.8}]}",
    "compute.micro_batch_size=2",
)


def write_trained(root: Path) -> None:
    """A configuration that really was trained, with the weights it was measured on."""
    folder = root / "tiny_world"
    folder.mkdir(parents=True, exist_ok=True)
    spec = parse_spec(spec_text(make_world(folder)), overrides=SMALL)
    records: list[TrialRecord] = []
    for planned in make_tasks(make_plan(spec), spec, str, device="cpu"):
        task = replace(planned, compute=replace(planned.compute, keep_weights="all"))
        records += run_trajectory(task, TrialStorage(root / "run", task.trajectory_id))
    found = find_front(records, spec).candidates
    item = next(one for one in found if one.role == "candidate")
    export(item, spec, "llamafactory", root)
    export_rows(item, spec, root)
    (kept,) = root.rglob(f"{item.config_id}.weights.safetensors")
    shutil.copyfile(kept, root / "measured.safetensors")


if __name__ == "__main__":
    write_cases(Path(sys.argv[1]))
    write_trained(Path(sys.argv[1]).resolve() / "trained")
