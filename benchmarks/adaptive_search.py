"""How much of a grid a search has to train: hypervolume of the safe front against the share of the grid.

Three synthetic surfaces whose whole grid is known, and optionally finished grid runs (`--run FOLDER`), are
searched by every sampler, ten seeds each, four settings at a time. Nothing is trained; it is looked up.

    python benchmarks/adaptive_search.py --out benchmarks/results/adaptive_search.json
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeper.analysis import Candidate, find_front, loss
from sweeper.planning import Point, make_plan, points_of
from sweeper.runs.run import open_run
from sweeper.search.suggest import Observation, next_points
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.records import Metric, TrialRecord

SAMPLERS = ("tpe", "gp", "nsga2", "nsga3", "qmc", "random")
SEEDS = 10
PARALLEL = 4
GOAL = 0.95
BUDGET = 0.40

SPEC = """
version: 1
name: surface
model: {path: example/model, dtype: float32}
tuning: {method: full}
data: {train: {path: train.jsonl}, heldout_rows: 96}
space:
  learning_rate: {low: 1.0e-6, high: 1.0e-3, log: true, num: 13}
  batch_size: {values: [8, 16, 32, 64]}
  max_steps: {values: [50, 100, 200, 400]}
  average: {values: [raw, {kind: ema, decay: 0.98}, {kind: interpolate, weight: 0.3}]}
evaluation: {harmful: {path: harmful.csv, prompt_split: all}, utility_metrics: [rouge_l]}
objectives: [rouge_l, unsafe_rate]
constraints: [{metric: unsafe_rate, max: 0.05, confidence: 0.95}]
"""

PROMPTS = 400
Surface = Callable[[float, float, float, float], tuple[float, float]]


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def valley(lr: float, batch: float, steps: float, pull: float) -> tuple[float, float]:
    """Learning saturates with lr * steps; harm sets in where the steps are large and noisy."""
    learned = 1 - math.exp(-((lr * 8e3) ** 0.8) * (steps / 100) ** 0.6)
    noise = math.log10(lr) + 4.3 - 0.3 * math.log2(batch / 8) + 0.25 * math.log2(steps / 100)
    useful = learned * (1 - 0.5 * _sigmoid(6 * (noise - 0.6))) * (1 - 0.1 * pull)
    return useful, 0.9 * _sigmoid(5 * (noise - 1.0 * pull - 0.3))


def ridge(lr: float, batch: float, steps: float, pull: float) -> tuple[float, float]:
    """What counts is lr / sqrt(batch), and the useful band is narrow."""
    scale = math.log10(lr / math.sqrt(batch)) + 5.0
    useful = math.exp(-((scale / 0.35) ** 2)) * (1 - math.exp(-steps / 120)) * (1 - 0.08 * pull)
    return useful, 0.8 * _sigmoid(7 * (scale - 0.15 - 0.5 * pull))


def decoy(lr: float, batch: float, steps: float, pull: float) -> tuple[float, float]:
    """A wide region of modest use, and one of a few settings, far from it, better and as safe."""
    x, y = math.log10(lr) + 6, math.log2(batch / 8)
    wide = 0.55 * math.exp(-(((x - 0.8) / 0.8) ** 2))
    small = 0.9 * math.exp(-(((x - 2.25) / 0.35) ** 2) - ((y - 3) / 1.2) ** 2)
    useful = max(wide, small) * (1 - math.exp(-steps / 90)) * (1 - 0.05 * pull)
    harm = 0.9 * _sigmoid(8 * (x - 1.9)) * (1 - 0.98 * math.exp(-(((y - 3) / 0.7) ** 2)))
    return useful, harm * (1 - 0.6 * pull)


SURFACES: dict[str, Surface] = {"valley": valley, "ridge": ridge, "decoy": decoy}
PULLS = {"raw": 0.0, "ema(0.98)": 0.5, "interpolate(0.3)": 1.0}


def surface_records(surface: Surface, spec: SweepSpec) -> dict[str, list[TrialRecord]]:
    """What the whole grid would measure, by configuration; the counts are rounded, not drawn."""
    found = {}
    for item in make_plan(spec).configurations:
        values = dict(item.values)
        if item.role == "base":
            useful, harm = 0.05, 0.01
        else:
            useful, harm = surface(
                values["learning_rate"],
                values["batch_size"],
                values["max_steps"],
                PULLS.get(values["average"], 0.0),
            )
        record = TrialRecord(
            config_id=item.config_id,
            trajectory_id="looked-up",
            seed=0,
            role=item.role,
            status="complete",
            config=values,
            readout={"step": item.step, "kind": "raw", "decay": None, "weight": None, "label": ""},
            metrics={
                "rouge_l": Metric(useful, 1000),
                "unsafe_rate": Metric.rate(round(harm * PROMPTS), PROMPTS),
            },
            objectives=("rouge_l", "unsafe_rate"),
        )
        found[item.config_id] = [record]
    return found


def area(members: Sequence[Candidate], spec: SweepSpec, worst: Sequence[float]) -> float:
    """Hypervolume in utility and the constrained rate, both minimised, up to the reference point."""
    rate = spec.constraints[0].metric
    points = sorted((loss(item, spec.utility), item.values[rate]) for item in members)
    total, ceiling = 0.0, worst[1]
    for x, y in points:
        if x < worst[0] and y < ceiling:
            total += (worst[0] - x) * (ceiling - y)
            ceiling = y
    return total


def curve(
    spec: SweepSpec, records: Mapping[str, list[TrialRecord]], trajectories: int, enough: float
) -> list[float]:
    """Hypervolume of the safe front after each round, until it is enough and the budget is spent."""
    base = next(items for items in records.values() if items[0].role == "base")
    worst = reference(spec, base[0])
    drawn: list[Point] = []
    observations: list[Observation] = []
    heights: list[float] = []
    while len(drawn) < trajectories:
        count = min(PARALLEL, trajectories - len(drawn))
        points = next_points(spec, observations, drawn, count, len(heights))
        if not points:
            break
        drawn += points
        known = points_of(spec, drawn)
        seen = [record for config_id in known for record in records[config_id]]
        front = find_front([*seen, *base], spec)
        by_id = {item.config_id: item for item in front.candidates}
        rounds = {id_: len(heights) + 1 for id_ in points_of(spec, points)}
        observations += [Observation(known[id_], rounds[id_], by_id[id_]) for id_ in rounds]
        heights.append(area(front.members, spec, worst))
        if heights[-1] >= enough and len(drawn) >= BUDGET * trajectories:
            break
    return heights


def reference(spec: SweepSpec, base: TrialRecord) -> tuple[float, float]:
    """The base model's utility and the limit of the constraint: what any safe and useful point beats."""
    utility = spec.utility
    value = base.metrics[utility.metric].value
    limit = spec.constraints[0].max
    return (-value if utility.direction == "maximize" else value), limit


