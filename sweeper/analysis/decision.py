"""Which of the best configurations of a search holds: tests one after the other on new data.

Two claims are made, and never mixed. *Trained again* is about the settings: the mean rate over all
prompts and all training runs, from new seeds and new prompts; it decides. *These weights* is about the
runs of the search itself, each measured on the new prompts; it is stated beside.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import BASE_ROLE, Candidate, loss
from sweeper.analysis.front import find_front
from sweeper.analysis.paired_tests import PairedDifference, numbers, paired_difference
from sweeper.analysis.policies import Policy, reaches
from sweeper.analysis.recommend import Decided
from sweeper.metrics import metric_text, range_text
from sweeper.spec import Constraint, SweepSpec
from sweeper.stats import Interval, probability_at_most
from sweeper.stats.runs import (
    RunVariance,
    run_variance,
    trained_again_count_draws,
    trained_again_draws,
)
from sweeper.store.records import TrialRecord

DRAWS, MOST_DRAWS, TAIL_DRAWS = 100_000, 1_000_000, 100
"""Draws of a rate: at least so many, at most so many, and in between so many beyond the level."""

CAUTION = 4
"""Chosen by simulation (benchmarks/selection.py): 1 tries too many lucky runs where runs differ."""

_CHUNK = 50_000
_ORDER_DRAWS = 4000
_SEED = 0
_NO_GAIN = "no gain over the untouched model"


def level(place: int, error: float) -> float:
    """The error level that the configuration at a place of the walk may use: error / (place (place + 1)).

    Over all places they sum to `error`, however long the walk (alpha spending; Foster and Stine 2008,
    doi:10.1111/j.1467-9868.2007.00643.x, without earning any back).

    Args:
        place: From 1.
        error: Of the whole walk, in (0, 1).
    """
    return error / (place * (place + 1))


def promising_first(
    ranking: Sequence[Candidate], base: Candidate | None, spec: SweepSpec, policy: Policy
) -> list[Candidate]:
    """The ranking of a search in the order in which a decision tests it.

    By gain over the untouched model times P to the power CAUTION, where P is the probability, from the
    records of the search and a prior for the variance between runs, that the configuration keeps every
    constraint when it is trained again: the most useful ones of a search are often lucky runs. The prompts
    and seeds of the tests are new, so any order keeps their error level. Policies that rank by something
    else than utility keep their order.

    Args:
        ranking: What qualifies, best first.
        base: The untouched model.
        spec: Of the sweep, with the policy's constraints.
        policy: Whose ranking it is.
    """
    if base is None or policy.name not in ("safest-useful", "max-utility-at"):
        return list(ranking)
    tables = [
        (table, item.records[0].trajectory_id)
        for item in ranking
        if (table := verdicts(item, spec.safety.metric)) is not None
    ]
    variance = run_variance([table for table, _ in tables], [path for _, path in tables])
    start = loss(base, spec.utility)

    def worth(item: Candidate) -> float:
        again = min((_again_probability(item, c, variance) for c in spec.constraints), default=1.0)
        return (start - loss(item, spec.utility)) * again**CAUTION

    return sorted(ranking, key=worth, reverse=True)


def _again_probability(item: Candidate, rule: Constraint, variance: RunVariance) -> float:
    """P(rate <= max, trained again) from counts alone; the same draws for all, so it falls with k."""
    found = item.measured(rule.metric)
    counts = [pair for m in found if (pair := m.counts) is not None]
    if len(counts) < len(item.records):
        return 0.0
    k, n = zip(*counts, strict=True)
    rng = np.random.default_rng(_SEED)
    drawn = trained_again_count_draws(k, n, variance, _ORDER_DRAWS, rng)
    return float((drawn <= rule.max).mean())


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """What a decision tests, and how.

    Attributes:
        ranked: The configurations in the order of their tests (`promising_first`), as the search measured
            them.
        controls: Configurations measured beside them, by name.
        base: The untouched model in the search.
        paths: The optimizer path of each of `ranked`, by id: those of one path share their training runs.
        compared: How many configurations the search compared.
        policy: Whose ranking it is.
        spec: What is measured again, with the policy's constraints; `seeds` are the new ones.
        old_seeds: Those of the search.
        new_prompts: Whether no prompt of a constraint was used by the search.
        notes: Sentences on what is new and what is not.
    """

    ranked: tuple[Candidate, ...]
    controls: tuple[tuple[str, Candidate], ...]
    base: Candidate | None
    paths: Mapping[str, Hashable]
    compared: int
    policy: Policy
    spec: SweepSpec
    old_seeds: tuple[int, ...]
    new_prompts: bool
    notes: tuple[str, ...] = ()

    def level_of(self, place: int, constraint: Constraint) -> float:
        """The error level of one test.

        With new prompts the walk spends the error place by place. On the prompts of the search, which
        chose the ranking, every one of the compared has the same share (Bonferroni): valid whatever was
        chosen.
        """
        error = 1 - constraint.confidence
        return level(place, error) if self.new_prompts else error / max(1, self.compared)

    @property
    def error(self) -> float:
        """The probability, at most, that a configuration is said to hold and breaks a given constraint."""
        return max((1 - item.confidence for item in self.spec.constraints), default=0.0)


class AgainTest(NamedTuple):
    """One constraint of a configuration that is trained again.

    `rate` is the mean over the new seeds; `interval` and `probability` are of the mean rate over prompts
    and training runs. `confidence` is the interval's: 0.95, or as high as `level` demands, so that its
    upper end is at most `max` exactly where the constraint holds, unless `level` is above 0.025.
    """

    constraint: Constraint
    level: float
    counts: str
    rate: float
    interval: Interval
    confidence: float
    probability: float

    @property
    def holds(self) -> bool:
        """Whether the probability is as high as the level demands."""
        return self.probability >= 1 - self.level


class WeightsTest(NamedTuple):
    """One constraint of the weights of the search: P(rate <= max) over all prompts, under each seed."""

    constraint: Constraint
    level: float
    seeds: tuple[int, ...]
    counts: str
    probabilities: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the probability is as high as the level demands under every seed."""
        return min(self.probabilities) >= 1 - self.level


