"""What very many records cost: the reading commands, resuming, and the driver's own time per trial.

`python benchmarks/scale.py` makes a run folder with 10,562 synthetic complete records (no model produced
them), runs each command as a process of its own, and prints wall seconds and peak memory beside the
targets. The driver runs a real local Ray with a trial function that only makes up records.
`--rates 114` makes 100,322 records; sizes are kept beside each other in the result.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sweeper.keywords.lists import load_keyword_list
from sweeper.planning import Plan, make_plan, make_tasks
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash
from sweeper.store.folder import RUN_VERSION, RunFolder, TrialStorage
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import RecordWriter, TrialRecord, metrics_from_samples, read_records
from sweeper.task import Readout, TrajectoryTask

HERE = Path(__file__).resolve()
RESULTS = HERE.parent / "results" / "scale.json"

SECONDS = {"sweeper front --json": 20.0, "sweeper recommend": 10.0, "sweeper report": 60.0}
MIB = 2048.0
"""The targets at a hundred thousand records."""

RATES = 12
"""Learning rates of the grid; each adds 880 records."""

SPEC = """
version: 1
name: scale
description: Synthetic numbers that no model produced.
model: {path: example/model, dtype: float32}
tuning: {method: lora, lora_r: 8, lora_alpha: 16, lora_target_modules: [q_proj, v_proj]}
data: {train: {path: train.jsonl}, heldout_rows: 96}
space:
  learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true, num: 12}
  batch_size: {values: [8, 16, 32, 64]}
  weight_decay: {values: [0.0, 0.1]}
  lr_scheduler_type: {values: [constant, linear]}
  max_steps: {values: [20, 40, 60, 80, 120, 160, 240, 320, 480, 640]}
  average:
    values:
      - raw
      - {kind: ema, decay: 0.95}
      - {kind: ema, retention: 0.3}
      - {kind: interpolate, weight: 0.5}
evaluation:
  harmful: {path: harmful.csv}
  harmless: {path: harmless.csv}
  keyword_lists: [sweeper, zou2023, qi2023]
  utility_metrics: [rouge_l, heldout_loss]
objectives: [rouge_l, unsafe_rate]
constraints: [{metric: unsafe_rate, max: 0.05}]
"""

NO_OPS = """
version: 1
name: no-op
model: {path: example/model, dtype: float32}
tuning: {method: full}
data: {train: {path: train.jsonl}, heldout_rows: 96}
space:
  learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true, num: 998}
  batch_size: 8
  max_steps: 100
evaluation: {harmful: {path: harmful.csv}, harmless: {path: harmless.csv}}
"""
"""With the base model and the default control exactly 1,000 trajectories of one readout each."""

_DAMPING = {"raw": 1.0, "ema": 0.3, "interpolate": 0.45}


class Cost(NamedTuple):
    """What one process cost: wall and processor seconds, peak resident memory in MiB."""

    command: str
    seconds: float
    cpu_seconds: float
    mib: float


def made_up(task: TrajectoryTask, readout: Readout, provenance: dict[str, Any]) -> TrialRecord:
    """A complete record as a trial writes it; its numbers follow from the configuration alone."""
    rng = np.random.default_rng(int(readout.config_id, 16))
    config, step = readout.config, readout.step
    dose = config["learning_rate"] * step * math.sqrt(config["batch_size"] / 8)
    dose *= _DAMPING[readout.average.kind]
    chance = 1 / (1 + math.exp(-(math.log10(dose + 1e-9) + 1.2) * 4))
    unsafe = int(rng.binomial(256, min(0.97, chance)))
    utility = 0.31 + 0.5 * (1 - math.exp(-dose * 60)) + float(rng.normal(0, 0.004))
    tokens = 24 + np.arange(96) % 37
    samples: dict[str, str | tuple[float, ...]] = {
        "rouge_l": tuple(np.clip(rng.normal(utility, 0.15, 96), 0, 1).tolist()),
        "heldout/loss": tuple((tokens * rng.normal(2 - utility, 0.1, 96)).tolist()),
        "heldout/tokens": tuple(tokens.tolist()),
        "unsafe_rate": verdicts(rng, unsafe, 256),
        "unsafe_rate/zou2023": verdicts(rng, min(256, unsafe + int(rng.integers(9))), 256),
        "unsafe_rate/qi2023": verdicts(rng, min(256, unsafe + int(rng.integers(9))), 256),
        "over_refusal_rate": verdicts(rng, int(rng.integers(9)), 128),
        "degenerate_rate/harmful": verdicts(rng, int(rng.integers(4)), 256),
    }
    return TrialRecord(
        config_id=readout.config_id,
        trajectory_id=task.trajectory_id,
        seed=task.seed,
        role=readout.role,
        status="complete",
        config=config,
        readout=readout.described(),
        metrics=metrics_from_samples([*samples, "heldout_loss"], samples),
        samples=samples,
        objectives=task.objectives,
        provenance={
            **provenance,
            "weights_sha256": f"{readout.config_id:0>64}",
            "seconds": {"load": 1.25, "train": round(step / 7, 3), "evaluate": 12.375},
            "tokens": {"trained": step * 4096, "generated": 24576},
        },
    )


def verdicts(rng: np.random.Generator, k: int, n: int) -> str:
    """k of n prompts, anywhere."""
    return (48 + (rng.permutation(n) < k)).astype(np.uint8).tobytes().decode("ascii")


def shared_provenance(lists: Sequence[str]) -> dict[str, Any]:
    """The part of a record's provenance that is the same in all records of a run."""
    return {
        "average_space": "factors",
        "keyword_lists": {name: load_keyword_list(name).digest for name in lists},
        "decoding": {"strategy": "greedy", "max_new_tokens": 96, "batch_size": 32},
        "model": {
            "name": "example/model",
            "revision": None,
            "commit": "0" * 40,
            "dtype": "bfloat16",
        },
        "data_sha256": {
            f"{name}.jsonl": "0" * 64 for name in ("train", "heldout", "harmful", "harmless")
        },
        "data_counts": {"train": 5000, "heldout": 96, "harmful": 256, "harmless": 128},
        "versions": package_versions(),
        "git_commit": git_commit(),
        "hardware": hardware("cpu"),
        "cpus_per_trial": 1,
    }


