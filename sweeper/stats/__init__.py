"""Statistics of rates and means: intervals, posteriors, pairs, fronts' volumes, sequences. Numpy alone.

Every formula has its source in its docstring and its derivation in docs/statistics.md; coverage is measured
by benchmarks/coverage.py.
"""

from sweeper.stats.curtailment import decided
from sweeper.stats.hypervolume import hypervolume
from sweeper.stats.paired import (
    Balance,
    DiscordantPairs,
    discordant_pairs,
    mcnemar,
    mean_difference_interval,
    paired_difference_interval,
)
from sweeper.stats.rates import (
    Interval,
    clopper_pearson_interval,
    credible_interval,
    difference_lower_bound,
    largest_passing_count,
    probability_at_most,
    sample_rate,
    upper_bound,
    wilson_interval,
)
from sweeper.stats.sequences import (
    difference_sequence,
    rate_sequence,
    refutes_difference,
    refutes_rate,
)

__all__ = [
    "Balance",
    "DiscordantPairs",
    "Interval",
    "clopper_pearson_interval",
    "credible_interval",
    "decided",
    "difference_lower_bound",
    "difference_sequence",
    "discordant_pairs",
    "hypervolume",
    "largest_passing_count",
    "mcnemar",
    "mean_difference_interval",
    "paired_difference_interval",
    "probability_at_most",
    "rate_sequence",
    "refutes_difference",
    "refutes_rate",
    "sample_rate",
    "upper_bound",
    "wilson_interval",
]
