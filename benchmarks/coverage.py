"""How often intervals hold what they should, and how often a front by P(on front) is the true one.

`python benchmarks/coverage.py` simulates (seeded), prints its tables and writes them to results/, where the
documentation takes them from. Coverage of intervals of one count is summed exactly over all counts instead.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from kept import keep
from recovery import TOYS, calibration, recovery
from simulations import (
    RUNS,
    Row,
    clopper_pearson_interval,
    counts_coverage,
    credible_interval,
    differences_coverage,
    means_coverage,
    pairs_coverage,
    rate_errors,
    seeds_coverage,
)

from sweeper.stats import Interval, wilson_interval

RESULTS = Path(__file__).resolve().parent / "results" / "coverage.json"


def tables(repetitions: int) -> dict[str, list[Row]]:
    """Every table; each has its own generator, so that one does not move another."""
    intervals: Mapping[str, Callable[[int, int], Interval]] = {
        "Wilson": wilson_interval,
        "Jeffreys": credible_interval,
        "Clopper-Pearson": clopper_pearson_interval,
    }
    rng = np.random.default_rng
    many, few = repetitions, max(1, repetitions // 4)
    return {
        "one rate": [
            {"interval": name, "n": n, "rates": f"{low:g} to {high:g}"}
            | counts_coverage(interval, n, low, high)
            for name, interval in intervals.items()
            for n in (100, 256, 520)
            for low, high in ((0.01, 0.2), (0.2, 0.8))
        ],
        "two rates, the same prompts (Tango)": [
            {"n": n} | pairs_coverage(rng(1), n, 2 * many) for n in (100, 256, 520)
        ],
        "two means, the same rows": [{"n": n} | means_coverage(rng(2), n, many) for n in (48, 96)],
        "draws of two rates, the same prompts": [
            {"n": n} | differences_coverage(rng(3), n, many) for n in (100, 256)
        ],
        "draws of a rate over runs": [
            {"seeds": runs.seeds, "logit": runs.logit, "between runs": runs.runs}
            | seeds_coverage(rng(4), runs, 256, many)
            for runs in RUNS
        ],
        "ever wrong about a rate, looking after each of 1000 prompts": [
            {"rate": rate} | rate_errors(rng(5), rate, 1000, few)
            for rate in (0.01, 0.05, 0.16, 0.5)
        ],
        "front recovery": [
            {"toy": toy.name, "prompts": toy.prompts} | recovery(rng(7), toy, few) for toy in TOYS
        ],
        "what P(on front) is worth": calibration(rng(8), few),
    }


def shown(rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    found = tables(repetitions)
    for name, rows in found.items():
        print(f"\n{name}\n\n{shown(rows)}")
    keep(
        RESULTS,
        repetitions=repetitions,
        tables=found,
    )


if __name__ == "__main__":
    main()
