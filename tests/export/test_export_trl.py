"""What `export` writes, run by TRL on the same rows, gives the weights the sweep measured."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from support.world import World, spec_text

from sweeper.analysis import Candidate, find_front
from sweeper.export import export
from sweeper.export.rows import export_rows
from sweeper.model.adapters import PARTS
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.score import Scores
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import Readout
from sweeper.trial.path import RunningPath
from sweeper.trial.run import run_trajectory

pytest.importorskip("trl")

BOUNDS = {"float32": 1e-5, "mixed_bf16": 0.05}
"""|ours - TRL's| / |ours - theta_0| over all trained weights. bf16 rounds at 1/256."""

AVERAGES = (
    "raw, {kind: ema, decay: 0.8}, {kind: interpolate, weight: 0.25}, "
    "{kind: feedback, decay: 0.6, every: 2}"
)
LORA = "tuning={method: lora, lora_r: 4, lora_alpha: 12, lora_target_modules: v_proj}"
SWEEPS = {
    "full": ("tuning={method: full}", "compute.gradient_checkpointing=true"),
    "lora": (LORA,),
    "dora": (
        "tuning={method: lora, lora_r: 4, lora_target_modules: all-linear, use_dora: true, "
        "use_rslora: true}",
    ),
    "decay tail": (LORA, "space.lr_scheduler_type=wsd", "space.decay_steps=3"),
    "mixed full": ("tuning={method: full}", "model.dtype=mixed_bf16"),
    "mixed lora": (LORA, "model.dtype=mixed_bf16"),
    "qlora": (
        "tuning={method: qlora, lora_r: 4, lora_target_modules: all-linear}",
        "model.dtype=mixed_bf16",
    ),
}
FIXED = (
    "space.learning_rate=0.004",
    "space.max_steps=6",
    "space.weight_decay=0.1",
    "space.warmup_steps=2",
    "space.lr_scheduler_type=linear",
    "compute.micro_batch_size=2",
    f"space.average={{values: [{AVERAGES}]}}",
)


class Finished:
    """A small sweep that ran to its end: its records, and the weights they were measured on."""

    def __init__(self, world: World, root: Path, *overrides: str) -> None:
        self.spec: SweepSpec = parse_spec(spec_text(world), overrides=[*FIXED, *overrides])
        self.weights: dict[str, torch.Tensor] = {}
        records: list[TrialRecord] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunningPath, "keep", self._keep(RunningPath.keep))
            for task in make_tasks(make_plan(self.spec), self.spec, str, device="cpu"):
                records += run_trajectory(task, TrialStorage(root, task.trajectory_id))
        assert {record.status for record in records} == {"complete"}
        self.candidates = {
            str(item.config["average"]).partition("(")[0]: item
            for item in find_front(records, self.spec).candidates
            if item.role == "candidate"
        }

    def _keep(self, keep: Any) -> Any:
        def kept(
            path: RunningPath, readout: Readout, scores: Scores, weights: list[torch.Tensor]
        ) -> Any:
            self.weights[readout.config_id] = flat(weights)
            return keep(path, readout, scores, weights)

        return kept


def flat(weights: Any) -> torch.Tensor:
    return torch.cat([value.detach().double().flatten() for value in weights])


def trained_by(model: Any, method: str) -> torch.Tensor:
    if method == "full":
        return flat(model.parameters())
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    parts = [getattr(layer, part) for layer in layers for part in PARTS]
    return flat(part["default"].weight for part in parts if "default" in part)


