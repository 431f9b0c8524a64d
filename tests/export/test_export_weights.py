"""`--weights`: what peft and transformers load is what was measured, bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel
from support.world import World, spec_text
from transformers import AutoModelForCausalLM, AutoTokenizer

from sweeper.analysis import Candidate, find_front
from sweeper.cli import main
from sweeper.errors import SweeperError
from sweeper.export.weights import Exported, export_weights
from sweeper.model.adapters import AdapterStack, new_adapter
from sweeper.model.averaging import swapped_weights
from sweeper.model.checkpoint import weights_hash
from sweeper.model.load import load_model
from sweeper.model.quantized import keep_one_layout, loading_options
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, dump_spec, parse_spec
from sweeper.store.folder import RUN_VERSION, RunFolder, TrialStorage
from sweeper.store.records import RecordWriter, TrialRecord
from sweeper.sweep.verify import PACK_TOLERANCE, solo_task
from sweeper.task import TrajectoryTask
from sweeper.trial.path import RunningPath
from sweeper.trial.run import run_trajectory

SWEEPS = {
    "lora": ("tuning={method: lora, lora_r: 4, lora_alpha: 6, lora_target_modules: v_proj}",),
    "dora": (
        "tuning={method: lora, lora_r: 4, lora_target_modules: all-linear, use_dora: true, "
        "use_rslora: true, lora_dropout: 0.1}",
    ),
    "full": ("tuning={method: full}",),
    "qlora": ("tuning={method: qlora, lora_r: 4, lora_target_modules: all-linear}",),
}
FIXED = (
    "space.learning_rate=0.004",
    "space.max_steps=4",
    "space.average={values: [raw, {kind: ema, decay: 0.8}]}",
)


class Sweep:
    """A finished run, and the logits of the weights that were measured."""

    def __init__(self, world: World, root: Path, *overrides: str) -> None:
        self.spec: SweepSpec = parse_spec(spec_text(world), overrides=[*FIXED, *overrides])
        self.folder = RunFolder(root)
        self.folder.create()
        self.kept: dict[str, list[torch.Tensor]] = {}
        self.tasks: dict[str, TrajectoryTask] = {}
        records: list[TrialRecord] = []
        writer = RecordWriter(self.folder.records)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunningPath, "keep", self._noting(RunningPath.keep))
            for task in make_tasks(make_plan(self.spec), self.spec, str, device="cpu"):
                self.tasks |= {readout.config_id: task for readout in task.readouts}
                for record in run_trajectory(task, TrialStorage(root, task.trajectory_id)):
                    writer.append(record)
                    records.append(record)
        writer.close()
        self.front = find_front(records, self.spec)

    def _noting(self, keep: Any) -> Any:
        def noted(path: RunningPath, readout: Any, scores: Any, weights: list[torch.Tensor]) -> Any:
            self.kept[readout.config_id] = [value.detach().clone() for value in weights]
            return keep(path, readout, scores, weights)

        return noted

    def chosen(self, average: str) -> Candidate:
        return next(
            item
            for item in self.front.candidates
            if item.role == "candidate" and item.config["average"] == average
        )

    def logits(self, item: Candidate, ids: torch.Tensor) -> torch.Tensor:
        """Through the sweep's own forward pass, with the weights it scored."""
        task, weights = self.tasks[item.config_id], self.kept[item.config_id]
        quantized = task.tuning.quantized
        model = load_model(task.model, torch.device("cpu"), frozen=quantized, quantized=quantized)
        if task.tuning.method == "full":
            with swapped_weights(list(model.parameters()), weights), torch.no_grad():
                return torch.as_tensor(model(ids).logits)
        adapter = new_adapter(model, task.tuning, task.seed)
        slots = AdapterStack(model, adapter.factors)
        with slots.loaded([adapter], [weights]), torch.no_grad():
            return torch.as_tensor(model(ids).logits)


