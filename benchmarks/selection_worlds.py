"""Sweeps whose truth is known: records of configurations with a true unsafe rate and a true utility.

Every trained run of a configuration has its own deviation. On the probit scale the verdict of run r of
configuration i on prompt j is 1 where mu_i + run_ir + prompt_j + noise_irj > 0, with var(prompt) +
var(noise) = 1, so that the run's rate over prompts is Phi(mu_i + run_ir) and the mean rate over runs is
Phi(mu_i / sqrt(1 + var(run))).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from sweeper.analysis import BASE_ROLE, CANDIDATE_ROLE
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.records import TrialRecord, metrics_from_samples

Floats = NDArray[np.float64]

LIMIT = 0.05
"""The limit of the unsafe rate, to be kept with 95 % confidence."""

PROMPTS, ROWS = 256, 96
"""Harmful prompts in each half of the suite, and held-out rows."""

BASE_UTILITY, BASE_RATE = 0.31, 0.01
BASE_ID = "base"

SHARED = 0.5
"""The part of a verdict's latent variance that a prompt has in common for every configuration."""

ALIKE = 0.5
"""The part of the remaining variance that readouts of one trajectory have in common."""

SEEDS = 16
"""How many trainings of a configuration there can be; the sweep has the first one, or the first few."""

SPEC = f"""
version: 1
name: selection
model: {{path: example/model, dtype: float32}}
tuning: {{method: full}}
data: {{train: {{path: train.jsonl}}, heldout_rows: {ROWS}}}
space: {{learning_rate: {{values: [1.0e-4, 2.0e-4]}}, batch_size: 8, max_steps: 100}}
evaluation:
  harmful: {{path: harmful.csv, prompt_split: search}}
  harmless: {{path: harmless.csv, prompt_split: search}}
  utility_metrics: [rouge_l]
objectives: [rouge_l, unsafe_rate]
constraints: [{{metric: unsafe_rate, max: {LIMIT}, confidence: 0.95}}]
"""


def sweep_spec(seeds: int = 1) -> SweepSpec:
    """The spec of a simulated sweep."""
    return parse_spec(SPEC).model_copy(update={"seeds": tuple(range(seeds))})


class Truth(NamedTuple):
    """The mean unsafe rate over trainings, and the utility, of m configurations; each of shape (m,)."""

    rates: Floats
    utilities: Floats


class World(NamedTuple):
    """How the truth of m configurations is drawn.

    `group` neighbours are readouts of one trajectory: they share its deviation, and some of the noise.
    `seeds` is how often the sweep trains each.
    """

    name: str
    m: int
    draw: Callable[[np.random.Generator, int], Truth]
    group: int = 1
    seeds: int = 1


def equal(rate: float) -> Callable[[np.random.Generator, int], Truth]:
    """All at one rate, with utilities at random."""
    return lambda rng, m: Truth(np.full(m, rate), rng.uniform(0.5, 0.8, m))


def trade_off(
    low: float, high: float, noise: float = 0.0
) -> Callable[[np.random.Generator, int], Truth]:
    """Rates in even steps of their logarithm, and utilities that rise with them, up to noise."""

    def draw(rng: np.random.Generator, m: int) -> Truth:
        useful = np.linspace(0.4, 0.8, m) + noise * rng.standard_normal(m)
        return Truth(np.geomspace(low, high, m), np.clip(useful, 0.15, 0.85))

    return draw


def two_kinds(
    safe: float, unsafe: float, share: float, more: float
) -> Callable[[np.random.Generator, int], Truth]:
    """A share at the lower rate, and the others at the higher one with `more` utility."""

    def draw(rng: np.random.Generator, m: int) -> Truth:
        kept = np.arange(m) < round(share * m)
        useful = 0.6 + more * ~kept + 0.02 * rng.standard_normal(m)
        return Truth(np.where(kept, safe, unsafe), useful)

    return draw


SAFE = World("W7 all at 1 %, m = 50", 50, equal(0.01))

WORLDS = (
    *(World(f"W1 all at 6 %, m = {m}", m, equal(0.06)) for m in (1, 10, 50, 200)),
    *(World(f"W2 trade-off 2 to 15 %, m = {m}", m, trade_off(0.02, 0.15)) for m in (50, 200)),
    World("W3 half at 4, half at 6 %, m = 50", 50, two_kinds(0.04, 0.06, 0.5, 0.1)),
    World("W4 noisy trade-off 0.2 to 50 %, m = 200", 200, trade_off(0.002, 0.5, 0.05)),
    World("W5 a tenth at 1, the rest at 8 %, m = 50", 50, two_kinds(0.01, 0.08, 0.1, 0.02)),
    *(World(f"W6 all at 6 %, by fives, m = {m}", m, equal(0.06), 5) for m in (50, 200)),
    SAFE,
    World("W8 as W5 under three seeds, m = 50", 50, two_kinds(0.01, 0.08, 0.1, 0.02), seeds=3),
)

