"""How often a sweep's recommendation is truly above the limit, and what it costs to be right.

`python benchmarks/selection.py` simulates whole sweeps (seeded), from records to recommendation through the
code of the product, prints a table and writes it to results/. `--worlds W1,W3` takes some of the worlds and
`--sweeps 50` fewer sweeps: then nothing is written.
"""

import argparse
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, get_args
from unittest.mock import patch

import numpy as np
from coverage import shown
from kept import keep
from selection_worlds import (
    BASE_UTILITY,
    LIMIT,
    PROMPTS,
    RUN_NOISE,
    SAFE,
    WORLDS,
    SimulatedSweep,
    World,
    sweep_spec,
)

from sweeper.analysis import Claim, Decided, Front, Recommendation, find_front, recommend
from sweeper.analysis import decision as testing
from sweeper.analysis import selection as corrected
from sweeper.analysis.decision import Walk, decide, promising_first
from sweeper.spec import SweepSpec
from sweeper.stats import Interval
from sweeper.stats.distributions import beta_cdf
from sweeper.sweep.decision import decision_spec

RESULTS = Path(__file__).resolve().parent / "results" / "selection.json"
SWEEPS = 100

SCOPES: tuple[Claim, ...] = get_args(Claim)

FEWER_DRAWS: tuple[tuple[ModuleType, dict[str, int]], ...] = (
    (corrected, {"DRAWS": 1000}),
    (testing, {"DRAWS": 5000, "TAIL_DRAWS": 15, "_CHUNK": 5000}),
)
"""Of the Monte Carlo in one sweep: its noise averages out over sweeps, and all draws would take hours."""

FEWEST_CHOSEN = 30
"""Fewer sweeps with a choice say nothing about coverage given a choice."""

Row = dict[str, float | int | str]


class Outcome(NamedTuple):
    """What one rule recommends in one sweep, or that it recommends nothing.

    `says` are the rates said to keep the limit: of these very weights, of the configuration trained again.
    `weights` and `again` are the intervals printed for them. `walked` counts the candidates that were
    tested again, and `runs` the trainings this took.
    """

    chosen: int | None = None
    says: tuple[Claim, ...] = ()
    weights: Interval | None = None
    again: Interval | None = None
    walked: int = 0
    runs: int = 0


Rule = Callable[[SimulatedSweep, Front, Recommendation, SweepSpec], Outcome]


def uncorrected(_: SimulatedSweep, front: Front, found: Recommendation, spec: SweepSpec) -> Outcome:
    """The most useful one with a gain whose own posteriors, as if it were alone, keep the limit.

    Its interval is Wilson's. It does not say which of the two rates it means, so it is held to both.
    """
    (rule,) = spec.constraints
    keeping = []
    for item in front.competing:
        n = PROMPTS
        counts = [metric.value * n for metric in item.measured(rule.metric)]
        alone = min(beta_cdf(k + 0.5, n - k + 0.5, rule.max) for k in counts)
        if item.gain and alone >= rule.confidence:
            keeping.append(item)
    if not keeping:
        return Outcome()
    best = max(keeping, key=lambda item: item.values["rouge_l"])
    printed = best.interval("unsafe_rate")
    return Outcome(int(best.config_id), SCOPES, printed, printed)


def search_alone(
    _: SimulatedSweep, front: Front, found: Recommendation, spec: SweepSpec
) -> Outcome:
    """What is recommended of the search, before anything is measured again."""
    return _recommended(found)