def adaptive(spec: SweepSpec, sampler: str, seed: int, trajectories: int) -> SweepSpec:
    search = {
        "method": "optuna",
        "sampler": sampler,
        "seed": seed,
        "n_trials": trajectories,
        "batch_size": PARALLEL,
    }
    raw = spec.model_dump(mode="json", exclude_none=True) | {"search": search}
    return SweepSpec.model_validate(raw)


def shares_needed(
    spec: SweepSpec, records: Mapping[str, list[TrialRecord]], sampler: str
) -> dict[str, Any]:
    """Share of the grid's settings until the goal, for each seed (1.0: the whole grid or never)."""
    base = next(items for items in records.values() if items[0].role == "base")
    everything = find_front([r for items in records.values() for r in items], spec)
    members = [item for item in everything.members if item.role == "candidate"]
    whole = area(members, spec, reference(spec, base[0]))
    total = settings_of(spec)
    needed, at_budget = [], []
    for seed in range(SEEDS):
        heights = curve(adaptive(spec, sampler, seed, total), records, total, GOAL * whole)
        reached = [i for i, height in enumerate(heights) if height >= GOAL * whole]
        needed.append(min(1.0, (reached[0] + 1) * PARALLEL / total) if reached else 1.0)
        affordable = int(BUDGET * total) // PARALLEL
        at_budget.append(heights[affordable - 1] / whole if affordable else 0.0)
    return {
        "sampler": sampler,
        "share_needed": needed,
        "median_share_needed": statistics.median(needed),
        "median_hypervolume_at_budget": statistics.median(at_budget),
    }


def settings_of(spec: SweepSpec) -> int:
    space = spec.space
    return math.prod(
        len(axis.grid())
        for name in type(space).model_fields
        if name not in ("max_steps", "average") and (axis := getattr(space, name)) is not None
    )


def listed(spec: SweepSpec) -> SweepSpec:
    """The same space with its ranges as lists, so that a search stays on the grid's points."""
    raw = spec.model_dump(mode="json", exclude_none=True)
    for name in raw["space"]:
        axis = getattr(spec.space, name)
        if axis.values is None:
            raw["space"][name] = {"values": list(axis.grid())}
    return SweepSpec.model_validate(raw)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="finished grid runs")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS))
    options = parser.parse_args()
    worlds: dict[str, tuple[SweepSpec, dict[str, list[TrialRecord]]]] = {}
    spec = listed(parse_spec(SPEC))
    for name, surface in SURFACES.items():
        worlds[name] = spec, surface_records(surface, spec)
    for path in options.run:
        opened = open_run(path)
        found: dict[str, list[TrialRecord]] = {}
        for record in opened.records:
            found.setdefault(record.config_id, []).append(record)
        worlds[opened.spec.name] = listed(opened.spec), found
    results: dict[str, Any] = {}
    print(f"{'':12}{'sampler':8}  share of the grid until {GOAL:.0%}   hypervolume at {BUDGET:.0%}")
    for name, (spec, records) in worlds.items():
        results[name] = []
        for sampler in options.samplers:
            row = shares_needed(spec, records, sampler)
            results[name].append(row)
            low, high = min(row["share_needed"]), max(row["share_needed"])
            print(
                f"{name:12}{sampler:8}  {row['median_share_needed']:.2f} ({low:.2f} to {high:.2f})"
                f"{'':14}{row['median_hypervolume_at_budget']:.3f}",
                flush=True,
            )
    if options.out is not None:
        content = {
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": "2 cores, no GPU",
            "seeds": SEEDS,
            "batch_size": PARALLEL,
            "settings": {name: settings_of(spec) for name, (spec, _) in worlds.items()},
            "results": results,
        }
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
