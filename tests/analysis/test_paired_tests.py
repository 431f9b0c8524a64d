"""Two candidates on the same prompts or rows."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import t
from support.factories import base_record, make_record, make_spec, with_samples
from support.oracles import mean_difference_interval

from sweeper.analysis import (
    Candidate,
    PairedDifference,
    find_front,
    lower_bound_of,
    paired_difference,
    rows_of,
    runs_of_difference,
)
from sweeper.analysis.paired_tests import interval_of_verdicts
from sweeper.stats import (
    difference_lower_bound,
    discordant_means,
    discordant_pairs,
    mcnemar,
    paired_difference_interval,
    wilson_interval,
)
from sweeper.store.records import TrialRecord
from sweeper.store.samples import Samples

RNG = np.random.default_rng(5)


def verdicts(n: int, share: float) -> str:
    return "".join("1" if u < share else "0" for u in RNG.random(n))


def candidates(*records: TrialRecord, seeds: str = "[0]") -> tuple[Candidate, ...]:
    return find_front(records, make_spec(f"seeds={seeds}")).candidates


def compared(first: Samples, second: Samples, metric: str) -> PairedDifference:
    one, other = candidates(with_samples(first, identity="a"), with_samples(second, identity="b"))
    found = paired_difference(one, other, metric)
    assert found is not None
    back = paired_difference(other, one, metric)
    assert back is not None and back.interval is not None and found.interval is not None
    assert back.difference == pytest.approx(-found.difference)
    assert back.interval == pytest.approx((-found.interval.high, -found.interval.low), abs=1e-9)
    return found


def test_verdicts_of_one_seed_get_tangos_interval_and_mcnemars_exact_p() -> None:
    first, second = verdicts(120, 0.3), verdicts(120, 0.1)
    found = compared({"unsafe_rate": first}, {"unsafe_rate": second}, "unsafe_rate")
    pairs = discordant_pairs(first, second)
    assert found.paired and found.n == 120
    assert found.discordant == (pairs,)
    assert found.interval == pytest.approx(paired_difference_interval(pairs))
    assert found.p_value == mcnemar(pairs)
    assert found.difference == pytest.approx((first.count("1") - second.count("1")) / 120)


def test_means_of_rows_get_students_interval_of_their_differences() -> None:
    first, second = (tuple(RNG.random(40).tolist()) for _ in range(2))
    found = compared({"rouge_l": first}, {"rouge_l": second}, "rouge_l")
    assert found.interval == pytest.approx(mean_difference_interval(first, second))
    assert found.p_value is None and found.discordant == ()


@pytest.mark.parametrize("metric", ["heldout_loss", "perplexity", "token_accuracy"])
def test_ratios_are_linearised_as_the_bootstrap_over_rows_finds(metric: str) -> None:
    n, draws = 60, 4000
    tokens = RNG.integers(5, 60, n)
    losses = [tokens * RNG.normal(level, 0.2, n) for level in (1.0, 1.3)]
    right = [np.floor(tokens * share * RNG.uniform(0.5, 1, n)) for share in (0.9, 0.7)]
    samples: list[Samples] = [
        {
            "heldout/loss": tuple(loss.tolist()),
            "heldout/tokens": tuple(map(int, tokens)),
            "heldout/correct": tuple(map(int, hits)),
        }
        for loss, hits in zip(losses, right, strict=True)
    ]
    found = compared(samples[0], samples[1], metric)
    weights = RNG.standard_exponential((draws, n))
    above = right if metric == "token_accuracy" else losses
    drawn = [(weights @ sums) / (weights @ tokens) for sums in above]
    drawn = [np.exp(d) if metric == "perplexity" else d for d in drawn]
    expected = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    assert found.interval is not None
    width = expected[1] - expected[0]
    assert np.abs(np.array(found.interval) - expected).max() < 0.12 * width


def test_verdicts_averaged_over_seeds_are_never_certain() -> None:
    same = "0" * 80
    records = [
        with_samples({"unsafe_rate": same}, identity=i, seed=s) for i in "ab" for s in (0, 1)
    ]
    one, other = candidates(*records, seeds="[0, 1]")
    found = paired_difference(one, other, "unsafe_rate")
    assert found is not None and found.interval is not None
    assert found.interval.low < -0.02 and found.interval.high > 0.02
    assert found.p_value == 1.0 and len(found.discordant) == 2
    apart = np.array([0.5, -0.5, 1.0, *[0.0] * 77])
    pairs = discordant_means(apart)
    assert pairs.difference == pytest.approx(apart.mean())
    assert pairs.variance == pytest.approx((apart**2).sum() / 80**2)
    wide = interval_of_verdicts(apart, 0.95)
    assert wide.low < apart.mean() < wide.high


def over_seeds(
    tables: dict[str, list[str]], *, alone: bool = True, roles: dict[str, str] | None = None
) -> dict[str, Candidate]:
    """Candidates with verdicts under each seed, of trajectories of their own unless not `alone`."""
    records = [
        with_samples(
            {"unsafe_rate": text},
            identity=name,
            seed=seed,
            learning_rate=1e-4 * (1 + place * alone),
            role=(roles or {}).get(name, "candidate"),
        )
        for place, (name, texts) in enumerate(tables.items())
        for seed, text in enumerate(texts)
    ]
    most = max(map(len, tables.values()))
    return {i.config_id: i for i in candidates(*records, seeds=str(list(range(most))))}


def difference(
    items: dict[str, Candidate], first: str = "a", second: str = "b", *, pooled: bool = True
) -> PairedDifference:
    among = list(items.values()) if pooled else []
    found = paired_difference(items[first], items[second], "unsafe_rate", among=among)
    assert found is not None and found.interval is not None
    return found


def width(found: PairedDifference) -> float:
    assert found.interval is not None
    return found.interval.high - found.interval.low


def test_a_difference_that_all_seeds_show_is_certain_however_many_seeds_show_none() -> None:
    n = 240
    worse = ["1" * 80 + "0" * (n - 80)] * 6 + ["0" * n] * 2
    found = difference(over_seeds({"a": worse, "b": ["0" * n] * 8}))
    assert found.p_value is not None and found.p_value < 0.01
    assert found.interval is not None and found.interval.low > 0
    assert max(mcnemar(pair) for pair in found.discordant) == 1.0


def test_seeds_that_contradict_each_other_show_nothing() -> None:
    n = 240
    up, none = "1" * 60 + "0" * (n - 60), "0" * n
    found = difference(over_seeds({"a": [up, none], "b": [none, up]}))
    assert max(mcnemar(pair) for pair in found.discordant) < 0.001
    assert found.p_value == 1.0
    assert found.interval is not None and found.interval.low < -0.1 < 0.1 < found.interval.high


def test_two_way_variance_is_that_of_a_balanced_table_by_hand() -> None:
    rng = np.random.default_rng(8)
    tables = {
        name: ["".join(map(str, (rng.random(200) < rate).astype(int))) for _ in range(5)]
        for name, rate in (("a", 0.3), ("b", 0.2))
    }
    found = difference(over_seeds(tables), pooled=False)
    a, b = (np.array([[int(v) for v in text] for text in texts]) for texts in tables.values())
    apart = a.mean(axis=0) - b.mean(axis=0)
    seeds = single = 0.0
    for answers in (a, b):
        rest = answers - answers.mean(axis=0) - answers.mean(axis=1, keepdims=True) + answers.mean()
        seeds += answers.mean(axis=1).var(ddof=1) / 5
        single += (rest**2).sum() / (199 * 4) / 200 / 5
    prompts = (apart**2).sum() / 200**2
    items = over_seeds(tables)
    part = runs_of_difference(items["a"], items["b"], "unsafe_rate")
    assert part is not None
    assert (part.variance, part.single) == pytest.approx((seeds, single))
    whole = prompts + max(0.0, seeds - single)
    df = whole**2 / (seeds**2 / part.df)
    assert found.p_value is not None
    assert found.p_value == pytest.approx(2 * t.sf(abs(found.difference) / whole**0.5, df))
    assert found.interval is not None and found.claim == "trained again"
    assert (found.interval.low > 0) == (found.p_value < 0.05)


def test_readouts_of_one_run_are_compared_seed_by_seed() -> None:
    rows = {}
    for name, rate in (("a", 0.3), ("b", 0.25)):
        shares = np.array([0.0, 0.2, 0.4]) + rate
        draws = np.random.default_rng(1).random((3, 200))
        rows[name] = [
            "".join(map(str, (u < p).astype(int))) for u, p in zip(draws, shares, strict=True)
        ]
    same, own = (difference(over_seeds(rows, alone=alone)) for alone in (False, True))
    assert same.difference == own.difference
    assert same.interval is not None and own.interval is not None
    assert same.interval.low > 0 > own.interval.low


def test_runs_of_all_configurations_narrow_what_three_seeds_leave_open() -> None:
    rng = np.random.default_rng(4)

    def texts(rate: float) -> list[str]:
        shares = ndtr(ndtri(rate) + 0.4 * rng.standard_normal((3, 1)))
        return ["".join(map(str, row)) for row in (rng.random((3, 200)) < shares).astype(int)]

    items = over_seeds({name: texts(0.2) for name in "abcdefgh"})
    widths = [
        np.mean([width(difference(items, "a", b, pooled=pooled)) for b in "bcdefgh"])
        for pooled in (True, False)
    ]
    assert widths[0] < 0.85 * widths[1]
    part = runs_of_difference(items["a"], items["b"], "unsafe_rate", tuple(items.values()))
    assert part is not None and part.df == 16


def test_one_seed_says_nothing_of_training_again_and_the_base_model_has_no_runs() -> None:
    rng = np.random.default_rng(6)

    def texts(rate: float, seeds: int) -> list[str]:
        return ["".join(map(str, (rng.random(120) < rate).astype(int))) for _ in range(seeds)]

    items = over_seeds(
        {"a": texts(0.2, 3), "b": texts(0.2, 1), "base": texts(0.01, 1) * 3},
        roles={"base": "base"},
    )
    assert difference(items, "a", "b").claim == "these weights"
    assert difference(items, "a", "b").p_value is None
    again = difference(items, "a", "base")
    assert again.claim == "trained again" and again.p_value is not None
    assert difference(items, "b", "base").claim == "these weights"


def test_without_common_rows_rates_are_independent_and_losses_have_no_interval() -> None:
    one, other = candidates(
        make_record(identity="a", unsafe=(30, 256)), make_record(identity="b", unsafe=(9, 256))
    )
    found = paired_difference(one, other, "unsafe_rate")
    assert found is not None and found.interval is not None
    assert not found.paired and found.p_value is None
    assert found.interval.low == difference_lower_bound(30 / 256, 256, 9 / 256, 256, 0.975)
    loss = paired_difference(one, other, "heldout_loss")
    assert loss is not None and loss.interval is None
    assert paired_difference(one, other, "exact_match") is None


def test_other_prompts_of_equal_number_are_not_paired() -> None:
    samples: Samples = {"unsafe_rate": verdicts(64, 0.2)}
    one, other = candidates(
        with_samples(samples, identity="a"), with_samples(samples, identity="b")
    )
    apart = paired_difference(one, other, "unsafe_rate", same=False)
    together = paired_difference(one, other, "unsafe_rate")
    assert apart is not None and apart.interval is not None and not apart.paired
    assert together is not None and together.interval is not None and together.paired
    assert apart.interval.low < together.interval.low < 0


def test_rows_have_the_metric_as_their_mean_and_are_missing_where_a_seed_has_none() -> None:
    samples: Samples = {"heldout/loss": (3.0, 8.0, 1.0), "heldout/tokens": (2, 4, 3)}
    whole = with_samples(samples, identity="a")
    (item,) = candidates(whole)
    rows = rows_of(item, "perplexity")
    assert rows is not None
    assert rows.mean() == pytest.approx(np.exp(12 / 9))
    (half,) = candidates(whole, make_record(identity="a", seed=1), seeds="[0, 1]")
    assert rows_of(half, "heldout_loss") is None


def test_a_lower_bound_comes_from_rows_else_from_wilson_else_is_the_value() -> None:
    rows = tuple(RNG.random(30).tolist())
    (item,) = candidates(with_samples({"rouge_l": rows}))
    zero = tuple(0.0 for _ in rows)
    expected = mean_difference_interval(rows, zero, 0.90).low
    assert lower_bound_of(item, "rouge_l", 1, 0.95) == pytest.approx(expected)
    upper = mean_difference_interval(rows, zero, 0.90).high
    assert -lower_bound_of(item, "rouge_l", -1, 0.95) == pytest.approx(upper)
    (plain,) = candidates(make_record(utility=0.8))
    assert lower_bound_of(plain, "rouge_l", 1, 0.95) == wilson_interval(0.8 * 96, 96, 0.9).low
    assert lower_bound_of(plain, "heldout_loss", -1, 0.95) == -(2.0 - 0.8)
    (perfect,) = candidates(with_samples({"rouge_l": (1.0,) * 30}))
    assert lower_bound_of(perfect, "rouge_l", 1, 0.95) < 0.95


def test_a_small_gain_on_every_row_counts_with_rows_and_not_without() -> None:
    below = tuple(RNG.random(96).clip(0, 0.95).tolist())
    above = tuple(value + 0.02 + 0.005 * RNG.random() for value in below)
    base = with_samples({"rouge_l": below}, role="base", max_steps=0, identity="base")
    records = [base, with_samples({"rouge_l": above}, identity="a")]
    (item,) = find_front(records, make_spec()).competing
    assert item.gain is True
    assert "on the same 96 rows: difference at least +0.02" in item.gain_evidence
    means = [float(np.mean(rows)) for rows in (below, above)]
    plain = [base_record(utility=means[0]), make_record(identity="a", utility=means[1])]
    (item,) = find_front(plain, make_spec()).competing
    assert item.gain is False


def test_a_loss_with_rows_needs_a_gain_beyond_chance() -> None:
    tokens = tuple(int(t) for t in RNG.integers(10, 40, 12))
    noise = RNG.normal(0, 1, 12)
    noise -= (noise * tokens).sum() / sum(tokens) + 0.01
    samples: list[Samples] = [
        {"heldout/loss": tuple((np.array(tokens) * loss).tolist()), "heldout/tokens": tokens}
        for loss in (np.full(12, 2.0), 2.0 + noise, np.full(12, 1.9))
    ]
    roles = ("base", "candidate", "candidate")
    records = [
        with_samples(s, identity=i, role=r) for s, i, r in zip(samples, "xyz", roles, strict=True)
    ]
    spec = make_spec("objectives=[heldout_loss, unsafe_rate]")
    gains = {item.config_id: item.gain for item in find_front(records, spec).competing}
    assert gains == {"y": False, "z": True}
