"""sweeper against what a competent user would write today, on the same configurations of the miniature.

Each side is one subprocess, timed whole. The metrics of every configuration must agree; where they do not,
configuration, metric and both values are shown and the exit status is 1. sweeper runs its controls as well,
the rival only the candidates, so the ratio of wall seconds is a lower bound. `make bench` runs this.

    python benchmarks/bench.py            # 40 configurations, and an extrapolation to the full grid
    python benchmarks/bench.py --full     # all 160 configurations, measured
    python benchmarks/bench.py --smoke    # 3 configurations: does the benchmark itself work?
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sweeper.data.sources import resolve
from sweeper.estimate import spent
from sweeper.planning import make_plan
from sweeper.spec import load_spec
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import Metric, TrialRecord, read_records

HERE = Path(__file__).resolve().parent
SPEC = "miniature"
HELDOUT_LOSS_RELATIVE = 1e-4
ROUGE_L_ABSOLUTE = 1e-6

GRIDS: dict[str, tuple[str, ...]] = {
    "smoke": (
        "space.learning_rate=8e-3",
        "space.batch_size=4",
        "space.max_steps=50",
        "space.average={values: [raw, {kind: ema, decay: 0.98}, {kind: interpolate, weight: 0.15}]}",
    ),
    "reduced": (
        "space.learning_rate={values: [3e-3, 8e-3]}",
        "space.max_steps={values: [50, 100]}",
    ),
    "full": (),
}
"""What each grid overrides in the miniature's sweep file."""

TARGETS = {"reduced": 6.0, "full": 10.0}
"""At least this many times faster than the rival, in wall seconds."""


class Side(NamedTuple):
    """What one side cost. `configurations` counts everything it measured, controls included.

    `load_before` is the machine's load average (one minute) before it started: another's work inflates.
    `worker_seconds` is the time all workers spent in trials. `start_up_seconds` is the rest of the wall
    time: for sweeper up to the first scored readout and after the last record, for the rival what the
    trials' seconds, shared among those that ran at once, do not explain.
    """

    configurations: int
    load_before: float
    wall_seconds: float
    trained_tokens: int
    generated_tokens: int
    worker_seconds: float
    start_up_seconds: float


class Difference(NamedTuple):
    """One metric of one configuration on both sides. `size` is relative for heldout_loss."""

    config_id: str
    metric: str
    ours: Metric | None
    rival: Metric | None
    size: float
    agrees: bool


def timed(command: Sequence[str]) -> float:
    """Wall seconds of a subprocess that sees this source tree.

    Raises:
        SystemExit: it failed; the end of what it printed is shown.
    """
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return seconds


def set_options(grid: str) -> list[str]:
    return [word for item in GRIDS[grid] for word in ("--set", item)]


def run_ours(grid: str, scratch: Path) -> tuple[Side, tuple[TrialRecord, ...]]:
    """A fresh sweep, controls included."""
    folder = scratch / "ours"
    load = os.getloadavg()[0]
    command = ["-m", "sweeper", "run", SPEC, *set_options(grid), "--out", str(folder)]
    began = time.time()
    seconds = timed(command)
    records = read_records(folder / "records.jsonl").records
    first = min(path.stat().st_mtime for path in (folder / "generations").iterdir())
    working = (folder / "records.jsonl").stat().st_mtime - first
    assert 0 < first - began < seconds
    trained: dict[str, int] = {}  # The count of a record is cumulative along its trajectory.
    for record in records:
        tokens = int(record.provenance["tokens"]["trained"] or 0)
        trained[record.trajectory_id] = max(tokens, trained.get(record.trajectory_id, 0))
    generated = sum(int(record.provenance["tokens"]["generated"] or 0) for record in records)
    cost = spent(records).seconds
    side = Side(
        len(records), load, seconds, sum(trained.values()), generated, cost, seconds - working
    )
    return side, records


