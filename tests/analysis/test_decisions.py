"""What every decision depends on, on both sides of its boundary, against numbers written out."""

from collections.abc import Sequence

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec, with_samples

from sweeper.analysis import (
    Candidate,
    Policy,
    Recommendation,
    find_front,
    front_certainty,
    policy_of,
    recommend,
)
from sweeper.store.records import Metric, TrialRecord
from sweeper.store.samples import Samples

UNSAFE = "metric: unsafe_rate, max: 0.05"


def single(record: TrialRecord, *overrides: str) -> Candidate:
    """One configuration, beside the base model."""
    front = find_front([base_record(), record], make_spec(*overrides))
    return next(item for item in front.candidates if item.role != "base")


def choose(
    records: Sequence[TrialRecord], *overrides: str, policy: Policy | None = None
) -> Recommendation:
    spec = make_spec(*overrides)
    front = find_front([base_record(), *records], spec)
    return recommend(front, spec, policy or Policy())


@pytest.mark.parametrize(
    ("unsafe", "confidence", "feasible"),
    [
        # The probability is 0.974 at 6, 0.945 at 7, 0.989 at 5.
        ((6, 256), None, True),
        ((7, 256), None, False),
        ((7, 256), 0.94, True),
        ((6, 256), 0.98, False),
        ((5, 256), 0.98, True),
    ],
)
def test_feasible_is_what_keeps_the_limit_with_the_confidence_of_the_sweep(
    unsafe: tuple[int, int], confidence: float | None, feasible: bool
) -> None:
    given = "" if confidence is None else f", confidence: {confidence}"
    spec = f"constraints=[{{{UNSAFE}{given}}}]"
    found = single(make_record(unsafe=unsafe), spec)
    assert found.feasible is feasible
    assert (choose([make_record(unsafe=unsafe)], spec).chosen is not None) is feasible


def test_the_confidence_is_095_where_the_sweep_does_not_say() -> None:
    assert [item.confidence for item in make_spec().constraints] == [0.95]


@pytest.mark.parametrize(("errors", "gain"), [(1.75, True), (1.60, False), (-1.75, False)])
def test_a_gain_is_one_sided_on_the_same_rows(errors: float, gain: bool) -> None:
    """Of 40 rows: 1.685 standard errors one-sided, 2.023 two-sided, by a table of Student's t."""
    wave = np.tile([1.0, -1.0], 20)
    wave *= 0.1 / wave.std(ddof=1)
    step = errors * 0.1 / np.sqrt(40)
    base = with_samples({"rouge_l": (0.5,) * 40}, role="base", max_steps=0)
    better = with_samples({"rouge_l": tuple((0.5 + step + wave).tolist())}, identity="a")
    front = find_front([base, better], make_spec())
    (found,) = front.competing
    assert found.gain is gain


@pytest.mark.parametrize(("utility", "gain"), [(0.44, True), (0.42, False)])
def test_a_gain_is_one_sided_on_other_rows(utility: float, gain: bool) -> None:
    """Against 0.31 on 96 rows: from 0.425 one-sided, from 0.447 two-sided, by Newcombe's interval."""
    assert single(make_record(utility=utility)).gain is gain


@pytest.mark.parametrize(
    ("confidences", "unsafe", "chosen"),
    [
        # P(rate <= 0.3) is 0.955 at 64 of 256, 0.940 at 65, 0.719 at 72, 0.988 at 60, 0.995 at 58.
        ([0.95], 64, True),
        ([0.95], 65, False),
        ([0.7], 72, True),
        ([0.95], 72, False),
        ([0.5, 0.99], 60, False),
        ([0.99, 0.5], 60, False),
        ([0.5, 0.99], 58, True),
        ([], 64, True),
        ([], 65, False),
    ],
)
def test_another_limit_keeps_the_strictest_confidence(
    confidences: list[float], unsafe: int, chosen: bool
) -> None:
    constraints = ", ".join(f"{{{UNSAFE}, confidence: {item}}}" for item in confidences)
    policy = policy_of("max-utility-at", limit=0.3)
    record = make_record(unsafe=(unsafe, 256))
    found = choose([record], f"constraints=[{constraints}]", policy=policy)
    assert (found.chosen is not None) is chosen


@pytest.mark.parametrize("order", [1, -1])
def test_the_probability_of_being_feasible_is_the_smallest_of_all_constraints(order: int) -> None:
    """6 of 256 keep 5 % with 0.974; 2 of 128 do with 0.957."""
    items = [f"{{{UNSAFE}}}", "{metric: over_refusal_rate, max: 0.05}"][::order]
    spec = make_spec(f"constraints=[{', '.join(items)}]")
    metrics = {"over_refusal_rate": Metric.rate(2, 128)}
    records = [make_record(identity="a", unsafe=(6, 256), metrics=metrics)]
    found = front_certainty(find_front(records, spec), spec).memberships["a"]
    assert found.p_feasible == pytest.approx(0.957, abs=5e-4)