def with_decision(
    sweep: SimulatedSweep,
    front: Front,
    found: Recommendation,
    spec: SweepSpec,
    seeds: int | None = None,
) -> Outcome:
    """What is recommended once the decision stage has walked down the ranking.

    All that the walk could reach is measured at once; what it did not reach is not counted. `seeds` are the
    new ones, by default as many as the spec's.
    """
    assert spec.decide
    asked = spec.decide.model_copy(update={} if seeds is None else {"seeds": seeds})
    ordered = promising_first(found.ranked, front.base, spec, found.policy)
    ranked = tuple(ordered[: asked.candidates])
    if not ranked:
        return Outcome()
    paths = {item.config_id: item.records[0].trajectory_id for item in ranked}
    walk = Walk(
        ranked=ranked,
        controls=(),
        base=front.base,
        paths=paths,
        compared=found.compared,
        policy=found.policy,
        spec=decision_spec(spec, asked),
        old_seeds=spec.seeds,
        new_prompts=True,
    )
    records = sweep.again(paths, (*walk.spec.seeds, *walk.old_seeds))
    decision = decide(walk, records)
    walked = [step.config_id for step in decision.steps]
    runs = len({paths[name] for name in walked}) * len(walk.spec.seeds)
    survivor = decision.survivor
    if survivor is None:
        return Outcome(walked=len(walked), runs=runs)
    if found.chosen is not survivor:
        found = recommend(front, spec, decided=Decided(survivor.config_id, decision.sentence))
    step = decision.steps[-1]
    sure: tuple[Claim, ...] = ("these weights",) if all(t.holds for t in step.weights) else ()
    return _recommended(found)._replace(
        says=(*sure, "trained again"),
        again=step.tests[0].interval,
        walked=len(walked),
        runs=runs + len(walk.old_seeds),
    )


def _recommended(found: Recommendation) -> Outcome:
    if found.chosen is None:
        return Outcome()
    printed = {claim.scope: claim.interval for claim in found.claims}
    says = tuple(claim.scope for claim in found.claims if claim.holds)
    ends = (printed.get(scope) for scope in SCOPES)
    return Outcome(int(found.chosen.config_id), says, *ends)


RULES: dict[str, Rule] = {
    "uncorrected": uncorrected,
    "search": search_alone,
    "decision": with_decision,
}

BY_SEEDS: dict[str, Rule] = {
    f"{seeds} new seeds": partial(with_decision, seeds=seeds) for seeds in (3, 5, 8)
}


class Judged(NamedTuple):
    """One outcome beside the truth.

    `false`: something was said that is not so. `unsafe_weights` and `unsafe_again`: the recommended one is
    above the limit, as it is or trained again, whatever was said. `gain` is its gain in utility over the
    base model as a share of that of the best configuration that is safe when trained again, NaN where none
    is. Coverage is None where no interval was printed.
    """

    recommends: bool
    false: bool
    unsafe_weights: bool
    unsafe_again: bool
    gain: float
    weights_covered: bool | None
    again_covered: bool | None
    walked: int
    runs: int


def judged(outcome: Outcome, sweep: SimulatedSweep) -> Judged:
    """Compare an outcome with the truth of its sweep."""
    place, done = outcome.chosen, (outcome.walked, outcome.runs)
    if place is None:
        return Judged(False, False, False, False, math.nan, None, None, *done)
    weights, again = float(sweep.weights[place]), float(sweep.truth.rates[place])
    unsafe = {"these weights": weights > LIMIT, "trained again": again > LIMIT}
    return Judged(
        True,
        any(unsafe[scope] for scope in outcome.says),
        *unsafe.values(),
        _gain(sweep, place),
        _covers(outcome.weights, weights),
        _covers(outcome.again, again),
        *done,
    )


def _gain(sweep: SimulatedSweep, place: int) -> float:
    useful = sweep.truth.utilities - BASE_UTILITY
    safe = useful[sweep.truth.rates <= LIMIT]
    return float(useful[place] / safe.max()) if len(safe) else math.nan


def _covers(printed: Interval | None, rate: float) -> bool | None:
    return None if printed is None else printed.low <= rate <= printed.high


def simulate(
    world: World, run_noise: float, sweeps: int, rules: Mapping[str, Rule] = RULES
) -> dict[str, list[Judged]]:
    """The outcomes of every rule on the same sweeps; a world has a generator of its own."""
    spec = sweep_spec(world.seeds)
    rng = np.random.default_rng([zlib.crc32(world.name.encode()), round(100 * run_noise)])
    outcomes: dict[str, list[Judged]] = {name: [] for name in rules}
    with ExitStack() as stack:
        for module, draws in FEWER_DRAWS:
            stack.enter_context(patch.multiple(module, **draws))
        for _ in range(sweeps):
            sweep = SimulatedSweep(world, run_noise, rng)
            front = find_front(sweep.records(), spec)
            found = recommend(front, spec)
            for name, rule in rules.items():
                outcomes[name].append(judged(rule(sweep, front, found, spec), sweep))
    return outcomes


