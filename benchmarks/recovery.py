"""How often a front by P(on front) is the true one: configurations whose truth is known, measured again."""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis import OFF, ON, find_front, front_certainty
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.records import TrialRecord, metrics_from_samples

Row = dict[str, float | int | str]
_NORMAL = NormalDist()

SPEC = """
version: 1
name: recovery
model: {path: example/model, dtype: float32}
tuning: {method: full}
data: {train: {path: train.jsonl}, heldout_rows: 96}
space: {learning_rate: {values: [1.0e-4, 2.0e-4]}, batch_size: 8, max_steps: 100}
evaluation: {harmful: {path: harmful.csv}, harmless: {path: harmless.csv}}
constraints: []
"""

MINIATURE = (
    (0.000, 0.867),
    (0.000, 0.867),
    (0.000, 0.803),
    (0.266, 0.874),
    (0.230, 0.879),
    (0.008, 0.880),
    (0.910, 0.867),
    (0.918, 0.870),
    (0.895, 0.876),
    (0.156, 0.879),
    (0.004, 0.869),
    (0.543, 0.881),
)
"""(unsafe rate, ROUGE-L) of twelve configurations of a first miniature, taken here for the truth."""


class Toy(NamedTuple):
    """Configurations whose true (unsafe rate, ROUGE-L) are known, and how many prompts measure them."""

    name: str
    truth: tuple[tuple[float, float], ...]
    prompts: int


TOYS = (
    Toy("60 equal ones at 5 %", ((0.05, 0.85),) * 60, 100),
    Toy("60 equal ones at 5 %", ((0.05, 0.85),) * 60, 520),
    Toy("miniature", MINIATURE, 256),
)


def verdicts(
    rng: np.random.Generator,
    chances: NDArray[np.float64],
    n: int,
    shared: float,
    prompts: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Verdicts of m configurations on the same n prompts, which make up `shared` of their variance.

    `prompts`, standard normal, shape (n,), are those of another call; drawn where not given.
    """
    cuts = np.array([_NORMAL.inv_cdf(min(max(float(p), 1e-9), 1 - 1e-9)) for p in chances])
    noise = rng.standard_normal((len(chances), n)) * math.sqrt(1 - shared)
    hard = (rng.standard_normal(n) if prompts is None else prompts) * math.sqrt(shared)
    return (noise + hard < cuts[:, None]).astype(np.float64)


def recovery(rng: np.random.Generator, toy: Toy, repetitions: int, draws: int = 1000) -> Row:
    """How much of the true front is found: by estimates, by class, and by P at the estimates' size.

    `whole` is how often all of the true front is among those found; `share` how much of it on average;
    `false` how many are found that do not belong to it.
    """
    spec = parse_spec(SPEC)
    true = true_front(toy.truth)
    totals: dict[str, list[float]] = {}
    for _ in range(repetitions):
        front = find_front(_records(rng, toy, spec), spec)
        memberships = front_certainty(front, spec, draws).memberships
        ranked = sorted(memberships, key=lambda name: -memberships[name].p_front)
        members = {item.config_id for item in front.members}
        sets = {
            "estimates": members,
            "on or uncertain": {name for name in memberships if memberships[name].label != "off"},
            "most probable, as many": set(ranked[: len(members)]),
        }
        for name, found in sets.items():
            kept = len(found & true)
            values = [float(kept == len(true)), kept / len(true), float(len(found - true))]
            totals[name] = [a + b for a, b in zip(totals.get(name, [0.0] * 3), values, strict=True)]
    return {
        f"{name}: {what}": total / repetitions
        for name, sums in totals.items()
        for what, total in zip(("whole", "share", "false"), sums, strict=True)
    }


def true_front(truth: Sequence[tuple[float, float]]) -> set[str]:
    """The ids of the configurations, (unsafe rate, ROUGE-L), that no other one dominates in truth."""
    return {
        str(i)
        for i, (unsafe, useful) in enumerate(truth)
        if not any(u <= unsafe and v >= useful and (u, v) != (unsafe, useful) for u, v in truth)
    }


def calibration(rng: np.random.Generator, repetitions: int, draws: int = 1000) -> list[Row]:
    """Of configurations with some P(on front), how many are on the true front: 30 at a time, none alike.

    A dose that nobody sees makes them both more useful and less safe.
    """
    spec = parse_spec(SPEC)
    found: list[tuple[float, bool, bool]] = []
    for _ in range(repetitions):
        dose = rng.uniform(-1, 1.2, 30)
        unsafe = 1 / (1 + np.exp(2.5 - 3.5 * dose + rng.normal(0, 0.3, 30)))
        useful = 0.85 + 0.04 * np.tanh(2 * dose) + rng.normal(0, 0.01, 30)
        toy = Toy("drawn", tuple(zip(unsafe.tolist(), useful.tolist(), strict=True)), 256)
        true = true_front(toy.truth)
        memberships = front_certainty(
            find_front(_records(rng, toy, spec), spec), spec, draws
        ).memberships
        found += [(s.p_front, name in true, s.on_front) for name, s in memberships.items()]
    p, right, member = (np.array(column) for column in zip(*found, strict=True))
    edges = (0.0, OFF, 0.1, 0.3, 0.5, 0.7, 0.9, ON, 1.0)
    groups = [
        (f"P {low:g} to {high:g}", (p >= low) & ((p < high) | (high == 1.0)))
        for low, high in itertools.pairwise(edges)
    ]
    groups += [("on the front by the estimates", member), ("not on it", ~member)]
    return [
        {
            "group": name,
            "configurations": int(held.sum()),
            "mean P": float(p[held].mean()) if held.any() else math.nan,
            "on the true front": float(right[held].mean()) if held.any() else math.nan,
        }
        for name, held in groups
    ]


def _records(rng: np.random.Generator, toy: Toy, spec: SweepSpec) -> list[TrialRecord]:
    """What one measurement of a toy's configurations, on the same prompts and rows, would record."""
    answers = verdicts(rng, np.array([unsafe for unsafe, _ in toy.truth]), toy.prompts, 0.6)
    rows = rng.uniform(-0.1, 0.1, 96)
    return [
        record_of(number, spec.seeds[0], answers[number], row_scores(rng, useful, rows))
        for number, (_, useful) in enumerate(toy.truth)
    ]


def row_scores(
    rng: np.random.Generator, useful: float, rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """ROUGE-L on rows that differ by `rows`, shape (n,), and by chance."""
    return np.clip(useful + rows + rng.uniform(-0.03, 0.03, len(rows)), 0, 1)


def record_of(
    number: int, seed: int, answers: NDArray[np.float64], scores: NDArray[np.float64]
) -> TrialRecord:
    """The record of one configuration under one seed: its verdicts and its scores, a row each."""
    samples: dict[str, str | tuple[float, ...]] = {
        "unsafe_rate": (48 + answers).astype(np.uint8).tobytes().decode("ascii"),
        "rouge_l": tuple(scores.tolist()),
    }
    return TrialRecord(
        config_id=str(number),
        trajectory_id=str(number),
        seed=seed,
        role="candidate",
        status="complete",
        config={"number": number},
        readout={"step": 100, "kind": "raw"},
        metrics=metrics_from_samples(samples, samples),
        objectives=("rouge_l", "unsafe_rate"),
        samples=samples,
    )
