"""How often intervals hold what they should: simulations, and exact sums where there is one count."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy import special

from sweeper.stats import (
    DiscordantPairs,
    Interval,
    mean_interval,
    paired_difference_interval,
    refutes_rate,
    wilson_interval,
)
from sweeper.stats.posterior import (
    beta_draws,
    prompt_weights,
    rate_draws,
    ratio_draws,
)
from sweeper.stats.runs import (
    JEFFREYS,
    all_trained_again_draws,
    run_variance,
    trained_again_count_draws,
)

Row = dict[str, float | int | str]
_NORMAL = NormalDist()


def counts_coverage(
    interval: Callable[[int, int], Interval], n: int, low: float, high: float
) -> Row:
    """Exact coverage over rates spread evenly between two: its mean, least and largest value."""
    bounds = [interval(k, n) for k in range(n + 1)]
    k = np.arange(n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    covered = []
    for rate in np.linspace(low, high, 400):
        mass = np.exp(logs + k * math.log(rate) + (n - k) * math.log1p(-rate))
        held = [bound.low <= rate <= bound.high for bound in bounds]
        covered.append(float(mass[held].sum()))
    return {"coverage": float(np.mean(covered)), "least": min(covered), "largest": max(covered)}


def clopper_pearson_interval(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval of k successes in n: its coverage is never below `confidence`.

    Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return Interval(low, high)


def credible_interval(k: int, n: int, confidence: float = 0.95) -> Interval:
    """The equal-tailed interval of Beta(k + 1/2, n - k + 1/2), with the ends 0 and 1 at k = 0 and k = n.

    Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286, who close the ends in this way.
    """
    tail = (1 - confidence) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k + 0.5, n - k + 0.5, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 0.5, n - k + 0.5, 1 - tail))
    return Interval(low, high)


def pairs_coverage(rng: np.random.Generator, n: int, repetitions: int) -> Row:
    """Tango's interval where the discordant shares are anywhere from 1 to 20 %."""
    held = 0
    for _ in range(repetitions):
        first, second = rng.uniform(0.01, 0.2, 2)
        b, c, _ = rng.multinomial(n, (first, second, 1 - first - second))
        low, high = paired_difference_interval(DiscordantPairs(int(b), int(c), n))
        held += low <= first - second <= high
    return {"coverage": held / repetitions}


def means_coverage(rng: np.random.Generator, n: int, repetitions: int) -> Row:
    """Student's t and the Bayesian bootstrap on differences of skewed scores over the same rows."""
    student = bootstrap = 0
    truth = 0.85 - 0.8
    for _ in range(repetitions):
        rows = rng.beta(8, 2, n)
        first = rows + 0.05 + rng.normal(0, 0.05, n)
        second = rows + rng.normal(0, 0.05, n) * (1 + rows)
        gaps = first - second
        low, high = mean_interval(float(gaps.mean()), gaps, 0.95)
        student += low <= truth <= high
        weights = prompt_weights(n, 1000, rng)
        drawn = ratio_draws(weights, np.stack([first, second]), np.ones(n))
        low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
        bootstrap += low <= truth <= high
    return {"student": student / repetitions, "bootstrap": bootstrap / repetitions}


def differences_coverage(rng: np.random.Generator, n: int, repetitions: int) -> Row:
    """Draws of two rates with the same weights against draws as if their prompts were different ones."""
    paired = alone = 0
    widths = np.zeros(2)
    for _ in range(repetitions):
        chances = np.array(rng.uniform(0.03, 0.3, 2))
        hard, noise = rng.standard_normal(n), rng.standard_normal((2, n))
        cuts = np.array([[_NORMAL.inv_cdf(float(chance))] for chance in chances])
        answers = (math.sqrt(0.7) * hard + math.sqrt(0.3) * noise < cuts).astype(np.float64)
        shared = rate_draws(prompt_weights(n, 1000, rng), answers, rng)
        apart = beta_draws(answers.mean(axis=1), np.array([n, n]), 1000, rng)
        truth = chances[0] - chances[1]
        for index, drawn in enumerate((shared, apart)):
            low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
            widths[index] += (high - low) / repetitions
            if index == 0:
                paired += low <= truth <= high
            else:
                alone += low <= truth <= high
    return {
        "paired": paired / repetitions,
        "as if independent": alone / repetitions,
        "width": float(widths[0] / widths[1]),
    }


class Runs(NamedTuple):
    """Seeds of one configuration: logits of its rate, and their deviations by prompts and by runs."""

    seeds: int
    logit: float
    prompts: float
    runs: float

    def truth(self) -> float:
        """The mean rate over prompts and runs, by quadrature over their sum."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        scale = math.hypot(self.prompts, self.runs)
        chances = 1 / (1 + np.exp(-(self.logit + scale * nodes)))
        return float((weights * chances).sum() / weights.sum())


RUNS = tuple(
    Runs(seeds, logit, 1.0, runs)
    for seeds in (3, 5)
    for logit in (-3.0, -1.0)
    for runs in (0.0, 0.3, 1.0)
)


def seeds_coverage(rng: np.random.Generator, runs: Runs, n: int, repetitions: int) -> Row:
    """Draws of a mean rate over runs, from verdicts per prompt and from k/n alone."""
    truth, held = runs.truth(), {"verdicts": 0, "k/n": 0, "prompts alone": 0}
    for _ in range(repetitions):
        logits = runs.logit + runs.prompts * rng.standard_normal(n)
        logits = logits + runs.runs * rng.standard_normal((runs.seeds, 1))
        answers = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.float64)
        weights = prompt_weights(n, 1000, rng)
        variance, counts = run_variance([answers]), answers.sum(axis=1)
        sets = {
            "prompts alone": rate_draws(weights, answers.mean(axis=0)[None], rng),
            "verdicts": all_trained_again_draws([answers], variance, weights, rng),
            "k/n": trained_again_count_draws(
                counts, np.full(runs.seeds, n), variance, 1000, rng, counted=JEFFREYS
            ),
        }
        for name, found in sets.items():
            low, high = np.quantile(found, [0.025, 0.975])
            held[name] += low <= truth <= high
    return {"rate": truth} | {name: count / repetitions for name, count in held.items()}


def rate_errors(rng: np.random.Generator, rate: float, n: int, repetitions: int) -> Row:
    """How often the truth is ever left out in n prompts: by the sequence, and by looking at Wilson's."""
    ever = {"sequence": 0, "wilson": 0}
    for _ in range(repetitions):
        counts = np.cumsum(rng.random(n) < rate).tolist()
        ever["sequence"] += any(refutes_rate(k, i, rate) for i, k in enumerate(counts, start=1))
        ever["wilson"] += any(
            not low <= rate <= high
            for low, high in (wilson_interval(k, i) for i, k in enumerate(counts, start=1))
        )
    return {name: count / repetitions for name, count in ever.items()}
