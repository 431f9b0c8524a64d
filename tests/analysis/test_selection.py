"""Claims about the chosen configuration, corrected for how many were compared."""

from dataclasses import replace

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec

from sweeper.analysis import Candidate, Front, Selection, claim_text, find_front, recommend
from sweeper.analysis import selection as corrected
from sweeper.analysis.selection import DRAWS, FEWEST_DRAWS, draws_of
from sweeper.stats import Interval
from sweeper.store.records import Metric, TrialRecord

SPEC = make_spec()


def verdicts(places: range | list[int], n: int = 256) -> str:
    return "".join("1" if i in set(places) else "0" for i in range(n))


def record(name: str, places: range | list[int], **changes: object) -> TrialRecord:
    samples = verdicts(places)
    made = make_record(identity=name, unsafe=(samples.count("1"), 256), **changes)  # type: ignore[arg-type]
    return replace(made, samples={"unsafe_rate": samples})


def found_in(records: list[TrialRecord]) -> tuple[Front, dict[str, Candidate], Selection]:
    front = find_front([base_record(), *records], SPEC)
    return front, {item.config_id: item for item in front.candidates}, Selection(front, SPEC)


def test_one_configuration_is_not_corrected() -> None:
    _, named, selection = found_in([record("only", range(4))])
    (claim,) = selection.claims(named["only"])
    assert claim.scope == "these weights"
    assert claim.probability == pytest.approx(claim.alone, abs=3e-4)
    assert claim.rate == pytest.approx(4 / 256, abs=0.002)
    assert claim.interval == pytest.approx((0.00428, 0.03955), abs=0.0006)
    _, none, among = found_in([record("none", [])])
    assert among.claims(none["none"])[0].interval.low == 0.0
    # The median of Beta(4.5, 252.5).
    assert claim.rate == pytest.approx(0.016273, abs=2e-5)


def test_the_correction_counts_independent_configurations_in_full_and_equal_ones_once() -> None:
    rng = np.random.default_rng(0)
    apart = [
        record(f"apart{i:02d}", sorted(rng.choice(256, 4, replace=False).tolist()))
        for i in range(30)
    ]
    alike = [record(f"alike{i:02d}", range(4)) for i in range(30)]
    _, named, selection = found_in(apart)
    (among,) = selection.claims(named["apart00"])
    # Thirty independent ones with the same P: close to its thirtieth power.
    assert among.alone > 0.99
    assert among.probability == pytest.approx(among.alone**30, abs=0.05)
    _, named, selection = found_in(alike)
    (same,) = selection.claims(named["alike00"])
    assert same.alone == among.alone
    assert among.probability + 0.02 < same.probability < same.alone
    assert among.rate > same.rate > 4 / 256
    assert among.interval.high > same.interval.high > 0.0395
    assert among.interval.low == same.interval.low


def test_those_that_look_safer_do_not_count_and_hopeless_ones_neither() -> None:
    useful = record("useful", range(5), utility=0.9)
    safer = [record(f"safer{i}", []) for i in range(40)]
    hopeless = [record(f"hopeless{i}", range(i, 120 + i)) for i in range(40)]
    alone = found_in([useful])
    among = found_in([useful, *safer, *hopeless])
    (first,) = alone[2].claims(alone[1]["useful"])
    (second,) = among[2].claims(among[1]["useful"])
    assert second.probability == pytest.approx(first.probability, abs=0.004)
    near = [record(f"near{i}", range(20 * i, 20 * i + 9)) for i in range(12)]
    crowded = found_in([useful, *near])
    (third,) = crowded[2].claims(crowded[1]["useful"])
    assert third.probability < first.probability - 0.02


def test_a_configuration_that_passes_alone_is_not_recommended_among_many_as_good() -> None:
    rng = np.random.default_rng(1)
    crowd = [
        record(f"c{i:02d}", sorted(rng.choice(256, 9, replace=False).tolist()), utility=0.8)
        for i in range(60)
    ]
    best = record("best", [10, 60, 110, 160, 210], utility=0.9)
    assert recommend(found_in([best])[0], SPEC).chosen is not None
    found = recommend(found_in([best, *crowd])[0], SPEC)
    assert found.chosen is None
    assert [item.config_id for item in found.ranked] == ["best"]
    assert "1 keep every constraint taken alone, none once all 61" in found.reason
    safe = record("safe", [], utility=0.7)
    assert recommend(found_in([best, safe, *crowd])[0], SPEC).chosen.config_id == "safe"  # type: ignore[union-attr]


def test_the_worst_seed_is_the_one_that_is_claimed() -> None:
    spec = make_spec("seeds=[0, 1]")
    good, bad = record("two", range(1)), record("two", range(6), seed=1)
    front = find_front([base_record(), replace(base_record(), seed=1), good, bad], spec)
    selection = Selection(front, spec)
    (item,) = [item for item in front.candidates if item.config_id == "two"]
    (claim, *_) = selection.claims(item)
    assert claim.alone == pytest.approx(item.probability)
    assert claim.rate == pytest.approx(6 / 256, abs=0.003)


def test_counts_without_verdicts_are_taken_as_independent() -> None:
    some = [make_record(identity=f"k{i}", unsafe=(4, 256)) for i in range(20)]
    _, named, selection = found_in(some)
    (claim,) = selection.claims(named["k0"])
    assert claim.probability == pytest.approx(claim.alone**20, abs=0.02)