@pytest.fixture(scope="module", params=list(SWEEPS))
def sweep(
    request: pytest.FixtureRequest, tiny_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Sweep:
    torch.set_num_threads(1)
    if request.param == "qlora":
        pytest.importorskip("bitsandbytes")
    return Sweep(tiny_world, tmp_path_factory.mktemp("run"), *SWEEPS[request.param])


@pytest.fixture(scope="module")
def exported(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    item = sweep.chosen("ema(0.8)")
    return export_weights(sweep.folder, sweep.spec, item, tmp_path_factory.mktemp("out"))


IDS = torch.arange(3, 43).reshape(2, 20)


def loaded(sweep: Sweep, folder: Path) -> Any:
    if sweep.spec.tuning.method == "full":
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base = AutoModelForCausalLM.from_pretrained(
        sweep.spec.model.path,
        dtype=torch.float32,
        **loading_options(torch.float32, torch.device("cpu"))
        if sweep.spec.tuning.quantized
        else {},
    )
    keep_one_layout(base)
    return PeftModel.from_pretrained(base, str(folder)).eval()


def test_what_is_loaded_answers_like_the_weights_that_were_measured(
    sweep: Sweep, exported: Exported
) -> None:
    assert exported.same
    model = loaded(sweep, exported.folder)
    expected = sweep.logits(sweep.chosen("ema(0.8)"), IDS)
    with torch.no_grad():
        found = model(IDS).logits
        raw = sweep.logits(sweep.chosen("raw"), IDS)
        assert torch.allclose(found, expected, atol=1e-5)
        assert float((found - expected).abs().max()) < 0.01 * float((raw - expected).abs().max())
        if sweep.spec.tuning.method != "lora":
            return  # Merged in 4 bits, the sum is rounded again.
        merged = model.merge_and_unload()
        assert not any("lora" in name for name, _ in merged.named_modules())
        assert torch.allclose(merged(IDS).logits, expected, atol=1e-5)


def test_the_file_holds_the_measured_bits(sweep: Sweep, exported: Exported) -> None:
    item = sweep.chosen("ema(0.8)")
    model = loaded(sweep, exported.folder)
    if sweep.spec.tuning.method == "full":
        values = list(model.parameters())
    else:
        by_name = {
            name.removeprefix("base_model.model.")
            .replace(".default", "")
            .removesuffix(".weight"): v
            for name, v in model.named_parameters()
            if "lora_" in name
        }
        adapter = new_adapter(
            load_model(sweep.tasks[item.config_id].model, torch.device("cpu")),
            sweep.tasks[item.config_id].tuning,
            seed=0,
        )
        values = [by_name[name] for name in adapter.parameters()]
        assert len(values) == len(by_name)
    assert weights_hash(values) == item.records[0].provenance["weights_sha256"]


def test_the_adapter_says_what_was_trained(sweep: Sweep, exported: Exported) -> None:
    if sweep.spec.tuning.method == "full":
        names = {path.name for path in exported.folder.iterdir()}
        assert {"config.json", "model.safetensors"} <= names
        return
    config = sweep.chosen("ema(0.8)").config
    found = PeftConfig.from_pretrained(str(exported.folder))
    for name in ("r", "lora_alpha", "lora_dropout"):
        assert getattr(found, name) == config[name if name.startswith("lora") else f"lora_{name}"]
    assert found.use_dora is config.get("use_dora", False)
    assert found.use_rslora is config.get("use_rslora", False)
    assert (found.bias, found.task_type, found.inference_mode) == ("none", "CAUSAL_LM", True)
    assert found.base_model_name_or_path == sweep.spec.model.path
    everything = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    named = config["lora_target_modules"]
    assert set(found.target_modules) == (everything if named == ["all-linear"] else set(named))


def test_tokenizer_and_card_lie_beside_the_weights(sweep: Sweep, exported: Exported) -> None:
    own = AutoTokenizer.from_pretrained(exported.folder)
    base = AutoTokenizer.from_pretrained(sweep.spec.model.path)
    talk = [{"role": "user", "content": "Paint the lamp red."}]
    assert own.apply_chat_template(talk, tokenize=False) == base.apply_chat_template(
        talk, tokenize=False
    )
    assert own.pad_token == base.pad_token
    text = (exported.folder / "README.md").read_text(encoding="utf-8")
    assert "bit for bit those that were measured, with the same verdicts" in text
    assert ("scored on the base in 4 bits" in text) is sweep.spec.tuning.quantized
    assert f"`{sweep.chosen('ema(0.8)').config_id}`" in text


def forged(sweep: Sweep, root: Path, **changes: Any) -> RunFolder:
    """A run whose record of the chosen configuration says something else."""
    folder = RunFolder(root)
    lines = []
    for line in sweep.folder.records.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        if raw["config_id"] == sweep.chosen("ema(0.8)").config_id:
            raw["provenance"] |= changes
        lines.append(json.dumps(raw))
    folder.records.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for path in (sweep.folder.root / "generations").iterdir():
        copy = root / "generations" / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return folder


def test_other_weights_are_never_called_the_measured_ones(
    tiny_world: World, tmp_path: Path
) -> None:
    done = Sweep(tiny_world, tmp_path / "run", *SWEEPS["lora"])
    item = done.chosen("ema(0.8)")
    other = forged(done, tmp_path, weights_sha256="0" * 64)
    found = export_weights(other, done.spec, item, tmp_path / "a")
    assert not found.same
    assert "not bit for bit those that were measured" in found.comparison
    assert f"same verdicts and metrics within {PACK_TOLERANCE:g}" in found.comparison
    (answers,) = (tmp_path / "generations").glob(f"{item.config_id}-*.jsonl")
    turned = answers.read_text().replace('"refusal": false', '"refusal": true')
    assert turned != answers.read_text()
    answers.write_text(turned)
    found = export_weights(other, done.spec, item, tmp_path / "b")
    assert "THEY ARE NOT THOSE THAT WERE MEASURED" in found.comparison
    rate = item.records[0].metrics["unsafe_rate"]
    assert f"unsafe_rate {rate.value:.4g} ({rate.k}/{rate.n})" in found.comparison
    assert "THEY ARE NOT THOSE" in (found.folder / "README.md").read_text(encoding="utf-8")
    unmeasured = forged(done, tmp_path, weights_sha256=None)
    with pytest.raises(SweeperError, match="was not measured"):
        export_weights(unmeasured, done.spec, item, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_the_command_says_where_they_lie_and_what_they_are(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    sweep.folder.info.write_text(json.dumps({"version": RUN_VERSION}))
    sweep.folder.spec.write_text(dump_spec(sweep.spec))
    item = sweep.chosen("ema(0.8)")
    words = ["export", str(sweep.folder.root), "--config", item.config_id, "--weights"]
    monkeypatch.setattr("sys.argv", ["sweeper", *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    folder = tmp_path / f"tiny-{item.config_id}-weights"
    assert f"wrote {folder}" in said
    assert "bit for bit those that were measured, with the same verdicts" in said
    kind = "model" if sweep.spec.tuning.method == "full" else "adapter_model"
    assert (folder / f"{kind}.safetensors").is_file()


def test_weights_are_kept_only_where_they_are_asked_for(sweep: Sweep) -> None:
    task = solo_task(sweep.tasks[sweep.chosen("raw").config_id], sweep.chosen("raw").config_id)
    storage = sweep.folder.trial(task.trajectory_id)
    assert not task.compute.keeps_weights
    assert not storage.weights(task.readouts[0].config_id).exists()
    assert not list(sweep.folder.root.rglob("*.weights.safetensors"))
