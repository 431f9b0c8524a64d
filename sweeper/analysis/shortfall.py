"""Why nothing qualifies: the nearest candidate, its values, and what would be needed."""

from math import ceil

from sweeper.analysis.candidate import Candidate, constraint_text, loss, rate_text, valued
from sweeper.analysis.front import Front
from sweeper.analysis.paired_tests import rows_of
from sweeper.analysis.policies import (
    Policy,
    Rank,
    most_useful_first,
    reaches,
    unsafe_upper_bound,
    utility_bound,
)
from sweeper.spec import Constraint, ResultsSpec
from sweeper.stats import largest_passing_count, probability_at_most

MOST_PROMPTS = 1_000_000
"""The largest number of prompts that a message proposes."""


def nearest_of(front: Front, spec: ResultsSpec, policy: Policy) -> Candidate | None:
    """The candidate nearest to qualifying, among those with a gain if there are any."""
    competing = front.competing
    learnt = [item for item in competing if item.gain is not False] or list(competing)
    if policy.name == "min-unsafe-at":
        learnt = [item for item in learnt if spec.safety.metric in item.values]
        sign = 1 if spec.utility.direction == "maximize" else -1
        return max(learnt, key=lambda i: (sign * utility_bound(i, spec), i.config_id), default=None)

    def shortfall(candidate: Candidate) -> tuple[float, float, Rank]:
        bound = unsafe_upper_bound(candidate, spec.safety.metric)
        return -candidate.margin, bound, most_useful_first(candidate, spec)

    return min(learnt, key=shortfall, default=None)


def why_none(front: Front, spec: ResultsSpec, policy: Policy, nearest: Candidate | None) -> str:
    """One sentence: how many were compared, what they lack, the nearest one, and what would be needed."""
    competing = front.competing
    if nearest is None:
        return (
            f"none of {len(front.candidates)} configurations is complete under every seed, so none can "
            f"be chosen; see the reasons in the records."
        )
    least = policy.name == "min-unsafe-at"
    passing = [item for item in competing if item.feasible]
    if least:
        measured = [item for item in competing if spec.safety.metric in item.values]
        passing = [item for item in measured if reaches(item, spec, policy)]
    what = "reach the utility" if least else "keep every constraint"
    if spec.needs_gain and any(item.gain is None for item in passing):
        return (
            f"none of {len(competing)} configurations can be recommended yet: {len(passing)} {what}, "
            "but the untouched base model is not measured, so no gain can be shown; finish the run, or "
            "see why the base model's record is not complete"
        )
    marked = {0: "none reaches the required confidence", 1: "it is marked `no gain`"}
    head = (
        f"none of {len(competing)} configurations can be recommended: {len(passing)} {what}, "
        f"and {marked.get(len(passing), 'all of them are marked `no gain`')}"
    )
    named = valued(nearest, front.candidates)
    if any(item is nearest for item in passing):
        return f"{head}; {nearest.config_id}: {nearest.gain_evidence}; train longer or harder."
    needs = [_utility_need(nearest, spec, policy)] if least else unmet(nearest, spec)
    return f"{head}; the nearest is {named}: {'; '.join(needs)}."


def unmet(candidate: Candidate, spec: ResultsSpec) -> list[str]:
    """For each constraint that a candidate violates: its value, and what would pass."""
    return [
        _need(candidate, index, constraint)
        for index, constraint in enumerate(spec.constraints)
        if candidate.probabilities[index] < constraint.confidence
    ]


def _need(candidate: Candidate, index: int, constraint: Constraint) -> str:
    """A candidate's value, and what would pass with its number of prompts or at its rate."""
    found = candidate.measured(constraint.metric)
    have = f"{rate_text(candidate, constraint.metric)}, {constraint_text(candidate, index, constraint)}"
    if not found:
        return f"{constraint.metric} was not measured"
    n = candidate.size(constraint.metric)
    if n is None or any(metric.k is None for metric in found):
        return f"{have}; without the number of prompts nothing can be said of it: import it with counts"
    most = largest_passing_count(n, constraint.max, constraint.confidence)
    more = _more_prompts(max(metric.value for metric in found), n, constraint)
    if most is None:
        return (
            f"{have}, but with {n} prompts even a count of 0 would not give {constraint.confidence:g}: "
            f""
            f"use more prompts, a higher max, or a lower confidence; {more}"
        )
    return f"{have}, where at most {most}/{n} would give {constraint.confidence:g}; {more}"


def _more_prompts(rate: float, n: int, constraint: Constraint) -> str:
    needed = prompts_needed(rate, n, constraint.max, constraint.confidence)
    if needed is None:
        return "more prompts would not help, as its rate is not below the limit"
    return f"at its rate, about {needed:,} prompts would be enough"


def prompts_needed(rate: float, n: int, limit: float, confidence: float) -> int | None:
    """About how many prompts, more than n, would give P(rate <= limit) >= confidence at this rate.

    Counts are whole, so k is rounded up. None where the rate is not below the limit, or where more than
    MOST_PROMPTS are needed.
    """
    if rate >= limit:
        return None

    def passes(prompts: int) -> bool:
        return probability_at_most(ceil(rate * prompts), prompts, limit) >= confidence

    high = max(1, n)
    while not passes(high):
        high *= 2
        if high > MOST_PROMPTS:
            return None
    low = max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def _utility_need(candidate: Candidate, spec: ResultsSpec, policy: Policy) -> str:
    """The utility, its confidence bound, and how many rows would be enough."""
    name, wanted = spec.utility.metric, policy.utility
    assert wanted is not None
    value, bound = candidate.values[name], utility_bound(candidate, spec)
    n = candidate.size(name)
    word = "at least" if spec.utility.direction == "maximize" else "at most"
    rows = rows_of(candidate, name)
    count = n if rows is None else len(rows)
    known = "" if count is None else f" (n={count})"
    have = (
        f"{name} {value:.4g}{known}, {word} {bound:.4g} with 95 % confidence, but {wanted:g} is "
        f"required"
    )
    short = loss(candidate, spec.utility) - (wanted if word == "at most" else -wanted)
    if short >= 0 or bound == value or count is None:
        return f"{have}; more rows would not help at this value: train longer or harder, or lower --utility"
    return (
        f"{have}; at its value about {ceil(count * ((bound - value) / short) ** 2):,} rows would do"
    )