def test_what_was_not_measured_holds_nothing() -> None:
    made = make_record(identity="uncounted")
    broken = replace(made, metrics={**made.metrics, "unsafe_rate": Metric(0.0, 256)})
    _, named, selection = found_in([broken])
    assert selection.claims(named["uncounted"]) == ()
    assert not selection.holds(named["uncounted"])


def test_equal_records_give_equal_claims_in_any_order() -> None:
    some = [record(f"c{i}", range(i, i + 5)) for i in range(6)]
    first = found_in(some)
    second = found_in(some[::-1])
    for name in ("c0", "c5"):
        assert first[2].claims(first[1][name]) == second[2].claims(second[1][name])


def seeded(name: str, *counts: int, rate: float = 1e-4, **changes: object) -> list[TrialRecord]:
    """One configuration under several seeds, which answer different prompts unsafely."""
    return [
        record(name, range(20 * seed, 20 * seed + k), seed=seed, learning_rate=rate, **changes)
        for seed, k in enumerate(counts)
    ]


def claims_of(records: list[TrialRecord], seeds: int, name: str) -> dict[str, tuple[float, float]]:
    spec = make_spec(f"seeds={list(range(seeds))}")
    bases = [replace(base_record(), seed=seed) for seed in range(seeds)]
    front = find_front([*bases, *records], spec)
    (item,) = [item for item in front.candidates if item.config_id == name]
    return {c.scope: (c.probability, c.rate) for c in Selection(front, spec).claims(item)}


def test_one_seed_says_nothing_about_training_again() -> None:
    assert set(claims_of(seeded("a", 1), 1, "a")) == {"these weights"}
    assert set(claims_of(seeded("a", 1, 0), 2, "a")) == {"these weights", "trained again"}


def test_runs_that_differ_make_training_again_less_sure_than_these_weights() -> None:
    even, uneven = seeded("a", 3, 3, 3), seeded("a", 0, 0, 9)
    steady = [item for i in range(8) for item in seeded(f"s{i}", 3, 3, 3, rate=i + 1.0)]
    shaky = [item for i in range(8) for item in seeded(f"s{i}", 0, 2, 40, rate=i + 1.0)]
    calm, wild = claims_of([*even, *steady], 3, "a"), claims_of([*uneven, *shaky], 3, "a")
    assert calm["trained again"][0] > 0.97 > 0.9 > wild["trained again"][0]
    assert 3 / 256 < calm["trained again"][1] < 0.03
    assert wild["trained again"][1] > calm["trained again"][1]


@pytest.mark.parametrize(
    ("probability", "alone", "told"),
    [
        (0.97, 0.98, "= 0.970 (alone 0.980)"),
        (0.97, 0.9704, "= 0.970"),
        (0.97, 0.9706, "= 0.970 (alone 0.971)"),
        (0.9996, 0.9996, "= more than 0.999"),
    ],
)
def test_a_claim_says_what_it_would_be_alone_where_that_is_more(
    probability: float, alone: float, told: str
) -> None:
    _, named, selection = found_in([record("only", range(4))])
    (claim,) = selection.claims(named["only"])
    changed = claim._replace(
        probability=probability, alone=alone, rate=0.0156, interval=Interval(0.0043, 0.0396)
    )
    assert claim_text(changed) == (
        "these weights: unsafe_rate 1.6 % (95 % interval 0.4 to 4.0 %, corrected for having been chosen), "
        f"P(unsafe_rate <= 0.05) {told}"
    )


def test_too_few_prompts_leave_a_claim_that_cannot_hold() -> None:
    _, named, selection = found_in([make_record(identity="few", unsafe=(0, 20))])
    (claim,) = selection.claims(named["few"])
    assert not claim.holds
    assert claim.probability <= 1 - 0.95**20 + 0.01


def test_very_many_configurations_take_fewer_draws_but_never_few() -> None:
    assert [draws_of(m) for m in (0, 1, 2500)] == [DRAWS] * 3
    assert FEWEST_DRAWS < draws_of(2501) < DRAWS
    assert draws_of(10_001) == draws_of(1_000_000) == FEWEST_DRAWS


def test_block_by_block_the_correction_is_that_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    counts = [*range(12), 20, 60]
    made = [
        record(f"c{i:02d}", sorted(rng.choice(256, k, replace=False).tolist()))
        for i, k in enumerate(counts)
    ]
    _, named, together = found_in(made)
    monkeypatch.setattr(corrected, "CELLS", 5 * DRAWS)  # Blocks of five.
    monkeypatch.setattr(corrected, "draws_of", lambda m: DRAWS)
    _, _, apart = found_in(made)
    found = [
        (claim, other)
        for name, item in named.items()
        if name.startswith("c")
        for claim, other in zip(together.claims(item), apart.claims(item), strict=True)
    ]
    assert len(found) == len(counts)
    for claim, other in found:
        assert other.alone == claim.alone
        assert other.probability == pytest.approx(claim.probability, abs=0.015)
        assert other.rate == pytest.approx(claim.rate, abs=0.003)
    assert {together.holds(item) for item in named.values()} == {True, False}
    assert [together.holds(item) for item in named.values()] == [
        all(claim.holds for claim in together.claims(item)) and bool(together.claims(item))
        for item in named.values()
    ]
