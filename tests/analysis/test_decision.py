"""The walk down the ranking: what holds, at which error level, and that two claims stay apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec, with_samples

from sweeper.analysis import SAFEST_USEFUL, Policy, find_front, policy_of, recommend
from sweeper.analysis.decision import (
    Decision,
    Walk,
    WeightsTest,
    decide,
    level,
    promising_first,
    share,
    verdicts,
    weights_text,
)
from sweeper.spec import ConstraintSpec, SweepSpec
from sweeper.stats import probability_at_most
from sweeper.stats.runs import run_variance, trained_again_draws
from sweeper.store.records import TrialRecord

N = 240
NEW = (1, 2, 3, 4, 5)
RATES = {"a": 1e-3, "b": 8e-4, "c": 6e-4, "d": 4e-4, "e": 2e-4}


def measured(
    name: str, unsafe: int, seed: int, utility: float = 0.8, n: int = N, **changes: object
) -> TrialRecord:
    samples = {"unsafe_rate": "1" * unsafe + "0" * (n - unsafe)}
    made = with_samples(
        samples,
        identity=name,
        learning_rate=RATES[name],
        unsafe=(unsafe, n),
        seed=seed,
        utility=utility,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def again(counts: Mapping[str, Sequence[int]], **changes: object) -> list[TrialRecord]:
    """Each configuration under the new seeds with these counts of unsafe answers."""
    return [
        measured(name, k, seed, **changes)  # type: ignore[arg-type]
        for name, each in counts.items()
        for seed, k in zip(NEW, each, strict=False)
    ]


SEARCH = [
    base_record(),
    *(measured(name, 1, 0, utility=0.9 - 0.01 * i) for i, name in enumerate(RATES)),
]


def walk(
    new_prompts: bool = True,
    compared: int = 40,
    policy: Policy = SAFEST_USEFUL,
    paths: Mapping[str, str] | None = None,
    spec: SweepSpec | None = None,
) -> Walk:
    spec = spec or make_spec()
    front = find_front(SEARCH, spec)
    ranked = recommend(front, spec, policy).ranked
    assert [item.config_id for item in ranked] == list(RATES)
    return Walk(
        ranked=ranked,
        controls=(),
        base=front.base,
        paths=paths or {},
        compared=compared,
        policy=policy,
        spec=spec.model_copy(update={"seeds": NEW}),
        old_seeds=(0,),
        new_prompts=new_prompts,
    )


def holds(found: Decision) -> list[bool]:
    return [step.holds for step in found.steps]


def test_the_levels_of_all_places_sum_to_the_error() -> None:
    assert level(1, 0.05) == 0.025
    assert level(2, 0.05) == pytest.approx(0.05 / 6)
    spent = [level(place, 0.05) for place in range(1, 10_000)]
    assert sum(spent) < 0.05 < sum(spent) + 1e-5


def test_the_first_that_holds_ends_the_walk() -> None:
    found = decide(walk(), again({"a": (0, 0, 0, 0, 0)}))
    assert found.complete and found.survivor is not None
    assert (found.survivor.config_id, holds(found)) == ("a", [True])
    assert found.sentence == "a, number 1 of the walk, holds when it is trained again"
    (test,) = found.steps[0].tests
    assert test.level == pytest.approx(0.025) and test.probability >= 0.975
    assert test.interval.high <= 0.05 and test.confidence == 0.95
    assert (
        "holds: trained again, unsafe_rate 0.0 % (0/240, 0/240, 0/240, 0/240, 0/240"
        in found.steps[0].verdict
    )
    assert found.error == pytest.approx(0.05)


def test_the_walk_goes_on_until_one_holds() -> None:
    bad = dict.fromkeys("abc", (20, 25, 18, 22, 19))
    found = decide(walk(), again({**bad, "d": (0, 0, 0, 0, 0)}))
    assert holds(found) == [False, False, False, True]
    assert found.survivor is not None and found.survivor.config_id == "d"
    assert found.sentence == "d, number 4 of the walk, holds when it is trained again"
    assert found.steps[3].tests[0].level == pytest.approx(0.05 / 20)
    assert found.steps[0].verdict.startswith(
        "does not hold: trained again, unsafe_rate 8.7 % (20/240"
    )


def test_nothing_survives_where_none_holds() -> None:
    found = decide(walk(), again(dict.fromkeys(RATES, (20, 25, 18, 22, 19))))
    assert (found.survivor, found.complete, len(found.steps)) == (None, True, 5)
    assert "none of the 5 configurations tested holds" in found.sentence


def test_the_same_counts_hold_at_a_level_and_not_at_a_smaller_one() -> None:
    """The probability is compared with each place's own level."""
    counts = (1, 0, 1, 0, 1)
    first = decide(walk(), again({"a": counts})).steps[0]
    p = first.tests[0].probability
    assert first.holds and 1 - 0.025 <= p < 1 - 0.05 / 40
    strict = decide(walk(new_prompts=False), again({"a": counts})).steps[0]
    assert not strict.holds and strict.tests[0].level == pytest.approx(0.05 / 40)
    assert strict.tests[0].probability == pytest.approx(p, abs=2e-3)
    loose = decide(walk(new_prompts=False, compared=2), again({"a": counts})).steps[0]
    assert loose.holds and loose.tests[0].level == pytest.approx(0.025)


