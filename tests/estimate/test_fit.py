"""What a trial takes on at once on a GPU, and which sweeps are refused before one is claimed."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.shapes import PUBLISHED, facts
from support.world import World, spec_text
from transformers import MambaConfig, MambaForCausalLM

from sweeper.errors import DeviceError
from sweeper.estimate import GPUS, Tokens, memory_facts, peak_memory
from sweeper.estimate import inputs as sweep_facts
from sweeper.estimate.inputs import Machine, on_gpus
from sweeper.estimate.preflight import check_memory
from sweeper.memory import (
    GIB,
    KV_SHARE,
    USABLE_SHARE,
    MemoryFacts,
    fitting_readouts,
    fitting_rows,
    memory,
    micro_batch_rows,
)
from sweeper.model.gpu_memory import usable_bytes
from sweeper.model.load import load_model
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import parse_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.sweep.run import SweepOptions, run_sweep
from sweeper.task import Tuning
from sweeper.trial.memory_budget import gpu_memory_budget
from sweeper.trial.run import run_pack

LORA = Tuning("lora", lora_r=16, lora_target_modules=("q_proj", "v_proj"))
LLAMA_2_7B = PUBLISHED["Llama-2-7B"][0]


def seven_b(**changes: Any) -> MemoryFacts:
    """LoRA on Llama-2-7B in mixed precision, rows of 512 tokens."""
    given: dict[str, Any] = {
        "shape": LLAMA_2_7B,
        "tuning": LORA,
        "dtype": "mixed_bf16",
        "interpolates": False,
        "train_length": 512,
        "evaluation_rows": 32,
        "heldout_length": 512,
        "generation_length": 640,
    }
    return facts(**{**given, **changes})


def train_bytes(found: MemoryFacts, rows: int) -> int:
    return memory(replace(found, train_rows=rows)).phase_bytes("train")


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
@pytest.mark.parametrize("length", [128, 512, 2048])
@pytest.mark.parametrize("paths", [1, 4])
def test_the_micro_batch_is_the_largest_power_of_two_that_fits(
    gpu: Any, length: int, paths: int
) -> None:
    found = seven_b(train_length=length, paths=paths)
    most = micro_batch_rows(64, length, None, paths)
    rows = fitting_rows(found, most, paths, gpu.memory_bytes)
    assert 1 <= rows <= most
    assert rows == most or rows.bit_count() == 1
    limit = USABLE_SHARE * gpu.memory_bytes
    if rows > 1:
        assert train_bytes(found, rows * paths) <= limit
    if rows < most:
        larger = min(most, 2 * rows)
        assert train_bytes(found, larger * paths) > limit


def test_a_bound_that_is_no_power_of_two_is_kept_where_it_fits() -> None:
    found = seven_b()
    assert fitting_rows(found, 12, 1, 10**15) == 12
    just_too_small = int(train_bytes(found, 12) / USABLE_SHARE) - 10**6
    assert fitting_rows(found, 12, 1, just_too_small) == 8
    assert fitting_rows(found, 12, 1, 1) == 1


def test_the_usual_micro_batch_of_a_7b_is_cut_to_what_a_gpu_holds() -> None:
    rows = [fitting_rows(seven_b(), 32, 1, gpu.memory_bytes or 0) for gpu in GPUS]
    assert rows == [2, 8, 16, 32]
    saving = seven_b(gradient_checkpointing=True)
    assert fitting_rows(saving, 32, 1, GPUS[1].memory_bytes or 0) == 32


def test_readouts_scored_together_fit_and_keep_to_their_share() -> None:
    for gpu in GPUS[1:]:
        limit = gpu.memory_bytes or 0
        many = fitting_readouts(seven_b(), 64, limit)
        used = memory(seven_b(readouts=many))
        share = (limit - memory(seven_b()).weights) // KV_SHARE
        assert many >= 1
        if many > 1:
            assert used.phase_bytes("generate") <= USABLE_SHARE * limit
            assert used.kv_cache <= share
        more = memory(seven_b(readouts=many + 1))
        assert more.kv_cache > share or more.phase_bytes("generate") > USABLE_SHARE * limit
    small = seven_b(evaluation_rows=16, generation_length=64)
    assert fitting_readouts(small, 5, GPUS[3].memory_bytes or 0) == 5
    assert fitting_readouts(small, 64, 1) == 1


def test_several_readouts_hold_a_cache_each() -> None:
    one, three = (memory(seven_b(readouts=n)) for n in (1, 3))
    assert three.kv_cache == 3 * one.kv_cache
    assert three.readout_copies == 3 * one.readout_copies
    assert three.resident_bytes == one.resident_bytes
    assert three.activations == one.activations


def test_processes_share_what_is_sharded_and_hold_the_rest_each() -> None:
    shape = LLAMA_2_7B
    one, four = (memory(seven_b(tuning=Tuning("full"), processes=n)) for n in (1, 4))
    for part in ("weights", "gradients", "moments", "shadows", "theta_0", "readout_copies"):
        assert getattr(one, part) == pytest.approx(4 * getattr(four, part), rel=1e-6)
    assert four.activations == one.activations  # Each has as many rows as one alone.
    tables = 2 * 32000 * 4096
    block = (shape.parameters - tables) // 32
    assert (one.gathered, one.gathered_gradients) == (0, 0)
    assert four.gathered == four.gathered_gradients == pytest.approx(4 * (tables + 2 * block))
    lora = [memory(seven_b(processes=n)) for n in (1, 4)]
    assert lora[1].moments == lora[0].moments  # Every process has the adapter whole.
    adapter = lora[0].theta_0
    assert lora[0].weights - adapter == pytest.approx(4 * (lora[1].weights - adapter), rel=1e-6)
    assert lora[1].gathered_gradients == 0


def test_bf16_shadows_are_updated_through_fp32_copies() -> None:
    pure = memory(facts(dtype="pure_bf16"))
    assert pure.average_copies == 4 * 1352
    assert memory(facts(dtype="pure_bf16", shadows=0)).average_copies == 0
    assert memory(facts()).average_copies == 0
    # The weights kept aside, the averaged ones in bf16, and three fp32 lists of an interpolation.
    assert pure.readout_copies == (2 + 2 + 12) * 1352


TOKENS = Tokens(200.0, 512, 100, 5000.0, 128, 12800.0, 0.0, "given")


def seven_b_spec(*overrides: str) -> Any:
    from support.factories import make_spec

    return make_spec(
        "tuning={method: lora, lora_r: 16, lora_target_modules: [q_proj, v_proj]}",
        "model.dtype=mixed_bf16",
        "space.batch_size=64",
        *overrides,
    )


def test_a_plan_counts_the_micro_batch_that_the_trial_will_use() -> None:
    spec = seven_b_spec("compute.adapters_per_trial=1")
    item = max(make_plan(spec).trajectories, key=lambda trajectory: trajectory.steps)
    plain = memory_facts(item, spec, LLAMA_2_7B, TOKENS, "cuda")
    assert (plain.train_rows, plain.readouts) == (32, 1)
    fitted = memory_facts(item, spec, LLAMA_2_7B, TOKENS, "cuda", 1, 40 * 10**9)
    assert fitted.train_rows == fitting_rows(plain, 32, 1, 40 * 10**9) < 32
    assert memory(fitted).peak_bytes <= 40 * 10**9
    asked = seven_b_spec("compute.micro_batch_size=8")
    kept = memory_facts(item, asked, LLAMA_2_7B, TOKENS, "cuda", 1, 40 * 10**9)
    assert kept.train_rows == 8
    together = memory_facts(item, spec, LLAMA_2_7B, TOKENS, "cuda", 1, 141 * 10**9)
    steps = [configuration.step for configuration in item.configurations]
    assert 1 < together.readouts <= max(steps.count(step) for step in steps)
    assert peak_memory(make_plan(spec), spec, LLAMA_2_7B, TOKENS, "cuda", 40 * 10**9).peak_bytes < (
        peak_memory(make_plan(spec), spec, LLAMA_2_7B, TOKENS, "cuda").peak_bytes
    )


def world_spec(world: World, *overrides: str) -> Any:
    return parse_spec(spec_text(world), overrides=["space.learning_rate=0.004", *overrides])


def outcome(world: World, root: Path, *overrides: str) -> dict[str, TrialRecord]:
    spec = world_spec(world, "space.batch_size=8", *overrides)
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    task = next(task for task in tasks if task.readouts[0].role == "candidate")
    parts = run_pack([task], lambda trajectory_id: TrialStorage(root, trajectory_id))
    return {record.config_id: record for part in parts for record in part}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_trial_on_a_small_gpu_takes_on_less_and_finds_the_same(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    expected = outcome(tiny_world, tmp_path / "cpu", f"tuning.method={method}")
    spec = world_spec(tiny_world, "space.batch_size=8", f"tuning.method={method}")
    task = next(t for t in make_tasks(make_plan(spec), spec, str) if t.segments[0].stop)
    model = load_model(task.model, torch.device("cpu"))
    room = gpu_memory_budget(2 * GIB, [task], load_inputs(task), model)
    assert room is not None
    assert room.rows(8, 1) == 8
    limit = int(train_bytes(room.facts, 3) / USABLE_SHARE)

    def small(device: torch.device, share: float) -> int:
        assert share == 1.0
        return limit

    monkeypatch.setattr("sweeper.trial.resources.usable_bytes", small)
    records = outcome(tiny_world, tmp_path / "gpu", f"tuning.method={method}")
    assert set(records) == set(expected)
    for config_id, record in records.items():
        assert record.status == "complete"
        shared = record.provenance["shared"]
        assert (shared["micro_batch_rows"], shared["halvings"]) == (2, 0)
        assert expected[config_id].provenance["shared"]["micro_batch_rows"] == 8
        for name, metric in record.metrics.items():
            assert metric.value == pytest.approx(expected[config_id].metrics[name].value, rel=1e-5)
    asked = outcome(tiny_world, tmp_path / "asked", "compute.micro_batch_size=4")
    assert {r.provenance["shared"]["micro_batch_rows"] for r in asked.values()} == {4}


def test_a_room_knows_its_data(tiny_world: World) -> None:
    spec = world_spec(
        tiny_world,
        "space.average={values: [raw, {kind: ema, decay: 0.9}, {kind: ema, decay: 0.5}]}",
    )
    task = next(t for t in make_tasks(make_plan(spec), spec, str) if t.segments[0].stop)
    inputs = load_inputs(task)
    model = load_model(task.model, torch.device("cpu"))
    room = gpu_memory_budget(GIB, [task] * 3, inputs, model)
    assert room is not None
    lengths = [len(row.prompt) + len(row.completion) for row in inputs.data.train]
    assert room.facts.train_length == max(lengths)
    assert room.facts.target_length == max(len(row.completion) for row in inputs.data.train)
    assert (room.facts.shadows, room.facts.paths, room.facts.evaluation_rows) == (2, 3, 4)
    assert room.facts.generation_length < room.facts.heldout_length + 6 + 64
    assert room.facts.shape.parameters == sum(value.numel() for value in model.parameters())
    with torch.device("meta"):
        unknown = MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1))
    assert gpu_memory_budget(GIB, [task], inputs, unknown) is None


def test_a_cpu_has_no_bound() -> None:
    assert usable_bytes(torch.device("cpu"), 1.0) is None


def test_a_share_of_a_gpu_reaches_the_trial(tiny_world: World) -> None:
    for asked, share in (("auto", 1.0), ("0.25", 0.25), ("2", 1.0), ("0", 1.0)):
        spec = world_spec(tiny_world, f"compute.gpus_per_trial={asked}")
        task = make_tasks(make_plan(spec), spec, str)[0]
        assert task.compute.gpu_share == share


A10 = Machine(GPUS[:1], 8)


def check(world: World, machine: Machine, *overrides: str, tokens: Tokens = TOKENS) -> None:
    spec = world_spec(world, *overrides)
    check_memory(make_plan(spec), spec, str(world.model), tokens, machine)


def small_gpu(gib: float) -> Machine:
    return Machine((GPUS[3], replace(GPUS[0], memory_bytes=int(gib * GIB))), 8)


def test_what_fits_with_one_row_is_not_refused(tiny_world: World) -> None:
    check(tiny_world, A10)
    check(tiny_world, small_gpu(0.5), "compute.gpus_per_trial=0")
    check(tiny_world, small_gpu(0.5), "compute.ray_address=somewhere:6379")
    check(tiny_world, Machine((), 8))


def test_what_does_not_fit_is_refused_with_numbers_and_ways_out(tiny_world: World) -> None:
    """A tokens count that no tiny model has stands for a large one: the held-out logits do not fit."""
    long = TOKENS._replace(longest_row=400_000)
    with pytest.raises(DeviceError) as caught:
        check(tiny_world, small_gpu(1.2), tokens=long)
    text = str(caught.value)
    for part in (
        "a trial does not fit its GPU with one row at a time: it needs about ",
        "GiB in the phase `",
        "A10 24 GB has 1.2 GiB",
        "`--no-memory-check`",
        "any of these fits: `data.max_length: 32` (",
    ):
        assert part in text, text
    assert "\n" not in text
    check(tiny_world, small_gpu(1.2), tokens=TOKENS)
    with pytest.raises(
        DeviceError, match=r"0\.5 of A10 24 GB has 0\.6 GiB; any of .*gpus_per_trial: 1"
    ):
        check(tiny_world, small_gpu(1.2), "compute.gpus_per_trial=0.5")
    with pytest.raises(DeviceError, match="a larger GPU is needed"):
        check(tiny_world, small_gpu(0.1))


def test_a_refusal_proposes_what_would_fit(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32
    ).save_pretrained(tmp_path)
    spec = seven_b_spec("tuning={method: full}", "evaluation.utility_metrics=[rouge_l]")
    with pytest.raises(DeviceError) as caught:
        check_memory(make_plan(spec), spec, str(tmp_path), TOKENS, Machine(GPUS[2:3], 8))
    text = str(caught.value)
    assert "weights 25.1 GiB" in text and "moments 50.2 GiB" in text
    proposed = text.split("any of these fits: ")[1]
    assert "`tuning.method: lora` (" in proposed
    assert "`compute.gpus_per_trial: 8` (" in proposed
    assert "gpus_per_trial: 4" not in proposed  # Four of them are not enough.
    lora = seven_b_spec()
    check_memory(make_plan(lora), lora, str(tmp_path), TOKENS, Machine(GPUS[2:3], 8))


def test_a_run_is_refused_before_ray_starts_and_runs_when_told_to(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_facts, "present_gpus", lambda: small_gpu(0.5).gpus)
    driven: list[int] = []

    def drive(rounds: Any, *rest: object) -> bool:
        driven.append(len(next(iter(rounds))))
        return False

    monkeypatch.setattr("sweeper.sweep.run.drive", drive)
    spec = world_spec(tiny_world)
    with pytest.raises(DeviceError, match=r"A10 24 GB has 0\.5 GiB"):
        run_sweep(spec, tmp_path / "run")
    assert driven == [] and not (tmp_path / "run" / "run.json").exists()
    run_sweep(spec, tmp_path / "run", SweepOptions(memory_check=False))
    assert driven == [len(make_plan(spec).trajectories)]


def test_a_gpu_that_holds_one_small_micro_batch_holds_one_trial(
    tiny_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper import estimate as cost

    spec = seven_b_spec(
        "compute.adapters_per_trial=1", "evaluation.batch_size=8", f"model.path={tiny_world.model}"
    )
    monkeypatch.setattr(sweep_facts, "read_shape", lambda *_: LLAMA_2_7B)
    found = on_gpus(make_plan(spec), spec, TOKENS, Machine((), 8))
    assert [item.trials for item in found] == [1, 1, 1, 1]
    plain = cost.peak_memory(make_plan(spec), spec, LLAMA_2_7B, TOKENS, "cuda").peak_bytes
    assert plain > 141 * 10**9 / 2


def test_the_table_of_the_docs_is_what_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    table = importlib.import_module("memory_table")
    assert len(table.table()) == 2 + 5 * 3 * 2
    names = {"1B": "3.2-1B", "3B": "3.2-3B", "7B": "2-7B", "8B": "3.1-8B", "70B": "3.1-70B"}
    assert {size: PUBLISHED[f"Llama-{name}"][0] for size, name in names.items()} == table.SHAPES
    shape, tuning = table.SHAPES["8B"], table.TUNINGS["full"]
    cell = table.smallest(shape, tuning, 80e9)
    assert cell is not None and cell.peak_bytes <= USABLE_SHARE * 80e9
    fewer = table.facts_of(shape, tuning, False, cell.gpus // 2)
    assert memory(fewer).peak_bytes > USABLE_SHARE * 80e9
