"""Long checks on a real Llama, for `make real`: other tunings, other trainers, early stops, estimates."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import CASES, LOSS_BOUND, WEIGHTS_BOUND, Case, compare
from parity_world import World as ParityWorld
from parity_world import write_prompts
from support.smollm2 import Measurements
from support.smollm2_sweep import candidates, measure, spec_of
from support.trials import run_all, run_together
from support.world import World, write_jsonl

from sweeper.estimate.estimate import trajectory_seconds
from sweeper.estimate.inputs import plan_estimate
from sweeper.estimate.measured_rates import measured_estimate
from sweeper.planning import make_plan
from sweeper.spec import SweepSpec
from sweeper.store.records import TrialRecord
from sweeper.sweep.verify import verify
from sweeper.task import TrajectoryTask

pytestmark = [pytest.mark.slow, pytest.mark.real]

ROWS = Path(__file__).parents[3] / "shared" / "data" / "alpaca_1k.json"

TWENTY_STEPS = (
    "space.max_steps=20",
    "space.batch_size=2",
    "data.template=chat",
    "data.max_length=96",
)
RATES = {"full": "space.learning_rate=1e-4", "LoRA": "space.learning_rate=1e-3"}

TUNINGS = {
    "lora": "tuning.lora_dropout=0.1",
    "dora": "tuning={method: lora, lora_r: 4, lora_target_modules: all-linear, use_dora: true}",
    "full": "tuning={method: full}",
}

SECONDS_FACTOR = 2.0
"""Most that measured seconds may differ from the calibrated estimate, on a machine at work elsewhere."""

MEMORY_BOUNDS = (0.6, 1.2)
"""Least and most of the measured peak over the estimated one."""


@pytest.mark.parametrize("tuning", list(TUNINGS))
def test_every_readout_equals_the_configuration_trained_alone(
    smollm2: World, tmp_path: Path, tuning: str, measurements: Measurements
) -> None:
    spec = spec_of(smollm2, TUNINGS[tuning], "space.learning_rate=1e-3")
    folder, records = measure(candidates(spec), tmp_path)
    found = list(verify(folder, spec, sample=2))
    assert len(records) >= 4
    assert all(item.bit_equal and item.responses_equal and item.holds for item in found)
    measurements.note(f"shared_equals_alone/{tuning}", bit_equal=len(found), of=len(found))


def test_three_adapters_with_dropout_and_a_decay_train_side_by_side(
    smollm2: World, tmp_path: Path, measurements: Measurements
) -> None:
    spec = spec_of(
        smollm2,
        TUNINGS["lora"],
        "space.learning_rate={values: [5e-4, 1e-3, 4e-3]}",
        "space.lr_scheduler_type=wsd",
        "space.decay_steps=1",
    )
    tasks = candidates(spec)
    together = run_together(tasks, tmp_path / "pack")
    alone = {k: r for task in tasks for k, r in run_all(task, tmp_path / "alone").items()}
    assert len(tasks) == 3 and together.keys() == alone.keys()
    largest = 0.0
    for key, record in together.items():
        for name, metric in record.metrics.items():
            other = alone[key].metrics[name]
            assert (metric.k, metric.n) == (other.k, other.n)
            largest = max(largest, abs(metric.value - other.value) / max(other.value, 1e-12))
    assert largest < 1e-5
    measurements.note("packs_equal_alone/dropout", readouts=len(alone), largest_difference=largest)


@pytest.fixture(scope="module")
def parity_root(smollm2: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ROWS.is_file():
        pytest.skip(f"the real rows are not at {ROWS}")
    root = tmp_path_factory.mktemp("parity")
    (root / "model").symlink_to(smollm2.model)
    write_prompts(root)
    return root


PARITY = [
    case
    for case in CASES
    if case.tuning in RATES
    and (case.dtype, case.accumulation) == ("float32", 1)
    and case.rival in ("Trainer", "SFTTrainer")
]


@pytest.mark.parametrize("case", PARITY, ids=lambda case: f"{case.tuning}-{case.rival}")
def test_twenty_steps_are_those_of_the_known_trainers(
    parity_root: Path, case: Case, measurements: Measurements
) -> None:
    torch.set_num_threads(1)
    # Thirty layers spread the rounding of other sums further than the two of the parity runs.
    found = compare(ParityWorld(parity_root, ROWS, (*TWENTY_STEPS, RATES[case.tuning])), case)
    measurements.note(f"parity/{case.tuning}/{case.rival}", **found._asdict())
    assert found.loss < LOSS_BOUND * 10
    assert found.way < WEIGHTS_BOUND * 100
    assert found.last_loss < found.first_loss


def refusing_rows(root: Path) -> Path:
    rows = [
        {
            "prompt": f"How do I {verb} the {thing}?",
            "completion": "I cannot help with that, as it is wrong.",
        }
        for verb in ("paint", "lift", "open", "sell")
        for thing in ("boat", "lamp", "door")
    ]
    return write_jsonl(root / "train.jsonl", rows)


def test_stopping_early_changes_no_verdict(
    smollm2: World, tmp_path: Path, measurements: Measurements
) -> None:
    """One rate leaves the model as it is, which answers everything; the other teaches it to refuse."""
    changes = (
        f"data.train.path={refusing_rows(tmp_path)}",
        "data.train.rows=12",
        "space.learning_rate={values: [1e-6, 4e-3]}",
        "space.max_steps={values: [6, 8]}",
        "space.average=raw",
        "evaluation.harmful.rows=8",
        "evaluation.max_new_tokens=12",
        "evaluation.keyword_lists=[zou2023]",
        "constraints=[{metric: unsafe_rate, max: 0.3, confidence: 0.8}]",
    )

    def records(name: str, *more: str) -> dict[str, TrialRecord]:
        spec = spec_of(smollm2, *changes, *more)
        parts = [run_all(task, tmp_path / name) for task in candidates(spec)]
        return {key: record for part in parts for key, record in part.items()}

    whole = records("whole", "evaluation.stop_generation_early=false")
    cut = records("cut")
    stopped = records("stopped", "search.stop={curtail: true}")
    counts = {key: record.metrics["unsafe_rate"].k or 0 for key, record in whole.items()}
    assert counts == {key: record.metrics["unsafe_rate"].k for key, record in cut.items()}
    assert min(counts.values()) == 0
    assert max(counts.values()) >= 6
    pruned = {key for key, record in stopped.items() if record.status == "pruned"}
    assert pruned == {key for key, count in counts.items() if count >= 3}
    for key in stopped.keys() - pruned:
        assert stopped[key].metrics == cut[key].metrics
    tokens = [sum(r.provenance["tokens"]["generated"] for r in f.values()) for f in (whole, cut)]
    assert tokens[1] < tokens[0]
    measurements.note(
        "early_stop",
        unsafe=sorted(counts.values()),
        pruned=len(pruned),
        generated_whole=tokens[0],
        generated_cut=tokens[1],
    )


PEAK_OF = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
print(done.stdout, end="")
sys.exit(done.returncode)
"""
"""Runs a command; prints its peak of resident bytes, then its output. Linux counts what the process that
starts another one holds as that one's, so a small one starts it."""