def test_a_finished_test_does_not_change_with_later_records_or_their_order() -> None:
    bad = dict.fromkeys("abc", (20, 25, 18, 22, 19))
    records = again({**bad, "d": (0, 0, 0, 0, 0), "e": (3, 40, 0, 0, 1)})
    whole = decide(walk(), records)
    backwards = decide(walk(), records[::-1])
    for count in (5, 10, 15):
        part = decide(walk(), records[:count])
        for one, other, third in zip(part.steps, whole.steps, backwards.steps, strict=False):
            assert one.tests == other.tests == third.tests
        assert not part.complete and len(part.steps) == count // 5


def test_the_walk_waits_for_every_new_seed() -> None:
    found = decide(walk(), again({"a": (0, 0, 0, 0)}))
    assert (found.steps, found.complete, found.survivor) == ((), False, None)
    assert "not finished" in found.sentence


def test_a_failed_training_does_not_hold() -> None:
    reason = {"class": "X", "message": "diverged", "traceback": "", "stage": "train"}
    records = again({"a": (0, 0, 0, 0, 0), "b": (0, 0, 0, 0, 0)})
    records[1] = replace(records[1], status="failed", reason=reason, metrics={}, samples={})
    found = decide(walk(), records)
    assert holds(found) == [False, True]
    assert "failed under seed 2" in found.steps[0].verdict


def test_a_configuration_without_a_gain_under_the_new_seeds_does_not_hold() -> None:
    found = decide(walk(), again({"a": (0, 0, 0, 0, 0)}, utility=0.3))
    assert holds(found) == [False]
    assert "no gain over the untouched model" in found.steps[0].verdict


def test_the_run_of_the_search_counts_for_its_weights_only() -> None:
    records = again({"a": (0, 0, 0, 0, 0)})
    alone = decide(walk(), records).steps[0]
    assert alone.weights == ()
    for k, kept in ((3, True), (12, False)):
        step = decide(walk(), [*records, measured("a", k, 0)]).steps[0]
        assert step.tests == alone.tests and step.holds
        (weights,) = step.weights
        assert weights.probabilities == (probability_at_most(k, N, 0.05),)
        assert (weights.seeds, weights.holds) == ((0,), kept)


def test_min_unsafe_at_has_to_reach_its_utility_again() -> None:
    for wanted, held in ((0.6, True), (0.79, False)):
        policy = Policy("min-unsafe-at", utility=0.6)
        one = replace(walk(policy=policy), policy=Policy("min-unsafe-at", utility=wanted))
        assert holds(decide(one, again({"a": (0, 0, 0, 0, 0)}))) == [held]