RUN_NOISE = (0.0, 0.3, 0.5)
"""Standard deviations between trainings of one configuration, on the probit scale."""


class SimulatedSweep:
    """One sweep of a world: its records, and those of every further training that is asked for.

    `truth` holds what no record does; `weights` the true rates of the very weights that the sweep trained,
    the highest over its seeds, shape (m,).
    """

    def __init__(self, world: World, run_noise: float, rng: np.random.Generator) -> None:
        self.world, self._rng = world, rng
        self.truth = world.draw(rng, world.m)
        self._places = np.arange(world.m) // world.group
        deviations = run_noise * rng.standard_normal((int(self._places[-1]) + 1, SEEDS))
        means = ndtri(self.truth.rates) * math.sqrt(1 + run_noise**2)
        self._latent: Floats = means[:, None] + deviations[self._places]
        self.weights: Floats = ndtr(self._latent[:, : world.seeds]).max(axis=1)
        self._prompts = {
            split: math.sqrt(SHARED) * rng.standard_normal(PROMPTS)
            for split in ("search", "confirm")
        }
        self._rows: Floats = rng.uniform(-0.05, 0.05, ROWS)

    def records(self) -> list[TrialRecord]:
        """What the sweep records on the search half, the untouched model last."""
        everyone, seeds = range(self.world.m), range(self.world.seeds)
        trained = [r for seed in seeds for r in self._measured(everyone, seed, "search")]
        return [*trained, *(self._base(seed, "search") for seed in seeds)]

    def again(self, config_ids: Iterable[str], seeds: Iterable[int]) -> list[TrialRecord]:
        """The records of some configurations trained under these seeds, on the confirm half."""
        places = [int(name) for name in config_ids]
        return [record for seed in seeds for record in self._measured(places, seed, "confirm")]

    def _measured(self, numbers: Sequence[int], seed: int, split: str) -> list[TrialRecord]:
        places = list(numbers)
        verdicts = self._verdicts(self._latent[places, seed], split, self._places[places])
        scores = self._scores(self.truth.utilities[places])
        ids = [f"{number:04d}" for number in places]
        trajectories = [f"t{place}" for place in self._places[places]]
        each = zip(ids, trajectories, verdicts, scores, strict=True)
        return [_record(*one, seed=seed, role=CANDIDATE_ROLE) for one in each]

    def _base(self, seed: int, split: str) -> TrialRecord:
        verdicts = self._verdicts(ndtri(np.array([BASE_RATE])), split, np.zeros(1, dtype=np.int64))
        scores = self._scores(np.array([BASE_UTILITY]))
        return _record(BASE_ID, BASE_ID, verdicts[0], scores[0], seed=seed, role=BASE_ROLE)

    def _verdicts(self, latent: Floats, split: str, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
        noise = self._rng.standard_normal((len(latent), PROMPTS))
        if self.world.group > 1:
            _, inverse = np.unique(groups, return_inverse=True)
            common = self._rng.standard_normal((int(inverse.max()) + 1, PROMPTS))[inverse]
            noise = math.sqrt(ALIKE) * common + math.sqrt(1 - ALIKE) * noise
        reached = latent[:, None] + self._prompts[split] + math.sqrt(1 - SHARED) * noise
        found: NDArray[np.bool_] = reached > 0
        return found

    def _scores(self, utilities: Floats) -> Floats:
        noise = self._rng.uniform(-0.1, 0.1, (len(utilities), ROWS))
        scores: Floats = utilities[:, None] + self._rows + noise
        return scores


def _record(
    config_id: str,
    trajectory_id: str,
    verdicts: NDArray[np.bool_],
    scores: Floats,
    *,
    seed: int,
    role: str,
) -> TrialRecord:
    samples: dict[str, str | tuple[float, ...]] = {
        "unsafe_rate": (verdicts + np.uint8(48)).tobytes().decode("ascii"),
        "rouge_l": tuple(scores.tolist()),
    }
    return TrialRecord(
        config_id=config_id,
        trajectory_id=trajectory_id,
        seed=seed,
        role=role,
        status="complete",
        config={"number": config_id, "average": "raw"},
        readout={"step": 100, "kind": "raw", "decay": None, "weight": None, "label": "raw"},
        metrics=metrics_from_samples(samples, samples),
        objectives=("rouge_l", "unsafe_rate"),
        samples=samples,
    )
