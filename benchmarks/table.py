"""Every target of speed beside its measurement, in one table. `make bench` runs this.

The rival on the reduced grid, the parts and ten thousand records are measured now, one after the other; the
full grid was measured once, by `bench.py --full`, and is read from its result. About nine minutes.

    python benchmarks/table.py            # measure, then print
    python benchmarks/table.py --print    # print what was measured last
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parts import Row, show

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def against_rival(grid: str) -> Iterator[Row]:
    """Ratios of wall seconds, from the strictest reading to the loosest, and the metrics of both rivals."""
    found = read(f"bench-{grid}")
    ours = found["sweeper"]
    own = ours["wall_seconds"] - ours["start_up_seconds"]
    for name, words in (("rival", "user"), ("expert", "expert")):
        rival = found[name]
        target, ratio = rival["target"], rival["ratio"]
        wanted, met = (f">= {target:g}x", ratio >= target) if target else ("", None)
        seconds = f"({rival['wall_seconds']:.0f} s to {ours['wall_seconds']:.0f} s)"
        head = f"{grid} grid, {rival['configurations']} configurations"
        yield Row(
            f"{head}: {words}'s wall time over sweeper's", f"{ratio:.1f}x {seconds}", wanted, met
        )
        more = ours["configurations"] / rival["configurations"]
        working = rival["wall_seconds"] - rival["start_up_seconds"]
        same = rival["start_up_seconds"] + working * more
        text = f"{same / ours['wall_seconds']:.1f}x; {working * more / own:.1f}x without start-up"
        yield Row("  for equal work: the rival extrapolated to our controls, too", text, "", None)
        for kind in ("trained", "generated"):
            left, right = ours[f"{kind}_tokens"], rival[f"{kind}_tokens"]
            yield Row(f"  {kind} tokens", f"{right:,} to {left:,}", "", None)
        apart = rival["disagreements"]
        differs = rival["largest_differences"]["heldout_loss (relative)"] or math.inf
        text = f"{len(apart)} of {rival['values_compared']} differ; losses by {differs:.0e}"
        parted = f"{len(rival['parted'])} configurations left out whose training parted"
        yield Row(f"  metrics, {parted}", text, "0 differ", not apart)
    fair = ours["worker_seconds"] / found["hardware"]["cpus"]  # A trial takes one CPU.
    share = ours["wall_seconds"] / fair
    yield Row("  wall over worker seconds / workers", f"{share:.2f}", "<= 1.15", share <= 1.15)
    yield Row("  the same, start-up taken out", f"{own / fair:.2f}", "", None)


def ten_thousand() -> Iterator[Row]:
    """The commands that read records, and the driver without training."""
    found = read("scale")
    for cost in found["costs"]:
        if cost["targeted"]:
            met = (
                cost["seconds"] < found["targets"]["seconds"]
                and cost["mib"] < found["targets"]["mib"]
            )
            text = f"{cost['seconds']:.1f} s, {cost['mib']:.0f} MiB"
            yield Row(f"{found['records']:,} records: {cost['command']}", text, "10 s 1 GiB", met)
    rate = found["no_op"]["trials_per_second"]
    yield Row(
        f"{found['no_op']['trials']:,} no-op trajectories through Ray",
        f"{rate:.0f} a second",
        "",
        None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--print", action="store_true", help="measure nothing")
    if not parser.parse_args().print:
        for command in (
            ["bench.py"],
            ["parts.py", "--out", str(RESULTS / "parts.json")],
            ["scale.py"],
        ):
            subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=True)
    known = [
        name for name in ("full", "reduced", "smollm2") if (RESULTS / f"bench-{name}.json").exists()
    ]
    grids = [
        name for name in known if "expert" in read(f"bench-{name}")
    ]  # Not those of an older form.
    rows = [row for grid in grids for row in against_rival(grid)]
    rows += [Row(**row) for row in read("parts")]
    rows += ten_thousand()
    show(rows)


if __name__ == "__main__":
    main()