class Again(NamedTuple):
    """A configuration in the search and under the new seeds: differences are again - search.

    `unsafe` compares independent prompts, or the same prompts under new seeds. `utility` compares the same
    held-out rows under new seeds.
    """

    name: str
    search: Candidate
    again: Candidate
    unsafe: PairedDifference | None
    utility: PairedDifference | None


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One configuration of the walk, trained again and tested. `weights` is empty unless it holds."""

    place: int
    measured: Again
    tests: tuple[AgainTest, ...]
    weights: tuple[WeightsTest, ...]
    holds: bool
    verdict: str

    @property
    def config_id(self) -> str:
        """Of the configuration."""
        return self.measured.search.config_id


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """The walk so far.

    `steps` are in order; `survivor` is the last one if it holds, with its values in the search.
    `complete` is False while a configuration is to be tested. `error` is that of the whole walk.
    `controls` were measured beside the candidates under the same seeds.
    """

    policy: Policy
    steps: tuple[Step, ...]
    survivor: Candidate | None
    complete: bool
    error: float
    planned: int
    compared: int
    seeds: tuple[int, ...]
    new_prompts: bool
    controls: tuple[Again, ...]
    notes: tuple[str, ...]

    @property
    def last(self) -> Step | None:
        """The last configuration tested; the survivor's where there is one."""
        return self.steps[-1] if self.steps else None

    @property
    def sentence(self) -> str:
        """The outcome in a sentence."""
        tested = f"{len(self.steps)} of at most {self.planned}"
        if not self.complete:
            return f"the decision is not finished: {tested} configurations are tested"
        if self.survivor is None:
            return (
                f"none of the {len(self.steps)} configurations tested holds when it is trained again; "
                "nothing can be recommended"
            )
        place = f"number {len(self.steps)} of the walk"
        return f"{self.survivor.config_id}, {place}, holds when it is trained again"


def decided_of(found: Decision | None) -> Decided | None:
    """What a recommendation takes from a decision; None while there is none, or it is not finished."""
    if found is None or not found.complete:
        return None
    reason = f"{found.sentence} (error level {found.error:.3g} for all {found.planned} together)"
    last = found.steps[-1]
    if found.survivor is not None:
        reason += "".join(f"; {text}" for text in map(test_text, last.tests))
        reason += "".join(f"; {text}" for text in map(weights_text, last.weights))
    else:
        reason += f"; the last one {last.verdict}"
    return Decided(None if found.survivor is None else found.survivor.config_id, f"{reason}.")


def said_of(found: Decision | None, config_id: str) -> tuple[str, ...]:
    """What a decision says of one configuration, in sentences for an export."""
    if found is None:
        return ("Not decided: it was not trained again on new prompts and seeds.",)
    step = next((step for step in found.steps if step.config_id == config_id), None)
    if step is None:
        return ("Not decided: the sweep's decision did not test this configuration.",)
    prompts = "prompts that did not choose it" if found.new_prompts else "the prompts of the search"
    spent = f"place {step.place} of a walk with the error level {found.error:.3g}"
    head = f"Decided on {prompts}, {len(found.seeds)} new seeds, {spent}: it {step.verdict}."
    return (head, *(f"Of {weights_text(test)}." for test in step.weights))


