"""The simulated sweeps of benchmarks/selection.py: they have the truth that the rules are held to."""

import numpy as np
import pytest
from support.benchmarks import benchmark

from sweeper.stats import Interval
from sweeper.store.records import TrialRecord

selection, worlds = benchmark("selection"), benchmark("selection_worlds")


def rng() -> np.random.Generator:
    return np.random.default_rng(23)


def verdicts(records: list[TrialRecord]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[float(v) for v in str(r.samples["unsafe_rate"])] for r in records])


def test_the_mean_over_trainings_is_the_stated_rate_and_one_run_is_not() -> None:
    world = worlds.World("", 4000, worlds.equal(0.06))
    noisy = worlds.SimulatedSweep(world, 0.5, rng())
    assert noisy.weights.mean() == pytest.approx(0.06, abs=0.003)
    # The run of a median configuration is well below the mean: a few are much worse.
    assert np.median(noisy.weights) == pytest.approx(0.041, abs=0.003)
    quiet = worlds.SimulatedSweep(world, 0.0, rng())
    assert np.allclose(quiet.weights, 0.06)


def test_verdicts_have_the_rate_of_their_run_and_hard_prompts_in_common() -> None:
    world = worlds.World("", 400, worlds.equal(0.3))
    sweep = worlds.SimulatedSweep(world, 0.3, rng())
    found = verdicts(sweep.records()[:-1])
    assert np.corrcoef(found.mean(axis=1), sweep.weights)[0, 1] > 0.95
    # Prompts of the same difficulty for all: means over configurations vary much more than by chance.
    assert found.mean(axis=0).std() > 5 * np.sqrt(0.3 * 0.7 / 400)
    again = verdicts(sweep.again(["0007"], range(3)))
    assert again.shape == (3, 256) and not (again[0] == found[7]).all()


def test_readouts_of_one_trajectory_share_its_run() -> None:
    sweep = worlds.SimulatedSweep(worlds.World("", 50, worlds.equal(0.06), 5), 0.5, rng())
    assert len(set(sweep.weights.round(12))) == 10
    *records, base = sweep.records()
    assert len({record.trajectory_id for record in records}) == 10
    assert base.role == "base" and base.metrics["rouge_l"].value < 0.35
    found = verdicts(records)
    together = (found[0] == found[1]).mean()
    apart = np.mean([(found[0] == found[i]).mean() for i in range(5, 50)])
    assert together > apart


def test_an_outcome_is_held_to_both_rates() -> None:
    def draw(_: np.random.Generator, m: int) -> object:
        return worlds.Truth(np.array([0.04, 0.06, 0.01]), np.array([0.61, 0.71, 0.51]))

    sweep = worlds.SimulatedSweep(worlds.World("", 3, draw), 0.0, rng())
    safe = selection.judged(selection.Outcome(0, ("these weights",), Interval(0.0, 0.05)), sweep)
    assert not (safe.false or safe.unsafe_weights or safe.unsafe_again)
    assert safe.gain == pytest.approx(1) and safe.weights_covered and safe.again_covered is None
    unsafe = selection.judged(selection.Outcome(1, (), Interval(0.0, 0.05)), sweep)
    assert unsafe.unsafe_weights and unsafe.unsafe_again and not unsafe.false
    assert selection.judged(selection.Outcome(1, ("trained again",)), sweep).false
    assert unsafe.gain == pytest.approx(0.4 / 0.3) and unsafe.weights_covered is False
    none = selection.judged(selection.Outcome(None, walked=10, runs=30), sweep)
    assert not none.recommends and np.isnan(none.gain) and none.runs == 30


@pytest.mark.slow
@pytest.mark.parametrize(("run_noise", "luck"), [(0.0, 6), (0.3, 25)])
def test_what_is_said_is_hardly_ever_false_where_nothing_is_safe(
    run_noise: float, luck: int
) -> None:
    found = selection.simulate(worlds.World("none", 50, worlds.equal(0.06)), run_noise, 30)
    assert sum(item.unsafe_again for item in found["uncorrected"]) >= luck
    # At the level of 0.05, more than 5 of 30 have a probability of 0.003.
    assert sum(item.false for item in found["search"]) <= 5
    assert sum(item.unsafe_again for item in found["decision"]) <= 5
    assert sum(item.false for item in found["decision"]) <= 5


@pytest.mark.slow
def test_what_is_safe_and_useful_is_found() -> None:
    found = selection.simulate(worlds.World("all", 50, worlds.equal(0.01)), 0.3, 20)
    assert sum(item.recommends for item in found["search"]) >= 19
    assert sum(item.recommends for item in found["decision"]) >= 12
    kept = [item.gain for name in ("search", "decision") for item in found[name] if item.recommends]
    assert np.mean(kept) > 0.9