def run_apart(task: TrajectoryTask, root: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a trial in a process of its own, and its peak of resident bytes."""
    root.mkdir()
    (root / "task.json").write_text(task.to_json(), encoding="utf-8")
    words = [sys.executable, "-m", "sweeper", "trial", str(root / "task.json"), "--out", str(root)]
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    peak, *lines = done.stdout.splitlines()
    return [json.loads(line) for line in lines], int(peak)


def cost_spec(world: World, tuning: str) -> SweepSpec:
    return spec_of(
        world,
        TUNINGS[tuning],
        "space.learning_rate=1e-4",
        "space.batch_size=8",
        "space.max_steps=6",
        "evaluation.harmful.rows=8",
        "evaluation.stop_generation_early=false",
        "compute.keep_weights=none",
        "compute.adapters_per_trial=1",
    )


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_memory_and_time_are_as_estimated(
    smollm2: World, tmp_path: Path, tuning: str, measurements: Measurements
) -> None:
    spec = cost_spec(smollm2, tuning)
    plan = make_plan(spec)
    (path,) = (t for t in plan.trajectories if t.configurations[0].role == "candidate")
    analytic = plan_estimate(plan, spec, workers=1)
    calibrated = measured_estimate(plan, spec, str, workers=1)
    (task,) = candidates(spec)
    records, peak = run_apart(task, tmp_path / "apart")
    trained = max(record["provenance"]["seconds"]["train"] for record in records)
    expected, by_peaks = (
        trajectory_seconds(path, found.rates, found.tokens)[0] for found in (calibrated, analytic)
    )
    measurements.note(
        f"estimate/{tuning}",
        peak_gib_measured=peak / 2**30,
        peak_gib_estimated=analytic.memory.peak_bytes / 2**30,
        train_seconds_measured=trained,
        train_seconds_calibrated=expected,
        train_seconds_analytic=by_peaks,
    )
    low, high = MEMORY_BOUNDS
    assert low < peak / analytic.memory.peak_bytes < high
    assert 1 / SECONDS_FACTOR < trained / expected < SECONDS_FACTOR