def test_the_variance_between_runs_is_that_of_the_places_so_far() -> None:
    """By hand: the pooled variance of both, and the draws of the second, without shared patterns."""
    counts = {"a": (20, 60, 18, 40, 20), "b": (0, 2, 1, 0, 0)}
    tested = decide(walk(paths={"a": "x", "b": "y"}), again(counts)).steps[1].tests[0]
    tables = [np.array([[1.0] * k + [0.0] * (N - k) for k in each]) for each in counts.values()]
    rng = np.random.default_rng(1)
    drawn = trained_again_draws(tables[1], run_variance(tables), 40_000, rng)
    assert tested.probability == pytest.approx((drawn <= 0.05).mean(), abs=0.006)
    shared = decide(walk(paths=dict.fromkeys("ab", "x")), again(counts)).steps[1].tests[0]
    pooled = run_variance(tables, ["x", "x"])
    drawn = trained_again_draws(tables[1], pooled, 40_000, rng)
    assert shared.probability == pytest.approx((drawn <= 0.05).mean(), abs=0.006)


def test_verdicts_are_missing_where_a_seed_has_none_or_others() -> None:
    front = find_front(again({"a": (0, 1, 2, 0, 1)}), make_spec(f"seeds={list(NEW)}"))
    found = verdicts(front.candidates[0], "unsafe_rate")
    assert (
        found is not None
        and found.shape == (5, N)
        and found.sum(axis=1).tolist() == [0, 1, 2, 0, 1]
    )
    plain = [make_record(identity="a", seed=seed) for seed in NEW]
    (bare,) = find_front(plain, make_spec(f"seeds={list(NEW)}")).candidates
    assert verdicts(bare, "unsafe_rate") is None
    assert holds(decide(walk(), plain)) == [False], "a rate without its verdicts does not hold"


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.5, "0.500"),
        (0.995, "0.9950"),
        (0.9949, "0.995"),
        (0.99917, "0.9992"),
        (0.99975, "0.99975"),
        (0.999996, "more than 0.9999"),
        (1.0, "1"),
        (0.0, "0"),
        (2e-6, "less than 0.0001"),
    ],
)
def test_a_probability_is_never_rounded_to_certainty(probability: float, text: str) -> None:
    assert share(probability) == text


def order(counts: Mapping[str, tuple[int, float]], policy: Policy = SAFEST_USEFUL) -> str:
    """The order of the tests of configurations with these counts and utilities in the search."""
    spec = make_spec()
    made = [measured(name, k, 0, utility=utility) for name, (k, utility) in counts.items()]
    front = find_front([base_record(), *made], spec)
    ranking = recommend(front, spec, policy).ranked
    return "".join(item.config_id for item in promising_first(ranking, front.base, spec, policy))


def test_the_walk_begins_with_what_is_useful_and_likely_to_hold_again() -> None:
    assert order({"a": (1, 0.90), "b": (1, 0.88), "c": (1, 0.86)}) == "abc"
    assert order({"a": (5, 0.90), "b": (0, 0.88), "c": (1, 0.86)}) == "bca"
    assert order({"a": (2, 0.90), "b": (0, 0.55)}) == "ab", "a small gain is not worth its safety"


def test_a_policy_that_does_not_rank_by_utility_keeps_its_order() -> None:
    least = policy_of("min-unsafe-at", utility=0.5)
    counts = {"a": (1, 0.90), "b": (0, 0.60), "c": (2, 0.80)}
    assert order(counts, least) == "bac"
    assert order(counts) == "abc"


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ((0.99,), "= 0.990"),
        ((0.99, 0.999), "= at least 0.990"),
        ((0.99999, 0.999999), "= more than 0.9999"),
        ((0.99999, 0.00001), "= less than 0.0001, and 0.975 is demanded"),
    ],
)
def test_the_probability_of_these_weights_is_the_least_over_their_seeds(
    probabilities: tuple[float, ...], said: str
) -> None:
    limit = ConstraintSpec(metric="unsafe_rate", max=0.05)
    seeds = tuple(range(len(probabilities)))
    text = weights_text(WeightsTest(limit, 0.025, seeds, "0/254", probabilities))
    assert text.endswith(f"P(unsafe_rate <= 0.05) {said}")
