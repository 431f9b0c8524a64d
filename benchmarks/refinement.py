"""What further seeds do for the recommended configuration: simulated sweeps whose truth is known.

`python benchmarks/refinement.py` sweeps a grid of 64 configurations on 16 paths, whose runs differ, lets
`search.refine` add seeds, and counts in how many sweeps the one that would then be recommended is known
from a single training, and in how many its true mean rate over runs is above the limit (seeded).
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from recovery import row_scores

from sweeper.analysis import find_front
from sweeper.planning import Plan, make_plan
from sweeper.search.refine import read_refinements, refined_plans, would_be_choice
from sweeper.spec import SweepSpec, parse_spec
from sweeper.stats.distributions import normal_cdf, normal_quantile
from sweeper.store.folder import RunFolder
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import RecordWriter, TrialRecord, metrics_from_samples, read_records

RESULTS = Path(__file__).resolve().parent / "results" / "refinement.json"

Floats = NDArray[np.float64]
Row = dict[str, float | int | str]

LIMIT = 0.05
PROMPTS, ROWS = 256, 96
BASE_RATE, BASE_UTILITY = 0.005, 0.31

SPEC = f"""
version: 1
name: refinement
model: {{path: example/model, dtype: float32}}
tuning: {{method: full}}
data: {{train: {{path: train.jsonl}}, heldout_rows: {ROWS}}}
space:
  learning_rate: {{low: 1.0e-5, high: 1.0e-3, log: true, num: 16}}
  batch_size: 8
  max_steps: {{values: [40, 80, 160, 320]}}
