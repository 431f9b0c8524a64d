"""sweeper against what people would write today, on the same configurations, in one run.

Two rivals: a competent user trains every configuration by itself, an expert trains every path once and
scores copies of its weights (`rival.py --expert`). Each side is one subprocess, timed whole. sweeper runs
its controls as well, the rivals only the candidates, so the ratio of wall seconds is a lower bound.

The metrics of every configuration must agree; where they do not, configuration, metric and both values are
shown and the exit status is 1. They cannot where training amplifies rounding: at high learning rates losses
that differ by 1e-7 in the first steps differ by 0.01 in the last. So a configuration is compared only if no
loss of its run has parted from the rival's by more than PARTED; the others are counted.
`make bench` runs this.

    python benchmarks/bench.py            # 40 configurations
    python benchmarks/bench.py --full     # all of the miniature's
    python benchmarks/bench.py --smoke    # 3 configurations: does the benchmark itself work?
    python benchmarks/bench.py --smollm2 --set model.path=TAUGHT ...  # a real Llama, about an hour

"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import keep

from sweeper.data.sources import resolve
from sweeper.estimate import spent
from sweeper.planning import make_plan
from sweeper.spec import load_spec
from sweeper.store.records import Metric, TrialRecord, read_records

HERE = Path(__file__).resolve().parent
ALONE = ("decide=false",)
"""No side confirms what it finds: the rivals have no such thing."""
HELDOUT_LOSS_RELATIVE = 1e-4
ROUGE_L_ABSOLUTE = 1e-6
PARTED = 1e-4
"""In nats per token: runs whose losses differ by more are not of the same weights any more."""

Losses = Mapping[str, Mapping[int, float]]
"""By configuration, the losses of its run at the steps that were logged."""


class Grid(NamedTuple):
    """A sweep file, what is overridden in it, and how many times each rival's wall time is aimed at."""

    spec: str
    overrides: tuple[str, ...] = ()
    user_target: float | None = None
    expert_target: float | None = None


GRIDS = {
    "smoke": Grid(
        "miniature",
        (
            "space.learning_rate=2e-3",
            "space.batch_size=4",
            "space.max_steps=50",
            "space.average={values: [raw, {kind: ema, decay: 0.98}, {kind: interpolate, weight: 0.15}]}",
        ),
    ),
    "reduced": Grid(
        "miniature",
        (
            "space.learning_rate={values: [2e-3, 4e-3]}",  # Where few runs part from the rival's.
            "space.max_steps={values: [50, 100]}",
        ),
    ),
    "full": Grid("miniature", (), 8.0, 3.0),
    "smollm2": Grid(
        str(HERE.parent / "examples" / "smollm2" / "two_cores.yaml"),
        (
            "space.max_steps={values: [5, 10, 20]}",
            "compute.cpus_per_trial=1",
            "compute.checkpoint_every=null",
            "seeds=[0]",
        ),
        10.0,
        3.0,
    ),
}


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


def sweep_of(grid: Grid, local: Sequence[str]) -> list[str]:
    """The sweep file of a grid and its overrides, as words of a command."""
    options = [word for item in (*ALONE, *grid.overrides, *local) for word in ("--set", item)]
    return [grid.spec, *options]


def run_ours(sweep: Sequence[str], scratch: Path) -> tuple[Side, tuple[TrialRecord, ...], Losses]:
    """A fresh sweep, controls included."""
    folder = scratch / "ours"
    load = os.getloadavg()[0]
    command = ["-m", "sweeper", "run", *sweep, "--out", str(folder)]
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
    return side, records, {r.config_id: logged_losses(folder, r) for r in records}


def logged_losses(folder: Path, record: TrialRecord) -> dict[int, float]:
    """The losses in the log of a record's path, up to its step."""
    text = (folder / "trajectories" / record.trajectory_id / "log.jsonl").read_text("utf-8")
    lines = [line for line in map(json.loads, text.splitlines()) if line["event"] == "train"]
    last = record.config["max_steps"]
    return {line["step"]: line["loss"] for line in lines if line["step"] <= last}


def run_rival(
    sweep: Sequence[str], scratch: Path, *options: str
) -> tuple[Side, list[dict[str, Any]]]:
    """The same candidates by the rival, with the options that make it one or the other."""
    out = scratch / "rival.json"
    load = os.getloadavg()[0]
    seconds = timed([str(HERE / "rival.py"), *sweep, *options, "--out", str(out)])
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    trained, generated = (
        sum(trial["tokens"][kind] for trial in found["trials"]) for kind in ("trained", "generated")
    )
    worked = sum(trial["seconds"]["total"] for trial in found["trials"])
    start_up = seconds - worked / found["concurrent_trials"]
    side = Side(len(found["trials"]), load, seconds, trained, generated, worked, start_up)
    return side, found["trials"]


def has_parted(ours: Mapping[int, float], rival: Sequence[float]) -> bool:
    """Whether a loss of two runs of one configuration differs by more than PARTED."""
    return any(abs(loss - rival[step - 1]) > PARTED for step, loss in ours.items())


