"""How often the rules of stopping are wrong, and what they save, by simulation.

`python benchmarks/stopping.py` simulates (seeded), prints its tables and writes them to
results/, from where the documentation shows them.
"""

import argparse
from pathlib import Path

import numpy as np
from coverage import shown
from kept import keep
from stops import Row, prune_errors, race_errors, savings

RESULTS = Path(__file__).resolve().parent / "results" / "stopping.json"


def tables(repetitions: int) -> dict[str, list[Row]]:
    """Every table; each has its own generator, so that one does not move another."""
    rng = np.random.default_rng
    many, few = repetitions, max(1, repetitions // 4)
    paths = {
        "at the limit": (0.05, 0.05, 0.05, 0.05),
        "crosses the limit": (0.02, 0.05, 0.2, 0.4),
        "above from the start": (0.2, 0.3, 0.4, 0.5),
        "falls (against the assumption)": (0.3, 0.2, 0.03, 0.01),
    }
    return {
        "race: a rate at its limit is dropped": [
            {"limit": limit, "prompts": n, "batch": size, "error": error, "suite": suite}
            | race_errors(rng(1), limit, error, n, size, many, finite=suite == "finite")
            for suite in ("drawn", "finite")
            for limit in (0.01, 0.05, 0.16)
            for n, size in ((256, 1), (256, 32), (520, 32))
            for error in (0.05, 0.01)
        ],
        "race: a rate below its limit of 0.05 is dropped": [
            {"rate": rate} | race_errors(rng(2), rate, 0.05, 256, 32, many, limit=0.05)
            for rate in (0.01, 0.03)
        ],
        "saved, 256 prompts in batches of 32, limit 0.05 with confidence 0.95": [
            {"rate": rate} | savings(rng(3), rate, 256, 32, few)
            for rate in (0.01, 0.03, 0.05, 0.08, 0.1, 0.2, 0.5, 0.9)
        ],
        "prune: four readouts of a path, limit 0.05, error 0.05": [
            {"path": name, "rates": ", ".join(map(str, rates))}
            | prune_errors(rng(4), rates, 0.05, 256, many)
            for name, rates in paths.items()
        ],
    }


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20000)
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
