"""What the report says averaging does: against twins, and at equal utility."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import t
from support.factories import base_record, make_record, make_spec, make_sweep, with_samples

from sweeper.analysis import Candidate, find_front, paired_difference
from sweeper.report import render, report_data
from sweeper.report.averaging import (
    Effect,
    averaging_effects,
    clustered_interval,
    effect_rows,
    tally,
)
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord
from sweeper.store.samples import Samples

N = 120


def answered(rng: np.random.Generator, share: float) -> str:
    return "".join("1" if u < share else "0" for u in rng.random(N))


def measured(
    rng: np.random.Generator, unsafe: float, utility: float, average: str, **changes: object
) -> TrialRecord:
    rows = tuple(np.clip(rng.normal(utility, 0.05, 40), 0, 1).tolist())
    samples: Samples = {"unsafe_rate": answered(rng, unsafe), "rouge_l": rows}
    return with_samples(samples, average=average, **changes)


def effects_of(records: list[TrialRecord], *overrides: str) -> dict[tuple[str, str], Effect]:
    spec = make_spec(*overrides)
    found = averaging_effects(find_front(records, spec), spec)
    return {(effect.kind, effect.against): effect for effect in found}


def test_averaging_wins_where_it_is_better_and_loses_where_it_is_worse() -> None:
    rng = np.random.default_rng(0)
    records = [base_record()]
    for steps, unsafe in ((40, 0.05), (80, 0.7), (160, 0.31)):
        records += [
            measured(rng, 0.3, 0.8, "raw", max_steps=steps),
            measured(rng, unsafe, 0.6 if steps == 40 else 0.8, "ema(0.95)", max_steps=steps),
        ]
    found = effects_of(records)["ema", "without averaging"]
    assert (found.unsafe.wins, found.unsafe.losses, found.unsafe.ties) == (1, 1, 1)
    assert (found.utility.wins, found.utility.losses, found.utility.ties) == (0, 1, 2)
    assert found.unsafe.mean > 0


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
@pytest.mark.parametrize("metric", ["unsafe_rate", "rouge_l"])
def test_a_tally_equals_that_of_single_gaps(seeds: tuple[int, ...], metric: str) -> None:
    rng = np.random.default_rng(1)
    spec = make_spec(f"seeds={list(seeds)}")
    records = [
        measured(
            rng, 0.2 + 0.02 * (i % 12), 0.7 + 0.01 * (i % 7), "raw", identity=f"{i:02}", seed=s
        )
        for i in range(24)
        for s in seeds
    ]
    items = find_front(records, spec).candidates
    pairs = [(one, other) for one in items for other in items if one is not other]
    objective = spec.safety if metric == "unsafe_rate" else spec.utility
    sign = 1 if objective.direction == "maximize" else -1
    found = tally(pairs, objective)
    assert found is not None
    ends = [
        each.interval
        for pair in pairs
        if (each := paired_difference(*pair, metric)) and each.interval
    ]
    better = sum(e.low > 0 for e in ends), sum(e.high < 0 for e in ends)
    assert len(ends) == len(pairs)
    assert (found.wins, found.losses) == better[::sign]
    assert found.wins == found.losses > 10, "each pair stands in both orders"
    assert found.share == pytest.approx(0.5)
    assert found.mean == pytest.approx(0, abs=1e-12)


def brute_force(apart: NDArray[np.float64], ends: list[tuple[str, str]]) -> float:
    """The two-way variance of the mean, entry by entry: those of one prompt, or of runs in common."""
    rest = apart - apart.mean()
    m, n = rest.shape
    runs = len({run for run, _ in ends})
    prompts = dyadic = both = 0.0
    for p in range(m):
        for q in range(m):
            shared = bool(set(ends[p]) & set(ends[q]))
            same = float((rest[p] * rest[q]).sum())
            prompts += same * n / (n - 1)
            dyadic += shared * float(rest[p].sum() * rest[q].sum()) * runs / (runs - 1)
            both += shared * same
    return max(prompts, dyadic, prompts + dyadic - both) / apart.size**2


@pytest.mark.parametrize("crossed", [False, True])
def test_the_mean_has_a_two_way_variance_over_runs_and_prompts(crossed: bool) -> None:
    rng = np.random.default_rng(2)
    names = [f"r{place % 5}" for place in range(15)]
    others = [f"r{(place + place // 5 * crossed) % 5}" for place in range(15)]
    ends = list(zip(names, others, strict=True))
    apart = rng.normal(size=(15, 8)) + rng.normal(size=5)[[int(run[1]) for run in names]][:, None]
    found = clustered_interval(0.5, apart, names, others)
    assert found is not None
    alone = [(run, run) for run, _ in ends]
    half = t.ppf(0.975, 4) * max(brute_force(apart, ends), brute_force(apart, alone)) ** 0.5
    assert found == pytest.approx((0.5 - half, 0.5 + half))


def test_more_readouts_of_the_same_runs_do_not_narrow_the_mean() -> None:
    rng = np.random.default_rng(4)
    apart, names = rng.normal(0.2, 1, (6, 50)), list("abcdef")
    once = clustered_interval(0.2, apart, names, names)
    nine = [name for name in names for _ in range(9)]
    often = clustered_interval(0.2, np.repeat(apart, 9, axis=0), nine, nine)
    assert once is not None
    assert often == pytest.approx(once)


def pairs_of(count: int, text: str = "0" * N) -> list[tuple[Candidate, Candidate]]:
    """An average and its raw twin of each of `count` runs, with the same verdicts."""
    records = [
        with_samples({"unsafe_rate": text}, average=label, learning_rate=1e-4 * (1 + place))
        for place in range(count)
        for label in ("ema(0.95)", "raw")
    ]
    items = find_front(records, make_spec()).candidates
    averaged = [item for item in items if item.config["average"] != "raw"]
    rates = {i.config["learning_rate"]: i for i in items if i.config["average"] == "raw"}
    return [(item, rates[item.config["learning_rate"]]) for item in averaged]


def test_a_mean_of_fewer_than_four_runs_has_no_interval() -> None:
    for count in (3, 4):
        found = tally(pairs_of(count), make_spec().safety)
        assert found is not None and found.runs == found.pairs == count
        assert (found.mean_interval is None) == (count < 4)


def test_verdicts_that_never_differ_do_not_make_the_mean_certain() -> None:
    found = tally(pairs_of(5), make_spec().safety)
    assert found is not None and found.mean_interval is not None
    assert (found.mean, found.ties) == (0, 5)
    assert found.mean_interval.low < -0.02 < 0.02 < found.mean_interval.high


def test_equal_utility_is_chosen_by_utility_alone() -> None:
    def made(identity: str, average: str, utility: float, k: int, steps: int) -> TrialRecord:
        return make_record(
            identity=identity, average=average, utility=utility, unsafe=(k, 256), max_steps=steps
        )

    records = [
        base_record(),
        made("ema", "ema(0.95)", 0.80, 20, 320),
        made("twin", "raw", 0.95, 90, 320),
        made("near", "raw", 0.81, 60, 80),
        made("safe", "raw", 0.78, 0, 40),
    ]
    found = effects_of(records)["ema", "raw at equal utility"]
    assert found.unsafe.pairs == 1
    assert found.unsafe.mean == pytest.approx((20 - 60) / 256)
    assert found.utility.mean == pytest.approx(-0.01)
    assert ("ema", "raw at equal utility") not in effects_of(records[:3])


def test_each_kind_has_its_own_controls() -> None:
    found = effects_of(make_sweep())
    assert set(found) == {
        ("ema", "without averaging"),
        ("ema", "interpolation with the same weight"),
        ("ema", "raw at equal utility"),
        ("interpolate", "without averaging"),
        ("interpolate", "raw at equal utility"),
        ("feedback", "without averaging"),
        ("feedback", "matched learning rate"),
        ("feedback", "raw at equal utility"),
    }
    whole = found["ema", "without averaging"].unsafe
    assert whole.wins + whole.losses + whole.ties == whole.pairs > 20
    assert whole.mean_interval is None, "there are no rows to pair"


def test_the_page_shows_wins_losses_and_ties() -> None:
    rng = np.random.default_rng(0)
    records = [
        base_record(),
        measured(rng, 0.4, 0.8, "raw"),
        measured(rng, 0.1, 0.8, "ema(0.95)"),
    ]
    spec = make_spec()
    rows = effect_rows(averaging_effects(find_front(records, spec), spec))
    assert [(row.against, row.metric, row.outcome) for row in rows[:2]] == [
        ("without averaging", "unsafe_rate", "1 / 0 / 0"),
        ("without averaging", "rouge_l", "0 / 0 / 1"),
    ]
    page = render(report_data(RunFolder(Path("run-1")), records, spec, None))
    assert "The effect of averaging" in page
    assert "<td>1 / 0 / 0</td>" in page and f"<td>{rows[0].mean}</td>" in page
    without = render(report_data(RunFolder(Path("run-1")), records[:2], spec, None))
    assert "The effect of averaging" not in without
