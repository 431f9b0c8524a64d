"""Statistics of rates and means: intervals, posteriors, paired tests, hypervolume. numpy and scipy only.

Every formula has its source in its docstring. docs/explanation/statistics.md says what each is for, and
benchmarks/coverage.py measures coverage.
"""

from sweeper.stats.distributions import beta_cdf, beta_quantile, t_quantile
from sweeper.stats.hypervolume import hypervolume, hypervolumes
from sweeper.stats.paired import (
    THESE_WEIGHTS,
    DiscordantPairs,
    RunPart,
    discordant_means,
    discordant_pairs,
    joint,
    mcnemar,
    mean_interval,
    paired_difference_interval,
    run_part,
    two_way_p,
)
from sweeper.stats.rates import (
    Interval,
    difference_lower_bound,
    largest_passing_count,
    probability_at_most,
    upper_bound,
    wilson_interval,
)
from sweeper.stats.sequential import decided, refutes_rate

__all__ = [
    "THESE_WEIGHTS",
    "DiscordantPairs",
    "Interval",
    "RunPart",
    "beta_cdf",
    "beta_quantile",
    "decided",
    "difference_lower_bound",
    "discordant_means",
    "discordant_pairs",
    "hypervolume",
    "hypervolumes",
    "joint",
    "largest_passing_count",
    "mcnemar",
    "mean_interval",
    "paired_difference_interval",
    "probability_at_most",
    "refutes_rate",
    "run_part",
    "t_quantile",
    "two_way_p",
    "upper_bound",
    "wilson_interval",
]