def decide(walk: Walk, records: Sequence[TrialRecord]) -> Decision:
    """Test the configurations of a walk, as far as they are measured; the same for the same records.

    A configuration holds if P(rate <= max) >= 1 - level for every constraint, trained again, if its
    utility under the new seeds is above the base model's with 95 % confidence, and, of `min-unsafe-at`,
    reaches the policy's. A record of the new seeds that is not complete means that it does not hold.

    Args:
        walk: What is tested.
        records: Of the tests: under the new seeds, and of the survivor under the old ones.
    """
    again = _measured(walk, records, walk.spec.seeds)
    old = _measured(walk, records, walk.old_seeds)
    steps: list[Step] = []
    for place, item in enumerate(walk.ranked, start=1):
        found = again.get(item.config_id)
        if found is None or set(walk.spec.seeds) - set(found.seeds):
            break
        pool = [again[each.config_id] for each in walk.ranked[:place]]
        steps.append(_step(walk, place, item, pool, old.get(item.config_id)))
        if steps[-1].holds:
            break
    survivor = walk.ranked[len(steps) - 1] if steps and steps[-1].holds else None
    controls = [
        _again(name, item, again[item.config_id], walk)
        for name, item in walk.controls
        if item.config_id in again
    ]
    untouched = find_front([r for r in records if r.role == BASE_ROLE], walk.spec).base
    if untouched is not None and walk.base is not None:
        controls.append(_again("untouched model", walk.base, untouched, walk))
    return Decision(
        policy=walk.policy,
        steps=tuple(steps),
        survivor=survivor,
        complete=survivor is not None or len(steps) == len(walk.ranked),
        error=walk.error,
        planned=len(walk.ranked),
        compared=walk.compared,
        seeds=walk.spec.seeds,
        new_prompts=walk.new_prompts,
        controls=tuple(controls),
        notes=walk.notes,
    )


def _measured(
    walk: Walk, records: Sequence[TrialRecord], seeds: Sequence[int]
) -> dict[str, Candidate]:
    """What was measured under some seeds, by id, with the gain over the base model of the search."""
    base = () if walk.base is None else walk.base.records
    mine = [r for r in records if r.seed in seeds and r.role != BASE_ROLE]
    under = walk.spec.model_copy(update={"seeds": tuple(seeds)})
    found = find_front([*base, *mine], under).candidates
    return {item.config_id: item for item in found if item.role != BASE_ROLE}


def _step(
    walk: Walk, place: int, search: Candidate, pool: Sequence[Candidate], old: Candidate | None
) -> Step:
    again = pool[-1]
    tests = tuple(
        test
        for constraint in walk.spec.constraints
        if (test := _test(walk, place, constraint, pool)) is not None
    )
    lacks = [] if again.excluded is None else [again.excluded]
    if not lacks:
        lacks = [test_text(test) for test in tests if not test.holds]
        measured = {test.constraint.metric for test in tests}
        missing = (c.metric for c in walk.spec.constraints if c.metric not in measured)
        lacks += [f"{name} was not measured under every new seed" for name in missing]
        lacks += [] if again.gain else [f"{_NO_GAIN}: {again.gain_evidence}"]
        if walk.policy.utility is not None and not reaches(again, walk.spec, walk.policy):
            lacks.append(f"{walk.spec.utility.metric} does not reach {walk.policy.utility:g}")
    held = "; ".join(test_text(test) for test in tests)
    weights = () if lacks or old is None else _weights(walk, place, old)
    return Step(
        place,
        _again(f"number {place}", search, again, walk),
        tests,
        weights,
        not lacks,
        f"does not hold: {'; '.join(lacks)}" if lacks else f"holds: {held}",
    )


def test_text(test: AgainTest) -> str:
    """`trained again, unsafe_rate 0.4 % (1/240, ...), P(unsafe_rate <= 0.05) = 0.998, where ...`."""
    name, limit = test.constraint.metric, test.constraint.max
    return (
        f"trained again, {name} {metric_text(name, test.rate)} ({test.counts}, "
        f"{100 * test.confidence:.3g} % interval {range_text(name, *test.interval)}), "
        f"P({name} <= {limit:g}) = "
        f"{share(test.probability)}, where {share(1 - test.level)} is demanded"
    )


