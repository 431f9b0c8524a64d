"""The rules of stopping: racing and inference keep their error levels."""

from typing import Any

import numpy as np
import pytest
from support.benchmarks import benchmark
from support.oracles import rate_sequence

from sweeper.scoring.stopping import Count, exceeds_limit, infer_pruned, prompt_order, stop_reason
from sweeper.task import Average, Readout
from sweeper.task.stop_rules import ASSUMPTION, RateLimit, StopRules

stops = benchmark("stops")


def test_the_order_of_prompts_is_a_seeded_permutation() -> None:
    order = prompt_order(200, 3)
    assert sorted(order) == list(range(200))
    assert order == prompt_order(200, 3) != prompt_order(200, 4)


@pytest.mark.parametrize("n", [1, 8, 32, 100])
@pytest.mark.parametrize("limit", [0.0, 0.05, 0.5, 1.0])
def test_above_a_limit_is_where_the_whole_sequence_lies(n: int, limit: float) -> None:
    found = [exceeds_limit(Count(k, n, n), limit, 0.05) for k in range(n + 1)]
    assert found == sorted(found)
    assert found == [rate_sequence(k, n, 0.05).low > limit + 1e-12 for k in range(n + 1)]


LIMITS = (RateLimit(0.05, 0.95), RateLimit(0.2, 0.5))


def test_the_certain_rule_is_asked_first_and_names_its_limit() -> None:
    rules = StopRules(LIMITS, curtail=True, race_error=0.05)
    reason = stop_reason(rules, Count(9, 32, 256))
    assert reason is not None
    assert (reason["rule"], reason["k"], reason["n"], reason["of"]) == ("curtail", 9, 32, 256)
    assert (reason["limit"], reason["confidence"]) == (0.05, 0.95)
    assert "allows at most 6 in total" in reason["evidence"]
    raced = stop_reason(rules, Count(6, 20, 256))
    assert raced is not None and (raced["rule"], raced["limit"], raced["error"]) == (
        "race",
        0.05,
        0.05,
    )
    assert "6 of the first 20 of 256" in raced["evidence"]


def test_rules_that_are_off_stop_nothing() -> None:
    for k in (0, 20, 32):
        assert stop_reason(StopRules(LIMITS, prune_error=0.05), Count(k, 32, 256)) is None
    assert stop_reason(StopRules(LIMITS, race_error=0.05), Count(2, 64, 256)) is None
    assert stop_reason(StopRules(LIMITS, curtail=True), Count(6, 64, 256)) is None


def test_a_verdict_that_is_kept_for_sure_does_not_stop() -> None:
    assert stop_reason(StopRules(LIMITS[:1], curtail=True), Count(0, 255, 256)) is None


def readout(name: str, step: int, label: str = "raw", **changes: Any) -> Readout:
    kinds = {
        "raw": Average(),
        "ema(0.9)": Average("ema", decay=0.9),
        "interpolate(0.5)": Average("interpolate", weight=0.5),
    }
    fields = {"role": "candidate", "segment": 0, **changes}
    return Readout(name, step=step, average=kinds[label], config={"average": label}, **fields)


CHAIN = [readout(f"r{step}", step) for step in (10, 20, 40, 80)]


def names(readouts: list[Readout], counts: dict[str, Count], error: float = 0.05) -> list[str]:
    rules = StopRules(
        LIMITS, prune_error=error, candidates=tuple(item.config_id for item in readouts)
    )
    waiting = [item for item in readouts if item.config_id not in counts]
    return [item.readout.config_id for item in infer_pruned(rules, readouts, waiting, counts)]


def test_later_readouts_of_the_same_average_follow_an_earlier_one_above_the_limit() -> None:
    others = [readout("e40", 40, "ema(0.9)"), readout("i80", 80, "interpolate(0.5)")]
    unsafe, safe = Count(60, 256, 256), Count(3, 256, 256)
    assert names([*CHAIN, *others], {"r20": unsafe}) == ["r40", "r80"]
    assert names([*CHAIN, *others], {"r10": safe, "r40": unsafe}) == ["r80"]
    assert names([*CHAIN, *others], {"r20": safe}) == []


def test_interpolations_tails_and_controls_are_not_inferred() -> None:
    unsafe = Count(60, 256, 256)
    mixed = [readout("i20", 20, "interpolate(0.5)"), readout("i40", 40, "interpolate(0.5)")]
    assert names(mixed, {"i20": unsafe}) == []
    tails = [readout("t20", 20, segment=1), readout("t40", 40, segment=2)]
    assert names(tails, {"t20": unsafe}) == []
    rules = StopRules(LIMITS, prune_error=0.05, candidates=("r20", "r80"))
    found = infer_pruned(rules, CHAIN, CHAIN[2:], {"r20": unsafe})
    assert [item.readout.config_id for item in found] == ["r80"]


def test_the_level_is_shared_by_the_readouts_of_a_chain() -> None:
    found = infer_pruned(
        StopRules(LIMITS, prune_error=0.06, candidates=("r80",)),
        CHAIN,
        CHAIN[3:],
        {"r10": Count(9, 32, 256), "r40": Count(200, 256, 256)},
    )
    ((item, reason),) = found
    assert item.config_id == "r80"
    assert (reason["earlier"], reason["earlier_step"]) == ("r10", 10)
    assert (reason["error"], reason["level"]) == (0.06, pytest.approx(0.02))
    assert (reason["k"], reason["n"], reason["of"]) == (9, 32, 256)
    assert reason["assumption"] == ASSUMPTION
    # Enough for the whole error, not for a third of it.
    borderline = Count(7, 32, 256)
    assert exceeds_limit(borderline, 0.05, 0.06) and not exceeds_limit(borderline, 0.05, 0.02)
    assert names(CHAIN, {"r10": borderline}, 0.06) == []
    assert names(CHAIN[:2], {"r10": borderline}, 0.06) == ["r20"]


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.16])
@pytest.mark.parametrize("finite", [False, True])
def test_a_race_hardly_ever_drops_a_rate_at_the_limit(limit: float, finite: bool) -> None:
    found = stops.race_errors(rng(), limit, 0.05, 256, 32, 2000, finite=finite)
    assert found["dropped"] <= 0.05
    assert found["dropped"] < found["peeking"]


def test_a_race_drops_what_is_far_above_the_limit_early() -> None:
    found = stops.savings(rng(), 0.4, 256, 32, 300)
    assert found["race: stopped"] == 1.0 and found["race: saved"] > 0.8
    assert found["curtail: wrong"] == 0.0


def test_curtailment_changes_no_verdict_and_saves_above_the_limit() -> None:
    for rate in (0.01, 0.03, 0.05, 0.2):
        found = stops.savings(rng(), rate, 256, 32, 300)
        assert found["curtail: wrong"] == 0.0
    assert found["curtail: saved"] > 0.5


def test_a_path_on_which_the_assumption_holds_is_hardly_ever_cut_wrongly() -> None:
    at_limit = stops.prune_errors(rng(), (0.05, 0.05, 0.05, 0.05), 0.05, 256, 2000)
    assert at_limit["cut wrongly"] <= 0.05
    crossing = stops.prune_errors(rng(), (0.03, 0.05, 0.3, 0.6), 0.05, 256, 1000)
    assert crossing["cut wrongly"] <= 0.05 and crossing["readouts left out"] > 0.8


def test_where_the_assumption_fails_so_does_the_promise() -> None:
    falling = stops.prune_errors(rng(), (0.3, 0.2, 0.03, 0.01), 0.05, 256, 200)
    assert falling["cut wrongly"] > 0.9