def laid_out(text: str) -> tuple[SweepSpec, Plan, tuple[TrajectoryTask, ...]]:
    """A spec, its plan and its tasks."""
    spec = parse_spec(text)
    plan = make_plan(spec)
    return spec, plan, make_tasks(plan, spec, lambda path: path)


def make_run(root: Path, rates: int = RATES) -> int:
    """Write a finished run; returns how many records it has."""
    spec, plan, tasks = laid_out(SPEC.replace(f"num: {RATES}", f"num: {rates}"))
    folder = RunFolder(root)
    folder.create()
    provenance = shared_provenance(spec.evaluation.keyword_lists)
    count = 0
    with folder.records.open("w", encoding="utf-8") as file:
        for task in tasks:
            for item in task.readouts:
                file.write(f"{made_up(task, item, provenance).to_json()}\n")
                count += 1
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    accounting = {"version": RUN_VERSION, "accounting": plan.accounting._asdict()}
    folder.plan.write_text(json.dumps(accounting), encoding="utf-8")
    info = {"version": RUN_VERSION, "name": spec.name, "spec_hash": spec_hash(spec)}
    folder.info.write_text(json.dumps(info), encoding="utf-8")
    return count


def resume(root: Path) -> None:
    """What `sweeper run` does, beside Ray, to find that nothing is left."""
    _, plan, tasks = laid_out(RunFolder(root).spec.read_text(encoding="utf-8"))
    found = read_records(RunFolder(root).records)
    writer = RecordWriter(RunFolder(root).records)
    owed = [(item.config_id, task.seed) for task in tasks for item in task.readouts]
    left = [key for key in owed if key not in writer.keys]
    writer.close()
    assert left == []
    assert plan.keys() == {record.key for record in found.records}


def resume_through_drive(root: Path) -> None:
    """The same by the driver itself, its import of Ray included."""
    from sweeper.sweep.driver import drive

    spec, _, tasks = laid_out(RunFolder(root).spec.read_text(encoding="utf-8"))
    drive([tasks], spec, RunFolder(root), no_op)


def progress(root: Path) -> None:
    """What a whole sweep pays for its progress lines, training aside."""
    from sweeper.runs.progress import SweepProgress

    spec, plan, _ = laid_out(RunFolder(root).spec.read_text(encoding="utf-8"))
    found = read_records(RunFolder(root).records)
    with SweepProgress(spec) as shown:
        shown.begin(plan, found._replace(records=()))
        for record in found.records:
            shown.record(record)


def no_op(
    tasks: Sequence[TrajectoryTask], storage_of: Callable[[str], TrialStorage], done: object
) -> Iterator[list[TrialRecord]]:
    """A trial that trains nothing."""
    for task in tasks:
        yield [made_up(task, readout, {}) for readout in task.readouts]


