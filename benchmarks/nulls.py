"""How often paired intervals exclude zero where nothing differs: 5 % is promised, whatever the runs do.

`python benchmarks/nulls.py` simulates sweeps of twelve equal configurations (seeded), compares them in six
pairs with the package's own functions, prints its tables and writes them to results/. Runs of one
configuration differ by a normal of the given standard deviation: of rates on the probit scale, of scores
and losses in units of a row's own noise. Prompts and rows differ in difficulty, the same for all.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from coverage import shown
from kept import keep
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from simulations import Row

from sweeper.analysis import Candidate, paired_difference
from sweeper.report.averaging import clustered_interval
from sweeper.store.records import TrialRecord, metrics_from_samples
from sweeper.store.samples import Samples

RESULTS = Path(__file__).resolve().parent / "results" / "nulls.json"

Floats = NDArray[np.float64]
Simulated = Callable[[np.random.Generator, int, float], list[Samples]]
"""The samples of one configuration under each of some seeds, for a standard deviation between runs."""

PROMPTS, ROWS, CONFIGURATIONS = 256, 64, 12
SEEDS, SPREADS, RATES = (3, 5), (0.0, 0.3, 0.5), (0.01, 0.05, 0.15)
RUNS, READOUTS = 8, 3
METRIC = {"score": "rouge_l", "loss": "heldout_loss"}


def verdicts(rate: float, hard: Floats) -> Simulated:
    """Rates of runs with the mean `rate`; `hard` is the difficulty of the prompts."""

    def simulate(rng: np.random.Generator, seeds: int, spread: float) -> list[Samples]:
        runs = ndtri(rate) * np.sqrt(1 + spread**2) + spread * rng.standard_normal(seeds)
        shares = ndtr(runs[:, None] * np.sqrt(2.0) + hard)
        return [{"unsafe_rate": text_of(row)} for row in rng.random(shares.shape) < shares]

    return simulate


def scores(hard: Floats) -> Simulated:
    """Scores of rows, whose own noise is 0.1."""

    def simulate(rng: np.random.Generator, seeds: int, spread: float) -> list[Samples]:
        runs = 0.1 * spread * rng.standard_normal((seeds, 1))
        rows = 0.6 + runs + 0.1 * hard + 0.1 * rng.standard_normal((seeds, len(hard)))
        return [{"rouge_l": tuple(np.clip(row, 0, 1).tolist())} for row in rows]

    return simulate


def losses(hard: Floats, tokens: NDArray[np.int64]) -> Simulated:
    """Losses of rows of `tokens` tokens, whose own noise per token is 0.3."""

    def simulate(rng: np.random.Generator, seeds: int, spread: float) -> list[Samples]:
        runs = 0.3 * spread * rng.standard_normal((seeds, 1))
        rows = (2 + runs + 0.3 * hard + 0.3 * rng.standard_normal((seeds, len(hard)))) * tokens
        kept = tuple(tokens.tolist())
        return [{"heldout/loss": tuple(row.tolist()), "heldout/tokens": kept} for row in rows]

    return simulate


def text_of(row: NDArray[np.bool_]) -> str:
    """Verdicts as the samples of a record."""
    return "".join(map(str, row.astype(int)))


def candidate(name: str, trajectory: str, each: list[Samples]) -> Candidate:
    """A complete configuration with these samples under seeds 0, 1, ..."""
    names = ["unsafe_rate", "rouge_l", "heldout_loss"]
    config: dict[str, Any] = {"average": "raw"}
    records = tuple(
        TrialRecord(
            config_id=name,
            trajectory_id=trajectory,
            seed=seed,
            role="candidate",
            status="complete",
            config=config,
            readout={"step": 1, "kind": "raw"},
            metrics=metrics_from_samples(names, samples),
            objectives=(),
            samples=samples,
        )
        for seed, samples in enumerate(each)
    )
    values = {
        metric: float(np.mean([record.metrics[metric].value for record in records]))
        for metric in records[0].metrics
    }
    seeds = tuple(range(len(each)))
    return Candidate(
        name, "candidate", config, {"step": 1}, records, values, seeds, None, (), 1.0, 0.0, True
    )


def excluded(rng: np.random.Generator, simulate: Simulated, metric: str, case: Row) -> int:
    """In how many of the six pairs of one sweep the interval excludes zero."""
    seeds, spread = int(case["seeds"]), float(case["between runs"])
    items = [
        candidate(f"c{place}", f"t{place}", simulate(rng, seeds, spread))
        for place in range(CONFIGURATIONS)
    ]
    among = items if case["pooled"] == "sweep" else []
    found = [
        paired_difference(items[i], items[i + 1], metric, among=among)
        for i in range(0, CONFIGURATIONS, 2)
    ]
    between = [item.interval for item in found if item is not None and item.interval is not None]
    assert len(between) == CONFIGURATIONS // 2
    return sum(low > 0 or high < 0 for low, high in between)


def pairs(seed: int, metric: str, case: Row, sweeps: int) -> Row:
    """The share of pairs that differ, with what was compared."""
    rng, count = np.random.default_rng(seed), 0
    for _ in range(sweeps):
        hard, rows = rng.standard_normal(PROMPTS), rng.standard_normal(ROWS)
        simulate = {
            "rate": lambda hard=hard: verdicts(float(case["level"]), hard),
            "score": lambda rows=rows: scores(rows),
            "loss": lambda rows=rows: losses(rows, rng.integers(5, 60, ROWS)),
        }[metric]()
        count += excluded(rng, simulate, METRIC.get(metric, "unsafe_rate"), case)
    return {"metric": metric, **case, "excluded": count / sweeps / (CONFIGURATIONS // 2)}


def cases(level: float | str) -> list[Row]:
    """One seed for these weights, and several, trained again."""
    first = {"level": level, "seeds": 1, "between runs": 0.0, "pooled": "-"}
    more = [
        {"level": level, "seeds": seeds, "between runs": spread, "pooled": pooled}
        for seeds in SEEDS
        for spread in SPREADS
        for pooled in (("sweep", "pair") if isinstance(level, float) and seeds < 5 else ("pair",))
    ]
    return [first, *more]


def averaging(seed: int, case: Row, sweeps: int) -> Row:
    """The share of sweeps in which the mean effect of averaging differs from zero, where it is none.

    Eight runs with three readouts and their averages each. Within a run the two differ by a normal of half
    the spread, in either direction. Controls are of the same run, of a run of their own for each, or of
    four runs that stand for two averages each.
    """
    rng, count = np.random.default_rng(seed), 0
    seeds, spread, rate = int(case["seeds"]), float(case["between runs"]), float(case["level"])
    of = {"same run": np.arange(RUNS), "own runs": np.arange(RUNS, 2 * RUNS)}
    control = of.get(str(case["controls"]), RUNS + np.arange(RUNS) % 4)
    averaged, controls = (
        [(int(run), seed) for run in runs for _ in range(READOUTS) for seed in range(seeds)]
        for runs in (np.arange(RUNS), control)
    )
    for _ in range(sweeps):
        runs = ndtri(rate) + spread * rng.standard_normal((2 * RUNS, 1, seeds, 1))
        half, hard = spread / 4 * rng.standard_normal(runs.shape), rng.standard_normal(PROMPTS)
        drawn = [
            rng.random((2 * RUNS, READOUTS, seeds, PROMPTS)) < ndtr((runs + shift) * 2**0.5 + hard)
            for shift in (half, -half)
        ]
        apart = (drawn[0][:RUNS].astype(float) - drawn[1][control]).reshape(-1, PROMPTS)
        found = clustered_interval(float(apart.mean()), apart, averaged, controls)
        assert found is not None
        count += found.low > 0 or found.high < 0
    return {**case, "excluded": count / sweeps}


def tables(sweeps: int) -> Mapping[str, list[Row]]:
    """Every table; each row has its own generator."""
    levels: list[tuple[str, float | str]] = [("rate", rate) for rate in RATES]
    levels += [("score", "-"), ("loss", "-")]
    each = [(metric, case) for metric, level in levels for case in cases(level)]
    effects: list[Row] = [
        {"controls": controls, "level": 0.05, "seeds": seeds, "between runs": spread}
        for controls in ("same run", "own runs", "four runs")
        for seeds in (1, 3)
        for spread in SPREADS
    ]
    return {
        "pairs of equal configurations whose interval excludes zero": [
            pairs(place, metric, case, sweeps) for place, (metric, case) in enumerate(each)
        ],
        "mean effects of averaging that exclude zero": [
            averaging(place, case, 5 * sweeps) for place, case in enumerate(effects)
        ],
    }


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=150)
    sweeps = parser.parse_args().sweeps
    found = tables(sweeps)
    for name, rows in found.items():
        print(f"\n{name}\n\n{shown(rows)}")
    keep(
        RESULTS,
        repetitions=sweeps,
        tables=found,
    )


if __name__ == "__main__":
    main()