def run_rival(grid: str, scratch: Path) -> tuple[Side, dict[str, Any]]:
    """The same candidates, one Ray Tune trial each."""
    out = scratch / "rival.json"
    load = os.getloadavg()[0]
    seconds = timed([str(HERE / "rival.py"), SPEC, *set_options(grid), "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    trained, generated = (
        sum(trial["tokens"][kind] for trial in found["trials"]) for kind in ("trained", "generated")
    )
    worked = sum(trial["seconds"]["total"] for trial in found["trials"])
    start_up = seconds - worked / found["concurrent_trials"]
    side = Side(len(found["trials"]), load, seconds, trained, generated, worked, start_up)
    return side, found


def compare(
    records: Sequence[TrialRecord], trials: Sequence[Mapping[str, Any]], candidates: set[str]
) -> Iterator[Difference]:
    """Every metric of every candidate on both sides; what one side lacks does not agree."""
    ours = {item.config_id: item.metrics for item in records if item.role == "candidate"}
    rival = {
        trial["config_id"]: {name: Metric(**item) for name, item in trial["metrics"].items()}
        for trial in trials
    }
    for config_id in sorted(candidates | set(ours) | set(rival)):
        left, right = ours.get(config_id, {}), rival.get(config_id, {})
        for name in sorted({*left, *right} or {"every metric"}):
            yield difference(config_id, name, left.get(name), right.get(name))


def difference(config_id: str, name: str, ours: Metric | None, rival: Metric | None) -> Difference:
    """Rates agree when k and n are equal, losses and ROUGE-L within their tolerances."""
    if ours is None or rival is None:
        return Difference(config_id, name, ours, rival, float("inf"), False)
    size = abs(ours.value - rival.value)
    same = ours.n == rival.n
    if name == "heldout_loss":
        size /= abs(rival.value)
        same = same and size <= HELDOUT_LOSS_RELATIVE
    elif name == "rouge_l":
        same = same and size <= ROUGE_L_ABSOLUTE
    else:
        same = same and ours.k is not None and ours.k == rival.k
    return Difference(config_id, name, ours, rival, size, same)


class Estimate(NamedTuple):
    """Wall seconds the full grid would take, and where each comes from."""

    rival_seconds: float
    ours_seconds_at_most: float
    ours_seconds_start_up_once: float
    growth: float
    start_up_seconds: float


def extrapolate(grid: str, ours: Side, rival: Side, found: Mapping[str, Any]) -> Estimate:
    """The full grid from the reduced one.

    Rival: start-up + (training by steps and batch size + mean evaluation + mean overhead) per trial, over
    the trials it runs at once; training is a line through the measured step counts of a batch size.
    Ours: the growth of the plan (readouts or optimizer steps with controls, whichever grows more) on the
    whole wall time, start-up included (`at_most`), or on all but a start-up like the rival's.
    """
    trials, slots = found["trials"], found["concurrent_trials"]
    seconds = [trial["seconds"] for trial in trials]
    start_up = rival.wall_seconds - sum(item["total"] for item in seconds) / slots
    beside_training = float(np.mean([item["total"] - item["train"] for item in seconds]))
    lines = {}
    for size in sorted({trial["batch_size"] for trial in trials}):
        own = [trial for trial in trials if trial["batch_size"] == size]
        steps, train = [t["steps"] for t in own], [t["seconds"]["train"] for t in own]
        lines[size] = np.polynomial.Polynomial.fit(steps, train, 1).convert()
    whole = make_plan(load_spec(SPEC, GRIDS["full"]))
    part = make_plan(load_spec(SPEC, GRIDS[grid]))
    points = [item for item in whole.configurations if item.role == "candidate"]
    work = sum(beside_training + float(lines[p.settings.batch_size](p.step)) for p in points)
    growth = max(
        whole.accounting.readouts / part.accounting.readouts,
        whole.accounting.steps_planned / part.accounting.steps_planned,
    )
    working = max(0.0, ours.wall_seconds - start_up)
    return Estimate(
        rival_seconds=start_up + work / slots,
        ours_seconds_at_most=ours.wall_seconds * growth,
        ours_seconds_start_up_once=min(start_up, ours.wall_seconds) + working * growth,
        growth=growth,
        start_up_seconds=start_up,
    )


def show(
    grid: str, ours: Side, rival: Side, differences: Sequence[Difference], estimate: Estimate | None
) -> None:
    """The one table, and the differences that must not be."""
    print(f"\n{'grid ' + grid:<34}{'sweeper':>12}{'rival':>12}{'ratio':>9}  target")
    print(f"{'configurations measured':<34}{ours.configurations:>12,}{rival.configurations:>12,}")
    print(f"{'load average before':<34}{ours.load_before:>12.2f}{rival.load_before:>12.2f}")
    ratio = rival.wall_seconds / ours.wall_seconds
    target = verdict(ratio, TARGETS.get(grid))
    walls = f"{ours.wall_seconds:>12,.1f}{rival.wall_seconds:>12,.1f}"
    print(f"{'wall seconds':<34}{walls}{ratio:>8.2f}x  {target}")
    for name in ("trained_tokens", "generated_tokens"):
        left, right = getattr(ours, name), getattr(rival, name)
        print(f"{name.replace('_', ' '):<34}{left:>12,}{right:>12,}{right / left:>8.2f}x")
    if estimate is not None:
        for label, seconds in (
            ("full grid, estimated", estimate.ours_seconds_start_up_once),
            ("  with our start-up scaled too", estimate.ours_seconds_at_most),
        ):
            ratio = estimate.rival_seconds / seconds
            walls = f"{seconds:>12,.1f}{estimate.rival_seconds:>12,.1f}"
            print(f"{label:<34}{walls}{ratio:>8.2f}x  {verdict(ratio, TARGETS['full'])}")
    for name, size in largest(differences).items():
        print(f"{'largest difference ' + name:<34}{size:>24.3g}")
    apart = [item for item in differences if not item.agrees]
    print(f"{'values compared / disagreeing':<34}{len(differences):>12,}{len(apart):>12,}")
    print(
        "sweeper's seconds include its controls and all start-up, the rival runs the candidates alone: the "
        f"ratio is a lower bound.\nRates must be equal in k and n, heldout_loss within "
        f"{HELDOUT_LOSS_RELATIVE:g} (relative), rouge_l within {ROUGE_L_ABSOLUTE:g}."
    )
    if estimate is not None:
        print(
            f"Estimates: rival by seconds per trial, steps and batch size; sweeper's work x "
            f"{estimate.growth:.2f} (its plan's growth), start-up taken as the rival's "
            f"{estimate.start_up_seconds:.1f} s."
        )
    for item in apart:
        print(f"DISAGREE {item.config_id} {item.metric}: sweeper {item.ours}, rival {item.rival}")


def verdict(ratio: float, target: float | None) -> str:
    if target is None:
        return ""
    return f">= {target:g}x {'met' if ratio >= target else 'MISSED'}"


def largest(differences: Sequence[Difference]) -> dict[str, float]:
    """The largest difference of losses (relative), of ROUGE-L and of all rates."""
    found = {"heldout_loss (relative)": 0.0, "rouge_l": 0.0, "rates": 0.0}
    names = {"heldout_loss": "heldout_loss (relative)", "rouge_l": "rouge_l"}
    for item in differences:
        name = names.get(item.metric, "rates")
        found[name] = max(found[name], item.size)
    return found


def result(
    grid: str,
    ours: Side,
    rival: Side,
    differences: Sequence[Difference],
    estimate: Estimate | None,
    found: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything measured, and on what."""
    return {
        "grid": grid,
        "overrides": GRIDS[grid],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count()},
        "load_after": os.getloadavg()[0],
        "versions": package_versions(),
        "git_commit": git_commit(),
        "sweeper": ours._asdict(),
        "rival": {**rival._asdict(), "trials": found["trials"]},
        "ratio": rival.wall_seconds / ours.wall_seconds,
        "target": TARGETS.get(grid),
        "full_grid_estimate": None if estimate is None else estimate._asdict(),
        "largest_differences": {
            name: size if np.isfinite(size) else None for name, size in largest(differences).items()
        },
        "tolerances": {
            "heldout_loss_relative": HELDOUT_LOSS_RELATIVE,
            "rouge_l_absolute": ROUGE_L_ABSOLUTE,
        },
        "disagreements": [
            f"{item.config_id} {item.metric}: sweeper {item.ours}, rival {item.rival}"
            for item in differences
            if not item.agrees
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    for grid in ("full", "smoke"):
        size.add_argument(f"--{grid}", action="store_const", dest="grid", const=grid)
    grid = parser.parse_args().grid or "reduced"
    plan = make_plan(load_spec(SPEC, GRIDS[grid]))
    candidates = {item.config_id for item in plan.configurations if item.role == "candidate"}
    resolve("builtin:miniature/model")  # Building the miniature is no part of the measurement.
    timed(["-c", "import peft, ray.tune, torch, transformers"])  # Nor is a cold disk.
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        print(f"sweeper: {plan.accounting.readouts} configurations, controls included", flush=True)
        ours, records = run_ours(grid, Path(name))
        print(f"rival: {len(candidates)} configurations", flush=True)
        rival, found = run_rival(grid, Path(name))
    differences = list(compare(records, found["trials"], candidates))
    estimate = extrapolate(grid, ours, rival, found) if grid == "reduced" else None
    show(grid, ours, rival, differences, estimate)
    out = HERE / "results" / f"bench-{grid}.json"
    out.parent.mkdir(exist_ok=True)
    content = result(grid, ours, rival, differences, estimate, found)
    out.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"results in {out}")
    return 0 if all(item.agrees for item in differences) else 1


if __name__ == "__main__":
    raise SystemExit(main())