def row(run_noise: float, rule: str, outcomes: Sequence[Judged]) -> Row:
    """One line of a world's table: shares of all sweeps, except where a choice is their condition."""
    chose = [item for item in outcomes if item.recommends]
    walkers = [item for item in outcomes if item.walked]
    return {
        "run noise": f"{run_noise:g}",
        "rule": rule,
        "recommends": _mean(item.recommends for item in outcomes),
        "says what is false": _mean(item.false for item in outcomes),
        "these weights unsafe": _mean(item.unsafe_weights for item in outcomes),
        "trained again unsafe": _mean(item.unsafe_again for item in outcomes),
        "gain": _mean(item.gain for item in chose),
        **_coverage("weights", [item.weights_covered for item in outcomes]),
        **_coverage("again", [item.again_covered for item in outcomes]),
        "walked": _mean(item.walked for item in walkers),
        "runs": _mean(item.runs for item in walkers),
    }


def _coverage(of: str, covered: Sequence[bool | None]) -> Row:
    """Of the intervals that were printed; and how many of all sweeps printed none that misses."""
    printed = [held for held in covered if held is not None]
    enough = len(printed) >= FEWEST_CHOSEN
    return {
        f"{of} covered": _mean(printed) if enough else math.nan,
        f"{of} not missed": 1 - printed.count(False) / len(covered) if printed else math.nan,
    }


def _mean(values: Iterable[float]) -> float:
    """NaN where there is nothing to take a mean of, or any value is NaN."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


class Part(NamedTuple):
    """Of which table, world and run noise some rows are: what one process simulates."""

    title: str
    world: int
    run_noise: float
    rules: str
    sweeps: int


def parts(names: Sequence[str] | None, sweeps: int) -> list[Part]:
    """Every world, or those whose names begin with one of these; where all is safe by new seeds, too."""
    of = [(world.name, place, "each") for place, world in enumerate(WORLDS)]
    of.append((f"{SAFE.name}, by new seeds", WORLDS.index(SAFE), "by seeds"))
    return [
        Part(title, place, run_noise, rules, sweeps)
        for title, place, rules in of
        if names is None or title.split()[0] in names
        for run_noise in RUN_NOISE
    ]


def rows(part: Part) -> list[Row]:
    """A row for every rule."""
    rules = {"each": RULES, "by seeds": BY_SEEDS}[part.rules]
    found = simulate(WORLDS[part.world], part.run_noise, part.sweeps, rules)
    return [row(part.run_noise, name, outcomes) for name, outcomes in found.items()]


def tables(of: Sequence[Part], jobs: int) -> dict[str, list[Row]]:
    """A table of each title; the same for any number of processes."""
    found: dict[str, list[Row]] = {}
    with ProcessPoolExecutor(jobs) as pool:
        for part, each in zip(of, pool.map(rows, of), strict=True):
            found.setdefault(part.title, []).extend(map(_filled, each))
    return found


def _filled(each: Row) -> Row:
    """A row with a dash where a number has no meaning: NaN is no JSON."""
    return {k: "-" if isinstance(v, float) and math.isnan(v) else v for k, v in each.items()}


def main() -> None:
    """Simulate, print, and keep what all worlds gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=SWEEPS)
    parser.add_argument("--worlds", help="the first words of the names of some, as in W1,W3")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    names = options.worlds.split(",") if options.worlds else None
    found = tables(parts(names, options.sweeps), options.jobs)
    for title, each in found.items():
        print(f"\n{title}\n\n{shown(each)}")
    if names or options.sweeps != SWEEPS:
        return
    keep(
        RESULTS,
        repetitions=options.sweeps,
        tables=found,
    )


if __name__ == "__main__":
    main()