def test_labels_of_the_front_change_at_095_and_001() -> None:
    """One configuration alone is on the front as often as it keeps the limit."""
    spec = make_spec()
    counts = [(7, n) for n in range(230, 290, 2)] + [(22, n) for n in range(220, 290, 2)]
    seen = []
    for unsafe in counts:
        front = find_front([make_record(identity="a", unsafe=unsafe)], spec)
        found = front_certainty(front, spec).memberships["a"]
        seen.append((found.p_front, found.p_front_upper, found.label))
    for low, high, label in seen:
        assert low == high  # Nobody else can dominate it.
        assert label == ("on" if low >= 0.95 else "off" if high < 0.01 else "uncertain")
    # Numbers on both sides of each boundary and near it.
    assert any(0.94 < low < 0.95 for low, _, _ in seen)
    assert any(0.95 <= low < 0.96 for low, _, _ in seen)
    assert any(0.008 < high < 0.01 for _, high, _ in seen)
    assert any(0.01 <= high < 0.012 for _, high, _ in seen)


def test_probabilities_come_from_four_thousand_draws_of_a_fixed_seed() -> None:
    spec = make_spec()
    front = find_front([make_record(identity="a", unsafe=(7, 256))], spec)
    first, second = front_certainty(front, spec), front_certainty(front, spec)
    assert first.draws == 4000 and first == second


SEEDS = "seeds=[0, 1, 2]"


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((20,), 0.995, 1.0), ((20, 20, 20), 0.94, 0.98), ((1, 20, 100), 0.85, 0.93)],
)
def test_runs_that_differ_make_a_place_unsure_where_every_verdict_is_known(
    counts: tuple[int, ...], low: float, high: float
) -> None:
    """Against 60 of 256 under every seed; with one seed nothing is said about training again."""
    records = []
    for seed, count in enumerate(counts):
        for name, k, utility in (("useful", 60, 0.9), ("safe", count, 0.8)):
            verdicts = {"unsafe_rate": "1" * k + "0" * (256 - k)}
            records.append(with_samples(verdicts, identity=name, seed=seed, utility=utility))
    spec = make_spec("constraints=[]", f"seeds={list(range(len(counts)))}")
    p_front = front_certainty(find_front(records, spec), spec).memberships["safe"].p_front
    assert low < p_front <= high


@pytest.mark.parametrize(("gaps", "sure"), [((0.2, 0.2, 0.2), True), ((-0.3, 0.1, 0.8), False)])
def test_runs_that_differ_make_a_place_unsure_where_every_loss_is_known(
    gaps: tuple[float, ...], sure: bool
) -> None:
    """The less safe one has a loss that is lower by 0.2 on every row, or only on average over seeds."""
    records = []
    for seed, gap in enumerate(gaps):
        for name, loss, k in (("safe", 2.0, 2), ("useful", 2.0 - gap, 60)):
            rows = tuple(loss + 0.1 * (i % 3) for i in range(96))
            samples: Samples = {"heldout/loss": rows, "heldout/tokens": (1.0,) * 96}
            records.append(with_samples(samples, identity=name, seed=seed, unsafe=(k, 256)))
    spec = make_spec("objectives=[heldout_loss, unsafe_rate]", "constraints=[]", SEEDS)
    p_front = front_certainty(find_front(records, spec), spec).memberships["useful"].p_front
    assert (p_front > 0.95) is sure


def test_advice_is_for_the_worst_seed() -> None:
    """9 of 256 need about 671 prompts to keep 5 %, 8 need 410; 10 of 256 need 1,148."""
    seeds = "seeds=[0, 1]"

    def said(*counts: tuple[int, int]) -> str:
        records = [
            make_record(identity="a", seed=seed, unsafe=unsafe, utility=0.9)
            for seed, unsafe in enumerate(counts)
        ]
        spec = make_spec(seeds)
        front = find_front([base_record(), base_record(seed=1), *records], spec)
        return recommend(front, spec).reason

    for counts in (((8, 256), (10, 256)), ((10, 256), (8, 256))):
        assert "about 1,148 prompts would be enough" in said(*counts)
    assert "about 671 prompts would be enough" in said((9, 256), (8, 256))
    assert "more prompts would not help" in said((3, 256), (14, 256))
    # The fewest prompts of any seed say which count would pass.
    assert "where at most 2/128 would give 0.95" in said((12, 256), (3, 128))


def test_who_was_measured_on_other_prompts_is_compared_by_its_counts() -> None:
    """Two on the same 256 prompts, and one on 200, which cannot be paired with them."""
    records = [
        with_samples({"unsafe_rate": "1" * k + "0" * (n - k)}, identity=name, utility=utility)
        for name, k, n, utility in (("a", 60, 256, 0.9), ("b", 40, 256, 0.8), ("c", 2, 200, 0.7))
    ]
    spec = make_spec("constraints=[]")
    found = front_certainty(find_front(records, spec), spec)
    assert any(
        note.startswith("1 of 3 configurations have k/n of unsafe_rate without its prompts")
        for note in found.notes
    )
    assert all(membership.p_front > 0.9 for membership in found.memberships.values())


@pytest.mark.parametrize(("further", "known"), [([], True), (["heldout_loss"], False)])
def test_a_volume_has_three_dimensions_at_most(further: list[str], known: bool) -> None:
    names = ["rouge_l", "unsafe_rate", "over_refusal_rate", *further]
    spec = make_spec(f"objectives=[{', '.join(names)}]")
    found = front_certainty(find_front([make_record()], spec), spec)
    assert (found.hypervolume is not None) is known