@pytest.fixture(scope="module", params=list(SWEEPS))
def finished(
    request: pytest.FixtureRequest, tiny_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    torch.set_num_threads(1)
    if request.param == "qlora":
        pytest.importorskip("bitsandbytes")
    root = tmp_path_factory.mktemp("sweep")
    yield Finished(tiny_world, root, *SWEEPS[request.param])


def words_for(folder: Path, item: Candidate, spec: SweepSpec) -> list[str]:
    """Export, and what the script is told to walk the path of the sweep on this machine."""
    export(item, spec, "trl", folder)
    (rows,) = export_rows(item, spec, folder)
    assert len(rows.read_text().splitlines()) == 6 * 4
    out = ["--output_dir", str(folder / "out"), "--disable_tqdm", "true"]
    order = ["--train_sampling_strategy", "sequential"]
    return ["--dataset_name", str(rows), *out, *order, "--use_cpu", "true"]


@pytest.mark.slow
@pytest.mark.parametrize("average", ["raw", "ema", "interpolate", "feedback"])
def test_trl_arrives_at_the_weights_that_were_measured(
    finished: Finished, average: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = finished.candidates[average]
    words = words_for(tmp_path, item, finished.spec)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ema_callback", raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (script,) = tmp_path.glob("*.trl.py")
    started: list[torch.Tensor] = []
    names = runpy.run_path(str(script))
    trainer_class = names["SFTTrainer"]

    class Noted(trainer_class):  # type: ignore[misc, valid-type]
        def train(self) -> Any:
            started.append(trained_by(self.model, item.config["method"]))
            return super().train()

    names["main"].__globals__["SFTTrainer"] = Noted
    trainer = names["main"](words)
    theirs, ours = (
        trained_by(trainer.model, item.config["method"]),
        finished.weights[item.config_id],
    )
    way, apart = float((ours - started[0]).norm()), float((theirs - ours).norm())
    print(f"{average}: {apart / way:.1e} of the way")
    assert way > 1e-3
    assert apart / way < BOUNDS[finished.spec.model.dtype]
    others = [w for name, w in finished.weights.items() if name != item.config_id]
    nearest = min(float((theirs - w).norm()) for w in others if w.shape == ours.shape)
    assert nearest > 2 * apart


@pytest.mark.slow
def test_the_script_runs_by_itself_and_saves_the_average(tiny_world: World, tmp_path: Path) -> None:
    done = Finished(tiny_world, tmp_path / "run", *SWEEPS["lora"])
    item = done.candidates["ema"]
    words = words_for(tmp_path / "export", item, done.spec)
    (script,) = (tmp_path / "export").glob("*.trl.py")
    ran = subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    assert ran.returncode == 0, ran.stderr
    saved = load_file(tmp_path / "export" / "out" / "adapter_model.safetensors")
    layers = dict.fromkeys(name.rpartition(".lora_")[0] for name in sorted(saved))
    theirs = flat(saved[f"{layer}.{part}.weight"] for layer in layers for part in PARTS[:2])
    ours = done.weights[item.config_id]
    assert float((theirs - ours).norm() / ours.norm()) < BOUNDS["float32"]


def test_exported_rows_are_those_of_the_trial_in_its_order(
    tiny_world: World, tmp_path: Path
) -> None:
    from sweeper.model.batches import RowOrder
    from sweeper.scoring.inputs import load_inputs

    spec = parse_spec(spec_text(tiny_world), overrides=["space.max_steps=3", "seeds=[2]"])
    task = next(
        t
        for t in make_tasks(make_plan(spec), spec, str, device="cpu")
        if t.readouts[0].role == "candidate"
    )
    records = list(run_trajectory(task, TrialStorage(tmp_path, task.trajectory_id)))
    item = find_front(records, spec).candidates[0]
    found = [
        json.loads(line) for line in export_rows(item, spec, tmp_path)[0].read_text().splitlines()
    ]
    inputs = load_inputs(task)
    order = RowOrder(len(inputs.data.train), 4, seed=2)
    expected = [inputs.data.train[i] for step in range(3) for i in order.batch(step)]
    assert len(found) == 12
    for text, row in zip(found, expected, strict=True):
        ids = inputs.tokenizer(text["prompt"], add_special_tokens=False)["input_ids"]
        both = inputs.tokenizer(text["prompt"] + text["completion"], add_special_tokens=False)
        assert tuple(ids) == row.prompt
        assert tuple(both["input_ids"]) == row.prompt + row.completion