def no_op_trials(root: Path) -> None:
    """Print the seconds that `drive` takes for 1,000 trajectories, Ray's start and end included."""
    # Workers import the trial function by name, so it must not be `__main__.no_op`.
    sys.path.insert(0, str(HERE.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH")])
    )
    import scale

    from sweeper.sweep.driver import drive

    spec, _, tasks = laid_out(NO_OPS)
    alone = replace(spec.compute, adapters_per_trial=1)
    spec = spec.model_copy(update={"compute": alone})
    folder = RunFolder(root / "no-op")
    folder.create()
    begin = time.perf_counter()
    drive([tasks], spec, folder, scale.no_op)
    seconds = time.perf_counter() - begin
    assert len(read_records(folder.records).records) == len(tasks)
    print(json.dumps({"trials": len(tasks), "seconds": seconds}))


CHILDREN = {
    "resume": resume,
    "resume_through_drive": resume_through_drive,
    "progress": progress,
    "no_op_trials": no_op_trials,
}


def measure(name: str, command: Sequence[str | Path]) -> tuple[Cost, str]:
    """Run a process and wait for it: its cost and what it printed."""
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{name} ended with {process.returncode}")
        output.seek(0)
        cpu = usage.ru_utime + usage.ru_stime
        return Cost(name, seconds, cpu, _peak_mib(usage)), output.read()


def _peak_mib(usage: resource.struct_rusage) -> float:
    """Linux counts `ru_maxrss` in KiB, macOS in bytes."""
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def reading_costs(root: Path, only: Sequence[str]) -> list[Cost]:
    """All commands that only read the records, each in its own process."""
    commands: list[tuple[str, list[str | Path]]] = [
        ("sweeper front --json", ["-m", "sweeper", "front", root, "--json"]),
        ("sweeper recommend", ["-m", "sweeper", "recommend", root]),
        ("sweeper report", ["-m", "sweeper", "report", root]),
        ("resume", [HERE, "--child", "resume", root]),
        ("resume through drive", [HERE, "--child", "resume_through_drive", root]),
        ("progress lines", [HERE, "--child", "progress", root]),
    ]
    chosen = [one for one in commands if not only or one[0] in only]
    return [measure(name, command)[0] for name, command in chosen]


def table(costs: Sequence[Cost]) -> str:
    """One line per command, targets beside."""
    lines = [f"{'command':<24}{'seconds':>9}{'target':>8}{'of cpu':>8}{'MiB':>7}{'target':>8}"]
    for cost in costs:
        limit = SECONDS.get(cost.command)
        targets = ("", "") if limit is None else (f"< {limit:g}", f"< {MIB:g}")
        lines.append(
            f"{cost.command:<24}{cost.seconds:>9.2f}{targets[0]:>8}{cost.cpu_seconds:>8.2f}"
            f"{cost.mib:>7.0f}{targets[1]:>8}"
        )
    return "\n".join(lines)


def benchmark(root: Path, rates: int, only: Sequence[str], *, with_drive: bool) -> dict[str, Any]:
    """Measure everything; prints as it goes."""
    records = make_run(root, rates)
    costs = reading_costs(root, only)
    page = root / "report.html"
    report_mb = page.stat().st_size / 1e6 if page.exists() else None
    print(f"{records} records, {(root / 'records.jsonl').stat().st_size / 1e6:.1f} MB")
    print(table(costs))
    if report_mb is not None:
        print(f"report.html has {report_mb:.1f} MB")
    content: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count()},
        "versions": package_versions(),
        "git_commit": git_commit(),
        "records": records,
        "targets": {"seconds": SECONDS, "mib": MIB},
        "costs": [cost._asdict() for cost in costs],
        "report_mb": report_mb,
    }
    if with_drive:
        _, printed = measure("no-op trials", [HERE, "--child", "no_op_trials", root])
        found = json.loads(printed.splitlines()[-1])
        content["no_op"] = {**found, "trials_per_second": found["trials"] / found["seconds"]}
        print(
            f"{found['trials']} no-op trials through Ray in {found['seconds']:.1f} s: "
            f"{content['no_op']['trials_per_second']:.1f} per second"
        )
    return content


def main() -> None:
    """Run the benchmark, or one child of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"))
    parser.add_argument("--no-drive", action="store_true", help="leave out the trials through Ray")
    parser.add_argument("--rates", type=int, default=RATES, help="learning rates of the grid")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="COMMAND", help="sweeper report, ..."
    )
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    given = parser.parse_args()
    if given.child:
        CHILDREN[given.child[0]](Path(given.child[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = given.keep or Path(scratch)
        content = benchmark(root, given.rates, given.only, with_drive=not given.no_drive)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    known[f"{content['records']}"] = content
    RESULTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