def compare(
    records: Sequence[TrialRecord], trials: Sequence[Mapping[str, Any]], candidates: set[str]
) -> Iterator[Difference]:
    """Every metric of these candidates on both sides; what one side lacks does not agree."""
    ours = {item.config_id: item.metrics for item in records if item.role == "candidate"}
    rival = {
        trial["config_id"]: {name: Metric(**item) for name, item in trial["metrics"].items()}
        for trial in trials
    }
    for config_id in sorted(candidates):
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


RIVALS = {"rival": (), "expert": ("--expert",)}
"""By the name of each in the result, its options."""


class Against(NamedTuple):
    """One rival: its side, its trials, the candidates whose runs have parted, and what was compared."""

    side: Side
    trials: Sequence[Mapping[str, Any]]
    parted: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def apart(self) -> list[str]:
        """The metrics that do not agree, in words."""
        return [
            f"{item.config_id} {item.metric}: sweeper {item.ours}, rival {item.rival}"
            for item in self.differences
            if not item.agrees
        ]


def show(name: str, target: float | None, ours: Side, against: Against) -> None:
    """The table of one rival, and the differences that must not be."""
    rival = against.side
    print(f"\n{'':<34}{'sweeper':>12}{name:>12}{'ratio':>9}  target")
    print(f"{'configurations measured':<34}{ours.configurations:>12,}{rival.configurations:>12,}")
    print(f"{'load average before':<34}{ours.load_before:>12.2f}{rival.load_before:>12.2f}")
    walls = f"{ours.wall_seconds:>12,.1f}{rival.wall_seconds:>12,.1f}"
    ratio = rival.wall_seconds / ours.wall_seconds
    print(f"{'wall seconds':<34}{walls}{ratio:>8.2f}x  {verdict(ratio, target)}")
    for kind in ("trained_tokens", "generated_tokens"):
        left, right = getattr(ours, kind), getattr(rival, kind)
        print(f"{kind.replace('_', ' '):<34}{left:>12,}{right:>12,}{right / left:>8.2f}x")
    for what, size in largest(against.differences).items():
        print(f"{'largest difference ' + what:<34}{size:>24.3g}")
    compared = len(against.differences)
    print(f"{'values compared / disagreeing':<34}{compared:>12,}{len(against.apart):>12,}")
    print(f"{'configurations not compared: parted':<34}{len(against.parted):>11,}")
    print(*[f"DISAGREE {item}" for item in against.apart], sep="\n")


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


def _without_losses(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in trial.items() if name != "losses"}


def stored(target: float | None, ours: Side, against: Against) -> dict[str, Any]:
    """What is kept of one rival."""
    sizes = largest(against.differences)
    return {
        **against.side._asdict(),
        "trials": [_without_losses(trial) for trial in against.trials],
        "parted": against.parted,
        "ratio": against.side.wall_seconds / ours.wall_seconds,
        "target": target,
        "values_compared": len(against.differences),
        "largest_differences": {k: v if np.isfinite(v) else None for k, v in sizes.items()},
        "disagreements": against.apart,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    for name in sorted({*GRIDS} - {"reduced"}):
        size.add_argument(f"--{name}", action="store_const", dest="grid", const=name)
    parser.add_argument("--set", action="append", default=[], help="where local files are")
    given = parser.parse_args()
    name = given.grid or "reduced"
    grid = GRIDS[name]
    sweep = sweep_of(grid, given.set)
    plan = make_plan(load_spec(grid.spec, [*ALONE, *grid.overrides, *given.set]))
    candidates = {item.config_id for item in plan.configurations if item.role == "candidate"}
    if grid.spec == "miniature":
        resolve("builtin:miniature/model")  # Building the miniature is no part of the measurement.
    timed(["-c", "import peft, ray.tune, torch, transformers"])  # Nor is a cold disk.
    targets = {"rival": grid.user_target, "expert": grid.expert_target}
    found: dict[str, Against] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print(
            f"grid {name}: {plan.accounting.readouts} configurations, controls included; rates must be"
        )
        print(
            f"equal in k and n, heldout_loss within {HELDOUT_LOSS_RELATIVE:g} (relative)",
            flush=True,
        )
        ours, records, losses = run_ours(sweep, Path(folder))
        for rival, options in RIVALS.items():
            side, trials = run_rival(sweep, Path(folder), *options)
            by_id = {trial["config_id"]: trial["losses"] for trial in trials}
            parted = sorted(i for i in candidates & set(by_id) if has_parted(losses[i], by_id[i]))
            compared = tuple(compare(records, trials, candidates - {*parted}))
            found[rival] = Against(side, trials, tuple(parted), compared)
            show(rival, targets[rival], ours, found[rival])
    keep(
        HERE / "results" / f"bench-{name}.json",
        grid=name,
        overrides=[*ALONE, *grid.overrides],
        load_after=os.getloadavg()[0],
        sweeper=ours._asdict(),
        tolerances={
            "heldout_loss_relative": HELDOUT_LOSS_RELATIVE,
            "rouge_l_absolute": ROUGE_L_ABSOLUTE,
            "losses_parted": PARTED,
        },
        **{rival: stored(targets[rival], ours, item) for rival, item in found.items()},
    )
    return 1 if any(item.apart for item in found.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
