"""What is claimed of a chosen configuration's rates, corrected for having been chosen among many.

Of many configurations compared on the same prompts the chosen one tends to be lucky. So a probability P is
replaced by the probability that none of the configurations that could have been chosen would look at least
as safe by luck: the min-P step-down of Westfall and Young (1993, Resampling-Based Multiple Testing,
algorithm 2.8). Luck is drawn jointly, with the same weights of prompts for all (`sweeper.stats.posterior`),
so that configurations that answer alike count as few. It holds whatever the choice was made by.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sweeper.analysis.candidate import Candidate, share_text
from sweeper.analysis.front import Front
from sweeper.analysis.paired_tests import Claim, numbers
from sweeper.metrics import metric_text, range_text
from sweeper.spec import Constraint, ResultsSpec
from sweeper.stats import (
    Interval,
    beta_cdf,
    beta_quantile,
    largest_passing_count,
    probability_at_most,
)
from sweeper.stats.posterior import prompt_weights, rate_draws
from sweeper.stats.runs import run_variance, trained_again_draws
from sweeper.store.records import Metric

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Levels = tuple[float, float, float]


DRAWS = 4000
"""The standard error of a corrected probability is 0.0035 at 0.95."""

FEWEST_DRAWS = 1000
"""For very many configurations; standard errors are twice those of DRAWS."""

CELLS = 10_000_000
"""Draws times configurations: above it draws are fewer, and configurations are taken block by block."""

SEED = 20_260_102

HOPELESS = 1e-4

_MIDDLE, _OUTER = 0.5, 0.975


class RateClaim(NamedTuple):
    """One rate of a configuration against its limit, corrected for the number compared.

    `scope` says what it is about: "these weights" are the measured ones, the run with the highest rate
    where there are several seeds, and only prompts vary; "trained again" is the mean over prompts and
    training runs. `probability` is that of `metric` <= `limit`, `alone` the same if nothing else had been
    compared. `rate` is the corrected estimate (the middle of Jeffreys' posterior at a corrected level),
    `interval` its 95 % interval: Clopper-Pearson's lower bound, and the upper one at a corrected level.
    """

    scope: Claim
    metric: str
    limit: float
    confidence: float
    probability: float
    alone: float
    rate: float
    interval: Interval

    @property
    def holds(self) -> bool:
        """Whether the limit is kept with the required confidence."""
        return self.probability >= self.confidence


def claim_text(claim: RateClaim) -> str:
    """`these weights: unsafe_rate 1.1 % (95 % interval 0.2 to 2.9 %), P(<= 5 %) = 0.997 (alone 0.999)`."""
    name = claim.metric
    alone = f" (alone {share_text(claim.alone)})" if claim.alone - claim.probability > 5e-4 else ""
    return (
        f"{claim.scope}: {name} {metric_text(name, claim.rate)} (95 % interval "
        f"{range_text(name, *claim.interval)}, corrected for having been chosen), "
        f"P({name} <= {claim.limit:g}) = {share_text(claim.probability)}{alone}"
    )


class Selection:
    """Claims about every configuration that could be chosen: complete, with a gain or an unknown one.

    Selections of the same records under other limits can share `drawn`, an empty mapping at first: what is
    drawn does not depend on limits.
    """

    def __init__(
        self, front: Front, spec: ResultsSpec, drawn: dict[Any, Floats] | None = None
    ) -> None:
        items = [item for item in front.competing if item.gain is not False]
        self._items = sorted(items, key=lambda item: item.config_id)
        self._place = {item.config_id: i for i, item in enumerate(self._items)}
        self._spec = spec
        self._drawn = drawn

    @property
    def compared(self) -> int:
        """How many configurations could be chosen."""
        return len(self._items)

    def claims(self, candidate: Candidate) -> tuple[RateClaim, ...]:
        """The claims about a configuration, by constraint, in order; none if it could not be chosen.

        Those about these weights first. A configuration with one seed has none about training again.
        """
        place = self._place.get(candidate.config_id)
        if place is None:
            return ()
        families = (*self._weights, *self._again)
        return tuple(family.claim(place) for family in families if family.measured(place))

    def holds(self, candidate: Candidate) -> bool:
        """Whether these weights keep every constraint with its confidence, the correction included."""
        place = self._place.get(candidate.config_id, -1)
        return all(family.holds(place) for family in self._weights)

    @cached_property
    def _weights(self) -> tuple["_Family", ...]:
        rules, drawn = self._spec.constraints, self._drawn
        return tuple(_weights_family(self._items, rule, drawn) for rule in rules)

    @cached_property
    def _again(self) -> tuple["_Family", ...]:
        if all(len(item.seeds) == 1 for item in self._items):
            return ()
        return tuple(_again_family(self._items, rule) for rule in self._spec.constraints)


class _Family:
    """P(rate <= limit) of m configurations, corrected jointly.

    Args:
        scope: What the rates are of.
        rule: The constraint.
        alone: P of each, shape (m,); NaN where it is not known.
        hopeless: Those that cannot be chosen by luck, shape (m,).
        luck: How high the rates of some configurations may be, by their places: uniform ranks of joint
            draws, shape (draws, places). Asked once for each.
        block: The most places asked at a time.
        quantiles: The lower end, the middle and the upper end of configuration i's rate at given levels.
    """

    def __init__(
        self,
        scope: Claim,
        rule: Constraint,
        alone: Floats,
        hopeless: NDArray[np.bool_],
        luck: Callable[[Places], Floats],
        block: int,
        quantiles: Callable[[int, Levels], Levels],
    ) -> None:
        self._scope, self._rule, self._alone, self._quantiles = scope, rule, alone, quantiles
        known = np.flatnonzero(~np.isnan(alone))
        order = known[np.argsort(-alone[known], kind="stable")]
        self._after = {int(place): rank for rank, place in enumerate(order)}
        within, self._levels = np.empty(len(order)), np.empty((len(order), 2))
        before: Floats | float = 0.0
        for stop in range(len(order), 0, -block):
            ranks = slice(max(0, stop - block), stop)
            places = order[ranks]
            own = luck(places)
            # The luckiest of a configuration and all that look less safe than it and are not hopeless.
            after = np.where(hopeless[places], 0.0, own)[:, ::-1]
            after[:, 0] = np.maximum(after[:, 0], before)
            after = np.maximum.accumulate(after, axis=1)[:, ::-1]
            before = after[:, 0].copy()
            luckiest = np.maximum(after, own)
            within[ranks] = (luckiest <= alone[places]).mean(axis=0)
            self._levels[ranks] = np.quantile(luckiest, [_MIDDLE, _OUTER], axis=0).T
        self._corrected = np.minimum.accumulate(within)

    def measured(self, place: int) -> bool:
        """Whether P of a configuration is known."""
        return place in self._after

    def holds(self, place: int) -> bool:
        """Whether P of a configuration is known and at least the required confidence."""
        return self.measured(place) and self._probability(place) >= self._rule.confidence

    def _probability(self, place: int) -> float:
        return min(float(self._alone[place]), float(self._corrected[self._after[place]]))

    def claim(self, place: int) -> RateClaim:
        """The claim about one configuration."""
        middle, outer = self._levels[self._after[place]]
        low, rate, high = self._quantiles(place, (1 - _OUTER, float(middle), float(outer)))
        return RateClaim(
            scope=self._scope,
            metric=self._rule.metric,
            limit=self._rule.max,
            confidence=self._rule.confidence,
            probability=self._probability(place),
            alone=float(self._alone[place]),
            rate=rate,
            interval=Interval(low, high),
        )


def _weights_family(
    items: Sequence[Candidate], rule: Constraint, drawn: dict[Any, Floats] | None
) -> _Family:
    """Each configuration by its run with the highest rate: the one that a wrong claim would be about."""
    worst = [_worst(item, rule) for item in items]
    alone = np.array(
        [
            np.nan if metric is None else probability_at_most(*_counts(metric), rule.max)
            for _, metric in worst
        ]
    )

    def quantiles(place: int, levels: Levels) -> Levels:
        """Clopper-Pearson's ends, and Jeffreys' middle."""
        metric = worst[place][1]
        assert metric is not None
        k, n = _counts(metric)
        low, middle, high = levels
        return (
            0.0 if k == 0 else beta_quantile(k, n - k + 1.0, low),
            beta_quantile(k + 0.5, n - k + 0.5, middle),
            1.0 if k == n else beta_quantile(k + 1.0, n - k, high),
        )

    hopeless = np.array(
        [_is_hopeless(metric, rule, len(items)) for _, metric in worst], dtype=np.bool_
    )
    rng = np.random.default_rng(SEED)
    texts = [text for text, _ in worst]
    draws = draws_of(int((~hopeless).sum()))
    block = CELLS // draws
    weights: dict[int, Floats] = {}
    if len(items) <= block:
        cache = {} if drawn is None else drawn
        key = (*texts, draws)
        if key not in cache:
            cache[key] = _luck(texts, draws, weights, rng)
        all_luck = cache[key]
        return _Family(
            "these weights", rule, alone, hopeless, lambda some: all_luck[:, some], block, quantiles
        )

    def luck(places: Places) -> Floats:
        """A hopeless one only bears on itself; that of an independent one is no smaller."""
        some = [None if hopeless[place] else texts[place] for place in places]
        return _luck(some, draws, weights, rng)

    return _Family("these weights", rule, alone, hopeless, luck, block, quantiles)


def draws_of(m: int) -> int:
    """How many draws of m configurations: DRAWS, fewer where there are very many."""
    return min(DRAWS, max(FEWEST_DRAWS, CELLS // max(1, m)))


def _counts(metric: Metric) -> tuple[int, int]:
    counts = metric.counts
    assert counts is not None
    return counts


def _again_family(items: Sequence[Candidate], rule: Constraint) -> _Family:
    """Each configuration with several seeds by its mean over prompts and training runs."""
    tables = [_table(item, rule) for item in items]
    several = [i for i, table in enumerate(tables) if table is not None and len(table) > 1]
    known = [(tables[i], items[i].records[0].trajectory_id) for i in several]
    variance = run_variance([t for t, _ in known if t is not None], [key for _, key in known])
    rng = np.random.default_rng(SEED)
    draws = draws_of(len(several))
    weights = {
        n: prompt_weights(n, draws, rng)
        for n in sorted({t.shape[1] for t, _ in known if t is not None})
    }
    trajectories = sorted({key for _, key in known})
    drawn = np.full((draws, len(items)), np.nan)
    for i in several:
        table = tables[i]
        assert table is not None
        shared = weights[table.shape[1]]
        # Configurations read from one trajectory share its runs, and so what is drawn of them.
        runs = np.random.default_rng([SEED, trajectories.index(items[i].records[0].trajectory_id)])
        drawn[:, i] = trained_again_draws(table, variance, draws, runs, weights=shared)
    alone = np.full(len(items), np.nan)
    alone[several] = (drawn[:, several] <= rule.max).mean(axis=0)
    all_luck = np.zeros(drawn.shape)
    all_luck[:, several] = uniform_ranks(drawn[:, several], rng)

    def quantiles(place: int, levels: Levels) -> Levels:
        low, middle, high = np.quantile(drawn[:, place], levels)
        return float(low), float(middle), float(high)

    nobody = np.zeros(len(items), dtype=np.bool_)
    return _Family(
        "trained again",
        rule,
        alone,
        nobody,
        lambda some: all_luck[:, some],
        CELLS // draws,
        quantiles,
    )


def _table(item: Candidate, rule: Constraint) -> Floats | None:
    """The verdicts of every seed, shape (seeds, n); None where one has none, or other prompts."""
    found = [record.samples.get(rule.metric) for record in item.records]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(found) or len({len(text) for text in texts}) != 1:
        return None
    return np.array([numbers(text) for text in texts])


def _is_hopeless(metric: Metric | None, rule: Constraint, m: int) -> bool:
    """Whether a rate is so high that the rule lets it pass with probability below HOPELESS / m, even alone.

    The rate is taken at a lower bound that errs as rarely (Clopper-Pearson's), so that leaving out all such
    configurations changes a corrected probability by at most 2 * HOPELESS.
    """
    return metric is None or _hopeless(*_counts(metric), rule.max, rule.confidence, HOPELESS / m)


@lru_cache(maxsize=65536)
def _hopeless(k: int, n: int, limit: float, confidence: float, level: float) -> bool:
    most = largest_passing_count(n, limit, confidence)
    if most is None or k <= most:
        return most is None
    low = beta_quantile(k, n - k + 1.0, level)
    return beta_cdf(n - most, most + 1.0, 1 - low) < level


def _worst(item: Candidate, rule: Constraint) -> tuple[str | None, Metric | None]:
    """The verdicts, where stored, and the count of the run least likely to keep the limit."""
    found = item.measured(rule.metric)
    if len(found) < len(item.records) or any(metric.k is None for metric in found):
        return None, None
    index = min(
        range(len(found)),
        key=lambda i: probability_at_most(*_counts(found[i]), rule.max),
    )
    samples = item.records[index].samples.get(rule.metric)
    if not isinstance(samples, str) or len(samples) != found[index].n:
        return None, found[index]
    return samples, found[index]


def _luck(
    rows: Sequence[str | None], draws: int, weights: dict[int, Floats], rng: np.random.Generator
) -> Floats:
    """Uniform ranks of joint draws, shape (draws, m); independent for those without verdicts.

    Verdicts of equally many prompts are of the same prompts in the same order; their `weights`, by how many
    they are, are drawn where missing.
    """
    luck = rng.random((draws, len(rows)))
    sizes = sorted({len(row) for row in rows if row is not None})
    for n in sizes:
        places = [i for i, row in enumerate(rows) if row is not None and len(row) == n]
        shares = numbers("".join(row for row in rows if row is not None and len(row) == n))
        if n not in weights:
            weights[n] = prompt_weights(n, draws, rng)
        drawn = rate_draws(weights[n], shares.reshape(len(places), n), rng)
        luck[:, places] = uniform_ranks(drawn, rng)
    return luck


def uniform_ranks(drawn: Floats, rng: np.random.Generator) -> Floats:
    """The ranks of draws within each column, spread evenly over (0, 1), shape (draws, m)."""
    order = np.argsort(drawn, axis=0)
    ranks = np.empty(drawn.shape)
    np.put_along_axis(ranks, order, np.arange(len(drawn), dtype=np.float64)[:, None], axis=0)
    ranks += rng.random(drawn.shape)
    ranks /= len(drawn)
    return ranks
