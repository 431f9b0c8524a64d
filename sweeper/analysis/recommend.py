"""One recommended configuration of a front, the reasons for it, and its comparison with controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.analysis.candidate import Candidate, constraint_text, rate_text, valued
from sweeper.analysis.controls import Contrast, contrasts_with, trainers_default, unaveraged_control
from sweeper.analysis.front import Front
from sweeper.analysis.list_agreement import list_disagreements
from sweeper.analysis.policies import (
    Policy,
    knee_distances,
    qualified,
    under_policy,
    utility_bound,
)
from sweeper.analysis.shortfall import nearest_of, unmet, why_none
from sweeper.spec import SweepSpec

SAFEST_USEFUL = Policy()


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """The configuration to use, or why there is none.

    `compared` counts complete configurations, `ranked` are those that qualify, best first. `unaveraged` is
    the chosen one without averaging, `default` the trainers' defaults, `base` the untouched model: None
    where the records hold none. `contrasts` compare the chosen one with these three. `nearest` is given
    only when nothing is chosen: the candidate that comes nearest to qualifying. `caveats` are reasons to
    doubt the rates, one sentence each.
    """

    policy: Policy
    chosen: Candidate | None
    reason: str
    compared: int
    ranked: tuple[Candidate, ...]
    unaveraged: Candidate | None
    default: Candidate | None
    base: Candidate | None
    nearest: Candidate | None
    contrasts: tuple[Contrast, ...]
    caveats: tuple[str, ...] = ()


def recommend(front: Front, spec: SweepSpec, policy: Policy = SAFEST_USEFUL) -> Recommendation:
    """The best of the candidates that qualify under a policy; see `sweeper.analysis.policies`."""
    front, spec = under_policy(front, spec, policy)
    ranked = qualified(front, spec, policy)
    chosen = ranked[0] if ranked else None
    nearest = None if ranked else nearest_of(front, spec, policy)
    reason = _why(ranked, front, spec, policy) if ranked else why_none(front, spec, policy, nearest)
    unaveraged = None if chosen is None else unaveraged_control(chosen, front.candidates)
    default = trainers_default(front, spec)
    others = (
        ("without averaging", unaveraged),
        ("trainers' defaults", default),
        ("untouched model", front.base),
    )
    return Recommendation(
        policy=policy,
        chosen=chosen,
        reason=reason,
        compared=len(front.competing),
        ranked=tuple(ranked),
        unaveraged=unaveraged,
        default=default,
        base=front.base,
        nearest=nearest,
        contrasts=() if chosen is None else contrasts_with(chosen, others, spec),
        caveats=list_disagreements(
            (
                ("recommended configuration", chosen),
                ("configuration nearest to qualifying", nearest),
                ("untouched model", front.base),
            ),
            spec,
        ),
    )


def multiplicity(found: Recommendation) -> str:
    """A caveat on the selection bias from comparing many configurations."""
    count = found.compared
    if count < 2:
        return "1 configuration was compared." if count else "No configuration was compared."
    text = f"{count} configurations were compared on the same prompts"
    if found.chosen is None:
        return f"{text}."
    return (
        f"{text}: the best of many looks better than it is, and intervals and p-values are not corrected "
        f"for this selection. Use --confirm to measure it again."
    )


def _why(ranked: Sequence[Candidate], front: Front, spec: SweepSpec, policy: Policy) -> str:
    chosen, name = ranked[0], spec.utility.metric
    kept = ", ".join(constraint_text(chosen, i, c) for i, c in enumerate(spec.constraints))
    parts = [
        f"{valued(chosen, front.candidates)} {_distinction(ranked, front, spec, policy)}: "
        f"{_rates(chosen, spec)}" + (f"; {kept}" if kept else "")
    ]
    if policy.name == "min-unsafe-at" and not chosen.feasible:
        parts.append(f"it violates the constraints of the sweep ({'; '.join(unmet(chosen, spec))})")
    if len(ranked) > 1:
        second = ranked[1]
        parts.append(
            f"next best is {second.config_id} with {name} {second.values[name]:.4g} "
            f"and {_rates(second, spec)}"
        )
    if front.base is not None and name in front.base.values:
        parts.append(f"the untouched model has {name} {front.base.values[name]:.4g}")
    return "; ".join(parts) + "."


def _distinction(ranked: Sequence[Candidate], front: Front, spec: SweepSpec, policy: Policy) -> str:
    """Why the first of the ranked is chosen, and among how many."""
    chosen, name = ranked[0], spec.utility.metric
    of = f"of the {len(ranked)} of {len(front.competing)} configurations that"
    value = f"{chosen.values[name]:.4g}"
    if policy.name == "min-unsafe-at":
        word = "at least" if spec.utility.direction == "maximize" else "at most"
        return (
            f"has the lowest unsafe_rate {of} have {name} {word} {policy.utility:g} with 95 % "
            f"confidence, and are not marked `no gain`; its {name} is {value}, {word} "
            f"{utility_bound(chosen, spec):.4g}"
        )
    if policy.name != "knee":
        return f"has the best {name}, {value}, {of} {_demands(spec)}"
    distances = knee_distances(ranked, spec)
    feasible = sum(item.feasible and bool(item.gain) for item in front.competing)
    where = f"the front in {name} and unsafe_rate of the {feasible} of {len(front.competing)} "
    where += f"configurations that {_demands(spec)}"
    if distances[chosen.config_id] > 0:
        return (
            f"is the knee ({name} {value}): of the {len(ranked)} on {where}, it lies farthest beyond the "
            f"line between the ends, {distances[chosen.config_id]:.3f} where both axes go from 0 to 1"
        )
    return (
        f"is the end with the highest utility ({name} {value}) of {where}; none of the {len(ranked)} on "
        f"it lies "
        "beyond the line between its ends, so it has no knee"
    )


def _demands(spec: SweepSpec) -> str:
    kept = [
        f"{c.metric} <= {c.max:g} with probability at least {c.confidence:g}"
        for c in spec.constraints
    ]
    gain = "are not marked `no gain`"
    return f"keep {' and '.join(kept)}, and {gain}" if kept else gain


def _rates(candidate: Candidate, spec: SweepSpec) -> str:
    names = dict.fromkeys(["unsafe_rate", *(c.metric for c in spec.constraints)])
    return ", ".join(rate_text(candidate, name) for name in names)


def side_by_side(recommendation: Recommendation) -> tuple[tuple[str, Candidate], ...]:
    """The candidates to show side by side, in order, with the name of each, without duplicates."""
    named: list[tuple[str, Any]] = [
        ("untouched model", recommendation.base),
        ("trainers' defaults", recommendation.default),
        ("recommended, without averaging", recommendation.unaveraged),
        ("recommended", recommendation.chosen),
        ("nearest", recommendation.nearest),
    ]
    return tuple((name, item) for name, item in named if item is not None)
