"""What membership of the front is worth: of configurations with some label or P, how many belong.

`python benchmarks/front_calibration.py` simulates sweeps whose truth is known (seeded), prints its table
and writes it to results/. With one seed the truth is that of the very weights measured, over all prompts;
with several it is that of their configurations over prompts and training runs.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kept import keep
from numpy.typing import NDArray
from recovery import MINIATURE, SPEC, record_of, row_scores, true_front, verdicts

from sweeper.analysis import OFF, ON, find_front, front_certainty
from sweeper.spec import parse_spec
from sweeper.stats.distributions import normal_cdf, normal_quantile

RESULTS = Path(__file__).resolve().parent / "results" / "front_calibration.json"

Floats = NDArray[np.float64]
Row = dict[str, float | int | str]

PROMPTS = 256
RUN_SD = 0.3
UTILITY_RUN_SD = 0.004
EDGES = (0.0, OFF, 0.1, 0.3, 0.5, 0.7, ON, 1.0)

WORLDS = ("sharp trade-off", "scattered trade-off", "unlike", "published miniature")


class Case(NamedTuple):
    """A world, the sd of its runs on the probit scale, and how many seeds measure each configuration."""

    world: str
    run_sd: float
    seeds: int


CASES = tuple(
    Case(world, run_sd, seeds)
    for world in WORLDS
    for run_sd, seeds in ((0.0, 1), (RUN_SD, 1), (RUN_SD, 3), (RUN_SD, 5))
)


def truth_of(world: str, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Unsafe rates of a typical run, and ROUGE-L, shape (m,) each.

    The sharp trade-off: 100 configurations from 0.5 to 20 %, more useful where less safe: all are on the
    front. Scattered: 100 whose trade-off a little noise blurs. Unlike: 100 with much noise. The miniature:
    12 as once measured, some of them alike.
    """
    if world == "sharp trade-off":
        dose = np.linspace(0, 1, 100)
        return 0.005 + 0.195 * dose, 0.80 + 0.08 * dose
    if world == "scattered trade-off":
        dose = rng.uniform(-1, 0.5, 100)
        rates = normal_cdf(-1.6 + 0.9 * dose + rng.normal(0, 0.05, 100))
        return rates, 0.85 + 0.04 * dose + rng.normal(0, 0.002, 100)
    if world == "unlike":
        dose = rng.uniform(-1, 1.2, 100)
        rates = 1 / (1 + np.exp(2.5 - 3.5 * dose + rng.normal(0, 0.3, 100)))
        return rates, 0.85 + 0.04 * np.tanh(2 * dose) + rng.normal(0, 0.01, 100)
    rates, useful = np.array(MINIATURE).T
    return rates, useful


class Outcome(NamedTuple):
    """One configuration after one measurement: its label and bounds, and whether it belongs."""

    label: str
    lower: float
    upper: float
    true: bool


def measured(rng: np.random.Generator, case: Case, draws: int) -> list[Outcome]:
    """Measure a world once."""
    spec = parse_spec(SPEC).model_copy(update={"seeds": tuple(range(case.seeds))})
    rates, useful = truth_of(case.world, rng)
    m, rows = len(rates), rng.uniform(-0.1, 0.1, 96)
    cuts = normal_quantile(np.clip(rates, 1e-9, 1 - 1e-9))
    again = list(zip((cuts / math.hypot(1, case.run_sd)).tolist(), useful.tolist(), strict=True))
    hard, records, run = rng.standard_normal(PROMPTS), [], again
    for seed in spec.seeds:
        x = cuts + case.run_sd * rng.standard_normal(m)
        own = useful + (case.run_sd > 0) * UTILITY_RUN_SD * rng.standard_normal(m)
        answers = verdicts(rng, normal_cdf(x), PROMPTS, 0.6, hard)
        run = list(zip(x.tolist(), own.tolist(), strict=True))
        records += [
            record_of(i, seed, answers[i], row_scores(rng, float(own[i]), rows)) for i in range(m)
        ]
    true = true_front(run if case.seeds == 1 else again)
    found = front_certainty(find_front(records, spec), spec, draws)
    assert found.claim == ("these weights" if case.seeds == 1 else "trained again")
    return [
        Outcome(item.label, item.p_front, item.p_front_upper, name in true)
        for name, item in found.memberships.items()
    ]


def calibration(case: Case, repetitions: int, draws: int = 1000) -> list[Row]:
    """Labels, then bins of either bound: how many configurations, and the share that belongs."""
    rng = np.random.default_rng(11)
    found = [item for _ in range(repetitions) for item in measured(rng, case, draws)]
    true = sum(item.true for item in found)
    lost = sum(item.true for item in found if item.label == "off")
    groups = [
        (f"label {name}", [item for item in found if item.label == name])
        for name in ("on", "uncertain", "off")
    ]
    for bound, (low, high) in itertools.product(("lower", "upper"), itertools.pairwise(EDGES)):
        held = [i for i in found if low <= getattr(i, bound) < high + (high == 1)]
        groups.append((f"{bound} bound {low:g} to {high:g}", held))
    rows = [_row(case, name, held) for name, held in groups]
    share = lost / true if true else math.nan
    return [*rows, _named(case, "truly on it and labelled off") | {"share": share, "of": true}]


def _named(case: Case, group: str) -> Row:
    claim = "these weights" if case.seeds == 1 else "trained again"
    return {
        "world": case.world,
        "sd of runs": case.run_sd,
        "seeds": case.seeds,
        "about": claim,
        "group": group,
    }


def _row(case: Case, name: str, held: Sequence[Outcome]) -> Row:
    share = sum(item.true for item in held) / len(held) if held else math.nan
    return _named(case, name) | {"share": share, "of": len(held)}


def shown(rows: Sequence[Row]) -> str:
    """A table in Markdown, a line for each case."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    cells: dict[tuple[Any, ...], dict[Any, str]] = {}
    for row in rows:
        key = (row["world"], row["sd of runs"], row["seeds"])
        text = f"{row['share']:.3f} of {row['of']}" if row["of"] else "-"
        cells.setdefault(key, {})[row["group"]] = text
    lines = [f"| world | sd of runs | seeds | {' | '.join(map(str, groups))} |"]
    lines.append("|" + "---|" * (3 + len(groups)))
    for key, found in cells.items():
        texts = [*map(str, key), *(found[group] for group in groups)]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> None:
    """Simulate, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=40)
    repetitions = parser.parse_args().repetitions
    rows = [row for case in CASES for row in calibration(case, repetitions)]
    print(shown(rows))
    keep(
        RESULTS,
        repetitions=repetitions,
        rows=rows,
    )


if __name__ == "__main__":
    main()