def weights_text(test: WeightsTest) -> str:
    """`these weights, unsafe_rate 2/240 under seed 0: P(unsafe_rate <= 0.05) = 0.999`."""
    name, limit = test.constraint.metric, test.constraint.max
    seeds = f"seed{'' if len(test.seeds) == 1 else 's'} {', '.join(map(str, test.seeds))}"
    held = "" if test.holds else f", and {share(1 - test.level)} is demanded"
    said = share(min(test.probabilities))
    least = "at least " if len(test.seeds) > 1 and "than" not in said else ""
    head = f"these weights, {name} {test.counts} under {seeds}"
    return f"{head}: P({name} <= {limit:g}) = {least}{said}{held}"


def share(probability: float) -> str:
    """Three digits, and up to five near 0 and 1: 0.975, 0.9992, more than 0.9999."""
    if probability in (0.0, 1.0):
        return f"{probability:.0f}"
    rest = min(probability, 1 - probability)
    for digits in (3, 4, 5):
        if rest > 5.0001 * 10.0**-digits:
            return f"{probability:.{digits}f}"
    return "less than 0.0001" if probability < 0.5 else "more than 0.9999"


def _test(
    walk: Walk, place: int, constraint: Constraint, pool: Sequence[Candidate]
) -> AgainTest | None:
    """The last of the pool against one constraint, the variance between runs taken from all of it."""
    tables = [verdicts(item, constraint.metric) for item in pool]
    known = [
        (table, walk.paths.get(item.config_id, item.config_id))
        for table, item in zip(tables, pool, strict=True)
        if table is not None
    ]
    own, spent = tables[-1], walk.level_of(place, constraint)
    if own is None:
        return None
    variance = run_variance([table for table, _ in known], [path for _, path in known])
    drawn = _draws(own.tobytes(), own.shape[0], variance, spent)
    confidence = max(0.95, 1 - 2 * spent)
    tail = (1 - confidence) / 2
    low, high = (float(found) for found in np.quantile(drawn, (tail, 1 - tail)))
    return AgainTest(
        constraint=constraint,
        level=spent,
        counts=pool[-1].counts(constraint.metric),
        rate=float(own.mean()),
        interval=Interval(low, high),
        confidence=confidence,
        probability=float((drawn <= constraint.max).mean()),
    )


def verdicts(candidate: Candidate, metric: str) -> NDArray[np.float64] | None:
    """Verdicts of shape (seeds, n); None where a seed has none, or others than the rest."""
    each = [record.samples.get(metric) for record in candidate.records]
    if any(not isinstance(found, str) for found in each) or len({len(s or "") for s in each}) != 1:
        return None
    return np.array([numbers(found) for found in each if found is not None])


@lru_cache(maxsize=64)
def _draws(table: bytes, seeds: int, variance: RunVariance, spent: float) -> NDArray[np.float64]:
    """Draws of the mean rate; prompts with the same verdicts share one weight, the sum of theirs."""
    answers = np.frombuffer(table).reshape(seeds, -1)
    patterns, counts = np.unique(answers, axis=1, return_counts=True)
    wanted = min(MOST_DRAWS, max(DRAWS, TAIL_DRAWS / spent))
    rng = np.random.default_rng(_SEED)
    parts = []
    for _ in range(-(-int(wanted) // _CHUNK)):
        weights = rng.standard_gamma(counts, (_CHUNK, len(counts)))
        parts.append(trained_again_draws(patterns, variance, _CHUNK, rng, weights=weights))
    return np.concatenate(parts)


def _weights(walk: Walk, place: int, old: Candidate) -> tuple[WeightsTest, ...]:
    """Each constraint under the seeds of the search; empty until all of them are measured."""
    if set(walk.old_seeds) - set(old.seeds):
        return ()
    found = []
    for constraint in walk.spec.constraints:
        measured = old.measured(constraint.metric)
        counted = [pair for m in measured if (pair := m.counts) is not None]
        if len(counted) == len(old.records):
            each = tuple(probability_at_most(k, n, constraint.max) for k, n in counted)
            spent = walk.level_of(place, constraint)
            counts = old.counts(constraint.metric)
            found.append(WeightsTest(constraint, spent, old.seeds, counts, each))
    return tuple(found)


def _again(name: str, search: Candidate, again: Candidate, walk: Walk) -> Again:
    unsafe = paired_difference(again, search, walk.spec.safety.metric, same=not walk.new_prompts)
    return Again(
        name, search, again, unsafe, paired_difference(again, search, walk.spec.utility.metric)
    )
