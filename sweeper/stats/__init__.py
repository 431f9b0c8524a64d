"""Statistics of rates and means: intervals, posteriors, paired tests, hypervolume. numpy and scipy only.

Every formula has its source in its docstring. docs/explanation/statistics.md says what each is for, and
benchmarks/coverage.py measures coverage.
"""

from sweeper.stats.distributions import beta_cdf, beta_quantile, t_quantile
from sweeper.stats.hypervolume import hypervolume
from sweeper.stats.paired import (
    DiscordantPairs,
    discordant_pairs,
    mcnemar,
    mean_interval,
    paired_difference_interval,
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
    "DiscordantPairs",
    "Interval",
    "beta_cdf",
    "beta_quantile",
    "decided",
    "difference_lower_bound",
    "discordant_pairs",
    "hypervolume",
    "largest_passing_count",
    "mcnemar",
    "mean_interval",
    "paired_difference_interval",
    "probability_at_most",
    "refutes_rate",
    "t_quantile",
    "upper_bound",
    "wilson_interval",
]
