"""The policies of a recommendation: which configurations qualify, and which of them is best."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

from sweeper.analysis.candidate import Candidate, loss, losses
from sweeper.analysis.front import GAIN_CONFIDENCE, Front, find_front, non_dominated
from sweeper.analysis.paired_tests import lower_bound_of
from sweeper.errors import SweeperError
from sweeper.spec import Constraint, ResultsSpec
from sweeper.stats import upper_bound

Name = Literal["safest-useful", "knee", "max-utility-at", "min-unsafe-at"]
NAMES: tuple[Name, ...] = get_args(Name)

TIE_CONFIDENCE = 0.95

Question = TypeVar("Question", bound=ResultsSpec)

Rank = tuple[float, float, int, str]


class Policy(NamedTuple):
    """A policy by name, with the number that two of them take.

    `safest-useful`: the highest utility among those that satisfy every constraint. `knee`: on the front of
    the same, the one farthest from the line between its ends. `max-utility-at`: `safest-useful` with
    `limit` as the limit of the unsafe rate. `min-unsafe-at`: the lowest unsafe rate among those that reach
    `utility`.
    """

    name: Name = "safest-useful"
    limit: float | None = None
    utility: float | None = None


def policy_of(name: str, limit: float | None = None, utility: float | None = None) -> Policy:
    """A policy from its name and number.

    Raises:
        SweeperError: an unknown name; a number that is missing, not of this policy, or no rate.
    """
    known = next((item for item in NAMES if item == name), None)
    if known is None:
        raise SweeperError(f"no policy {name!r}; there are {', '.join(NAMES)}")
    for option, value, owner in (
        ("--limit", limit, "max-utility-at"),
        ("--utility", utility, "min-unsafe-at"),
    ):
        if (value is not None) != (known == owner):
            raise SweeperError(
                f"the policy {owner} needs {option} X"
                if value is None
                else f"{option} belongs to the policy {owner}, and the policy here is {known}"
            )
    if limit is not None and not 0 <= limit <= 1:
        raise SweeperError(f"--limit must be an unsafe rate in [0, 1], but got {limit:g}")
    if utility is not None and not math.isfinite(utility):
        raise SweeperError(f"--utility must be a finite number, but got {utility:g}")
    return Policy(known, limit, utility)


def under_policy(front: Front, spec: Question, policy: Policy) -> tuple[Front, Question]:
    """The front and the spec under a policy: another limit makes other configurations feasible."""
    if policy.limit is None:
        return front, spec
    name = spec.safety.metric
    found = [c.confidence for c in spec.constraints if c.metric == name]
    kept = tuple(c for c in spec.constraints if c.metric != name)
    own = Constraint(metric=name, max=policy.limit, confidence=max(found, default=TIE_CONFIDENCE))
    under = spec.model_copy(update={"constraints": (own, *kept)})
    return find_front((r for item in front.candidates for r in item.records), under), under


def qualified(front: Front, spec: ResultsSpec, policy: Policy) -> list[Candidate]:
    """The candidates that qualify, best first.

    A configuration marked `no gain` never does: the safest training is no training. None does while the
    base model is not measured, since then no gain is known.
    """
    learnt = [item for item in front.competing if item.gain or not spec.needs_gain]
    if policy.name == "min-unsafe-at":
        reaching = [
            i for i in learnt if spec.safety.metric in i.values and reaches(i, spec, policy)
        ]
        return sorted(reaching, key=lambda item: safest_first(item, spec))
    feasible = [item for item in learnt if item.feasible]
    if policy.name == "knee":
        return knee_first(feasible, spec)
    return sorted(feasible, key=lambda item: most_useful_first(item, spec))


def most_useful_first(candidate: Candidate, spec: ResultsSpec) -> Rank:
    """Utility; ties go to the lower upper bound of the unsafe rate, to fewer steps, to the smaller id."""
    return (
        loss(candidate, spec.utility),
        unsafe_upper_bound(candidate, spec.safety.metric),
        candidate.steps,
        candidate.config_id,
    )


def safest_first(candidate: Candidate, spec: ResultsSpec) -> tuple[float, ...]:
    """The unsafe rate; ties go to its lower upper bound, to more utility, to fewer steps."""
    rate = loss(candidate, spec.safety) if spec.safety.metric in candidate.values else math.inf
    bound = unsafe_upper_bound(candidate, spec.safety.metric)
    return rate, bound, loss(candidate, spec.utility), candidate.steps


def utility_bound(candidate: Candidate, spec: ResultsSpec) -> float:
    """The one-sided 95 % bound of the utility: the lower one, or the upper one where lower is better."""
    sign = 1 if spec.utility.direction == "maximize" else -1
    return sign * lower_bound_of(candidate, spec.utility.metric, sign, GAIN_CONFIDENCE)


def reaches(candidate: Candidate, spec: ResultsSpec, policy: Policy) -> bool:
    """Whether the utility is, with confidence, as good as the policy demands."""
    assert policy.utility is not None
    bound = utility_bound(candidate, spec)
    if spec.utility.direction == "maximize":
        return bound >= policy.utility
    return bound <= policy.utility


def knee_distance(first: float, second: float) -> float:
    """How far a point lies beyond the line from (0, 1) to (1, 0): (1 - x - y) / sqrt(2), signed.

    Both losses are normalized to [0, 1] between the ends of the front. The knee is where this is largest
    (Das 1999, doi:10.1007/BF01195985; Branke et al. 2004, doi:10.1007/978-3-540-30217-9_73).
    """
    return (1 - first - second) / math.sqrt(2)


def knee_distances(items: Sequence[Candidate], spec: ResultsSpec) -> dict[str, float]:
    """The distance of each point of the front of `items` in utility and unsafe rate, by id.

    Ends are at distance zero. Every point is, where the front has fewer than three places.
    """
    measured = [item for item in items if spec.safety.metric in item.values]
    if not measured:
        return {}
    points = losses(measured, (spec.utility, spec.safety))
    kept = non_dominated(points)
    points, low = points[kept], points[kept].min(axis=0)
    spread = points.max(axis=0) - low
    front = [item for item, keep in zip(measured, kept, strict=True) if keep]
    if (spread <= 0).any():
        return {item.config_id: 0.0 for item in front}
    scaled = (points - low) / spread
    return {
        item.config_id: knee_distance(float(x), float(y))
        for item, (x, y) in zip(front, scaled, strict=True)
    }


def knee_first(items: Sequence[Candidate], spec: ResultsSpec) -> list[Candidate]:
    """The front of `items`, the knee first; ties as in `most_useful_first`."""
    distances = knee_distances(items, spec)
    on = [item for item in items if item.config_id in distances]
    return sorted(on, key=lambda i: (-distances[i.config_id], most_useful_first(i, spec)))


def unsafe_upper_bound(candidate: Candidate, metric: str) -> float:
    """The 95 % upper bound of a rate, the highest over seeds; 1 where a count is missing."""
    found = candidate.measured(metric)
    counts = [metric.counts for metric in found]
    known = [pair for pair in counts if pair is not None]
    if len(known) < len(candidate.records):
        return 1.0
    return max(upper_bound(*pair, TIE_CONFIDENCE) for pair in known)