evaluation: {{harmful: {{path: harmful.csv}}, harmless: {{path: harmless.csv}}}}
constraints: [{{metric: unsafe_rate, max: {LIMIT}}}]
search: {{refine: {{budget: 1, max_seeds: 4, batch_size: 4}}}}
"""

BUDGETS = (3840,)
"""Optimizer steps: twelve runs of the longest path. Three of them, 960 steps, one choice uses up."""

RUN_NOISE = (0.3, 0.65)
"""Standard deviations between runs of a path, on the probit scale; 0.65 is that of the miniature."""


class Sweep:
    """One simulated sweep: every run of a path has its own deviation, shared by its readouts."""

    def __init__(self, spec: SweepSpec, run_sd: float, rng: np.random.Generator) -> None:
        self.run_sd, self._rng = run_sd, rng
        self._hard = math.sqrt(0.5) * rng.standard_normal(PROMPTS)
        self._rows: Floats = rng.uniform(-0.1, 0.1, ROWS)
        self._runs: dict[tuple[Any, ...], float] = {}
        self.rates: dict[str, float] = {}
        for item in make_plan(spec).configurations:
            dose = math.log10(float(item.values.get("learning_rate") or 1e-6) * max(item.step, 1))
            blurred = 0.6 * (dose + 2.5) + 0.1 * rng.standard_normal()
            rate = float(normal_cdf(np.array(-2.0 + blurred)))
            self.rates[item.config_id] = BASE_RATE if item.role == "base" else rate

    def measured(self, plan: Plan) -> list[TrialRecord]:
        """The records of a plan."""
        records = []
        for path in plan.trajectories:
            settings = path.settings
            run = (settings.learning_rate, settings.lr_scheduler_type, path.seed)
            own = self._runs.setdefault(run, float(self._rng.standard_normal()))
            for item in path.configurations:
                base = item.role == "base"
                x = normal_quantile(np.array(self.rates[item.config_id]))
                x = float(x) * math.hypot(1, self.run_sd) + (0.0 if base else self.run_sd * own)
                noise = math.sqrt(0.5) * self._rng.standard_normal(PROMPTS)
                verdicts = self._hard + noise < x
                useful = 0.55 + 0.1 * float(normal_quantile(np.array(self.rates[item.config_id])))
                scores = row_scores(self._rng, BASE_UTILITY if base else useful + 0.3, self._rows)
                samples: Mapping[str, str | tuple[float, ...]] = {
                    "unsafe_rate": (verdicts + np.uint8(48)).tobytes().decode("ascii"),
                    "rouge_l": tuple(scores.tolist()),
                }
                records.append(
                    TrialRecord(
                        config_id=item.config_id,
                        trajectory_id=path.trajectory_id,
                        seed=path.seed,
                        role=item.role,
                        status="complete",
                        config=item.values,
                        readout={"step": item.step, "kind": "raw", "decay": None, "weight": None}
                        | {"label": "raw"},
                        metrics=metrics_from_samples(samples, samples),
                        objectives=("rouge_l", "unsafe_rate"),
                        samples=samples,
                    )
                )
        return records


class Ending(NamedTuple):
    """The choice of one sweep: how many seeds it has, whether it is truly above the limit."""

    seeds: int
    unsafe: bool


def spec_of(budget: int) -> SweepSpec:
    """The sweep, with this budget of further optimizer steps."""
    spec = parse_spec(SPEC)
    assert spec.search.refine is not None
    refine = spec.search.refine.model_copy(update={"budget": budget})
    return spec.model_copy(update={"search": spec.search.model_copy(update={"refine": refine})})


def swept(
    rng: np.random.Generator, run_sd: float, budget: int, root: Path
) -> tuple[Ending | None, Ending | None, tuple[str, ...]]:
    """The choice before and after one refinement, and for what its rounds were."""
    spec, folder = spec_of(budget), RunFolder(root)
    folder.create()
    sweep = Sweep(spec, run_sd, rng)
    _write(folder, sweep.measured(make_plan(spec)))
    before = _ending(folder, spec, sweep)
    for plans in refined_plans(spec, folder, None):
        if read_refinements(folder)[-1].choice is None:
            break  # The choice has its seeds; the undecided are not looked at here.
        _write(folder, [record for plan in plans[-4:] for record in sweep.measured(plan)])
    rounds = tuple(item.choice for item in read_refinements(folder) if item.choice)
    return before, _ending(folder, spec, sweep), rounds


def _ending(folder: RunFolder, spec: SweepSpec, sweep: Sweep) -> Ending | None:
    choice = would_be_choice(find_front(read_records(folder.records).records, spec), spec)
    if choice is None or not choice.feasible:
        return None
    return Ending(len(choice.seeds), sweep.rates[choice.config_id] > LIMIT)


def _write(folder: RunFolder, records: Sequence[TrialRecord]) -> None:
    writer = RecordWriter(folder.records)
    for record in records:
        if record.key not in writer.keys:
            writer.append(record)
    writer.close()


def table(sweeps: int) -> list[Row]:
    """A row for each noise and budget."""
    rows = []
    for budget in BUDGETS:
        for run_sd in RUN_NOISE:
            rng, found = np.random.default_rng(5), []
            for _ in range(sweeps):
                with tempfile.TemporaryDirectory() as scratch:
                    found.append(swept(rng, run_sd, budget, Path(scratch) / "run"))
            before = [item for item, _, _ in found if item is not None]
            after = [item for _, item, _ in found if item is not None]
            rows.append(
                {
                    "sd of runs": run_sd,
                    "budget": budget,
                    "sweeps": sweeps,
                    "choice before": len(before),
                    "unsafe before": sum(item.unsafe for item in before),
                    "choice after": len(after),
                    "with one seed": sum(item.seeds == 1 for item in after),
                    "with all seeds": sum(item.seeds == 4 for item in after),
                    "unsafe after": sum(item.unsafe for item in after),
                    "rounds": sum(len(rounds) for _, _, rounds in found) / sweeps,
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=20)
    content: dict[str, Any] = {"rows": table(parser.parse_args().sweeps)}
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count(), "words": "2 cores, no GPU"},
        "versions": package_versions(),
        "git_commit": git_commit(),
    } | content
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
