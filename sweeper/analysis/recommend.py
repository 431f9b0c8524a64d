"""One recommended configuration of a front, the reasons for it, and its comparison with controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sweeper.analysis.candidate import Candidate, rate_text, valued
from sweeper.analysis.controls import Contrast, contrasts_with, trainers_default, unaveraged_control
from sweeper.analysis.front import Front
from sweeper.analysis.list_agreement import list_disagreements
from sweeper.analysis.policies import (
    Policy,
    knee_distances,
    knee_first,
    qualified,
    under_policy,
    utility_bound,
)
from sweeper.analysis.selection import RateClaim, Selection, claim_text
from sweeper.analysis.shortfall import nearest_of, unmet, why_none
from sweeper.spec import ResultsSpec, SweepSpec

SAFEST_USEFUL = Policy()

ONE_SEED = (
    "one seed was trained, so nothing is known about this configuration trained again: the decision stage "
    "measures that"
)
"""What is said where only the claim about these weights can be made."""


def _one_seed(spec: ResultsSpec) -> str:
    """Of an imported run, without the stage that it cannot have."""
    return ONE_SEED if isinstance(spec, SweepSpec) else ONE_SEED.partition(":")[0]


class Decided(NamedTuple):
    """The outcome of a finished decision stage: the configuration that held, or None, and why."""

    config_id: str | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """The configuration to use, or why there is none.

    `compared` counts complete configurations, `ranked` are those that qualify on their own, best first;
    `chosen` is the first of them that still does among all that were compared, or the one that a decision
    stage found to hold. `claims` say what the search measured of the chosen one, see
    `sweeper.analysis.selection`. `unaveraged` is the chosen one without averaging, `default` the trainers'
    defaults, `base` the untouched model: None where the records hold none. `contrasts` compare the chosen
    one with these three. `nearest` is given only when nothing is chosen: the candidate that comes nearest
    to qualifying. `caveats` are reasons to doubt the rates, one sentence each.
    """

    policy: Policy
    chosen: Candidate | None
    reason: str
    compared: int
    ranked: tuple[Candidate, ...]
    claims: tuple[RateClaim, ...]
    unaveraged: Candidate | None
    default: Candidate | None
    base: Candidate | None
    nearest: Candidate | None
    contrasts: tuple[Contrast, ...]
    caveats: tuple[str, ...] = ()
    decided: Decided | None = None


def recommend(
    front: Front,
    spec: ResultsSpec,
    policy: Policy = SAFEST_USEFUL,
    decided: Decided | None = None,
) -> Recommendation:
    """The best of the candidates that qualify under a policy, corrected for how many were compared.

    Args:
        front: Of the records of the search.
        spec: Of the sweep.
        policy: See `sweeper.analysis.policies`.
        decided: What the decision stage found under this policy, which is then recommended.
    """
    front, spec = under_policy(front, spec, policy)
    ranked = qualified(front, spec, policy)
    selection = Selection(front, spec)
    sure = surely_qualified(ranked, selection, spec, policy)
    chosen = sure[0] if sure else None
    if decided is not None:
        found = (item for item in front.candidates if item.config_id == decided.config_id)
        chosen = next(found, None)
    claims = () if chosen is None else selection.claims(chosen)
    nearest = nearest_of(front, spec, policy) if chosen is None else None
    unaveraged = None if chosen is None else unaveraged_control(chosen, front.candidates)
    default = trainers_default(front, spec)
    others = (
        ("without averaging", unaveraged),
        ("trainers' defaults", default),
        ("untouched model", front.base),
    )
    if decided is None and chosen is not None:
        reason = _why(sure, claims, front, spec, policy)
    elif decided is None:
        reason = _why_none(ranked, selection, front, spec, policy)
    else:
        reason = decided.reason
    named = (
        ("recommended configuration", chosen),
        ("configuration nearest to qualifying", nearest),
        ("untouched model", front.base),
    )
    return Recommendation(
        policy=policy,
        chosen=chosen,
        reason=reason,
        compared=len(front.competing),
        ranked=tuple(ranked),
        claims=claims,
        unaveraged=unaveraged,
        default=default,
        base=front.base,
        nearest=nearest,
        contrasts=() if chosen is None else contrasts_with(chosen, others, spec, front.candidates),
        caveats=(*_what_lacks(spec), *list_disagreements(named, spec)),
        decided=decided,
    )


def _what_lacks(spec: ResultsSpec) -> list[str]:
    """What no recommendation under a spec can show."""
    texts = []
    if not spec.needs_gain:
        texts.append(
            "The untouched model was not imported: nothing shows that training gained anything."
        )
    if not spec.constraints:
        texts.append(
            f"Nothing limits {spec.safety.metric}: the best {spec.utility.metric} is taken at any "
            "price, except by the policy knee."
        )
    return texts


def surely_qualified(
    ranked: Sequence[Candidate], selection: Selection, spec: ResultsSpec, policy: Policy
) -> list[Candidate]:
    """Those of the qualified, best first, that keep every constraint with all comparisons accounted for.

    `min-unsafe-at` demands no limit, so all of them.
    """
    if policy.name == "min-unsafe-at":
        return list(ranked)
    sure = [item for item in ranked if selection.holds(item)]
    return knee_first(sure, spec) if policy.name == "knee" else sure


def multiplicity(found: Recommendation) -> str:
    """A caveat on the selection bias from comparing many configurations."""
    count = found.compared
    if count < 2:
        return "1 configuration was compared." if count else "No configuration was compared."
    text = f"{count} configurations were compared on the same prompts"
    if found.chosen is None:
        return f"{text}."
    return (
        f"{text}. The best of many looks better than it is: the claims about the recommended one are "
        "corrected for this selection; the intervals and p-values of comparisons with its controls, and "
        "the utility, are not."
    )


def claim_texts(
    candidate: Candidate, front: Front, spec: ResultsSpec, policy: Policy = SAFEST_USEFUL
) -> tuple[str, ...]:
    """What the search claims of any configuration: of these weights, and of it trained again."""
    front, spec = under_policy(front, spec, policy)
    claims = Selection(front, spec).claims(candidate)
    one = (_one_seed(spec),) if claims and len(candidate.seeds) == 1 else ()
    return (*map(claim_text, claims), *one)


def _why_none(
    ranked: Sequence[Candidate],
    selection: Selection,
    front: Front,
    spec: ResultsSpec,
    policy: Policy,
) -> str:
    """Nothing qualifies, or something does alone and nothing among all that were compared."""
    if not ranked:
        return why_none(front, spec, policy, nearest_of(front, spec, policy))
    first = ranked[0]
    short = "; ".join(map(claim_text, (c for c in selection.claims(first) if not c.holds)))
    return (
        f"none of {len(front.competing)} configurations can be recommended from the search alone: "
        f"{len(ranked)} keep every constraint taken alone, none once all {selection.compared} that could "
        f"have been chosen are accounted for; the first is {valued(first, front.candidates)}: {short}; "
        "measure the first ones again on new prompts and seeds (`sweeper recommend RUN --confirm`), or "
        "use more prompts."
    )


def _why(
    sure: Sequence[Candidate],
    claims: Sequence[RateClaim],
    front: Front,
    spec: ResultsSpec,
    policy: Policy,
) -> str:
    chosen, name = sure[0], spec.utility.metric
    parts = [
        f"{valued(chosen, front.candidates)} {_distinction(sure, front, spec, policy)}",
        *([claim_text(claim) for claim in claims] or [_rates(chosen, spec)]),
        *([] if len(chosen.seeds) > 1 else [_one_seed(spec)]),
    ]
    if policy.name == "min-unsafe-at" and not chosen.feasible:
        parts.append(f"it violates the constraints of the sweep ({'; '.join(unmet(chosen, spec))})")
    if len(sure) > 1:
        second = sure[1]
        parts.append(
            f"next best is {second.config_id} with {name} {second.values[name]:.4g} "
            f"and {_rates(second, spec)}"
        )
    if front.base is not None and name in front.base.values:
        parts.append(f"the untouched model has {name} {front.base.values[name]:.4g}")
    return "; ".join(parts) + "."


def _distinction(
    ranked: Sequence[Candidate], front: Front, spec: ResultsSpec, policy: Policy
) -> str:
    """Why the first of the ranked is chosen, and among how many."""
    chosen, name = ranked[0], spec.utility.metric
    of = f"of the {len(ranked)} of {len(front.competing)} configurations that"
    value = f"{chosen.values[name]:.4g}"
    if policy.name == "min-unsafe-at":
        word = "at least" if spec.utility.direction == "maximize" else "at most"
        return (
            f"has the lowest {spec.safety.metric} {of} have {name} {word} {policy.utility:g} with 95 % "
            f"confidence, and are not marked `no gain`; its {name} is {value}, {word} "
            f"{utility_bound(chosen, spec):.4g}"
        )
    if policy.name != "knee":
        return f"has the best {name}, {value}, {of} {_demands(spec)}"
    distances = knee_distances(ranked, spec)
    of_all = f"of the configurations, of {len(front.competing)}, that {_demands(spec)}"
    where = f"the front in {name} and {spec.safety.metric} {of_all}"
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


def _demands(spec: ResultsSpec) -> str:
    kept = [
        f"{c.metric} <= {c.max:g} with probability at least {c.confidence:g}"
        for c in spec.constraints
    ]
    gain = "are not marked `no gain`"
    sure = " with all comparisons accounted for"
    return f"keep {' and '.join(kept)}{sure}, and {gain}" if kept else gain


def _rates(candidate: Candidate, spec: ResultsSpec) -> str:
    names = dict.fromkeys([spec.safety.metric, *(c.metric for c in spec.constraints)])
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
