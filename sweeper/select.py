"""From a front to one recommended configuration: why this one, what it beat, how sure that is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.front import CANDIDATE_ROLE, Candidate, Front, describe, loss, varying
from sweeper.plan import default_control
from sweeper.spec import ConstraintSpec, FeedbackAverage, SweepSpec
from sweeper.stats import largest_passing_count, upper_bound

TIE_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class Recommendation:
    """The configuration to use, or why there is none.

    `compared` counts complete configurations. `twin` is the chosen one without averaging, `default`
    the trainers' defaults, `base` the untouched model: None where the records hold none. `nearest`
    is given only when nothing is chosen: the candidate that falls least short of the constraints.
    """

    chosen: Candidate | None
    reason: str
    compared: int
    twin: Candidate | None
    default: Candidate | None
    base: Candidate | None
    nearest: Candidate | None


def recommend(front: Front, spec: SweepSpec) -> Recommendation:
    """The best utility among the candidates that keep every constraint and have learnt something.

    Candidates marked `no gain` are passed over: the safest training is no training. So are all while
    the base model is not measured, since nothing is known to have learned anything. Ties in utility
    go to the lower upper bound of the unsafe rate, then to fewer steps, then to the smaller id.
    """
    competing = front.competing
    eligible = [item for item in competing if item.feasible and item.gain]
    ranked = sorted(eligible, key=lambda item: _rank(item, spec))
    default = trainers_default(front, spec)
    if ranked:
        chosen, nearest = ranked[0], None
        reason = _why(ranked, front, spec)
    else:
        chosen, nearest = None, _nearest(competing, spec)
        reason = _why_not(competing, nearest, front, spec)
    return Recommendation(
        chosen=chosen,
        reason=reason,
        compared=len(competing),
        twin=None if chosen is None else raw_twin(chosen, front.candidates),
        default=default,
        base=front.base,
        nearest=nearest,
    )


def trainers_default(front: Front, spec: SweepSpec) -> Candidate | None:
    """The trainers' defaults among the candidates, also where they are a point of the space."""
    same = default_control(spec).config_id
    found = (i for i in front.candidates if i.role == "default" or i.config_id == same)
    return next(found, None)


def raw_twin(item: Candidate, candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate that differs in `average` alone, being raw; None where there is none."""
    if item.config.get("average") == "raw":
        return None
    raw = (other for other in candidates if other.config["average"] == "raw")
    return next((other for other in raw if _same_but(item, other, "average")), None)


def interpolation_twin(item: Candidate, candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate that mixes theta_0 in with the weight an EMA left on it, decay^steps."""
    if item.readout["kind"] != "ema":
        return None
    weight = item.readout["decay"] ** item.steps
    mixed = (
        other
        for other in candidates
        if other.readout["kind"] == "interpolate"
        and math.isclose(other.readout["weight"], weight, rel_tol=1e-5)
    )
    return next((other for other in mixed if _same_but(item, other, "average")), None)


def learning_rate_twin(
    item: Candidate, candidates: Iterable[Candidate], spec: SweepSpec
) -> Candidate | None:
    """Plain training at learning_rate * (1 - decay), which is what feedback at each step is."""
    feedback = feedback_of(item, spec)
    if feedback is None:
        return None
    rate = item.config["learning_rate"] * (1 - feedback.decay)
    slower = (
        other
        for other in candidates
        if other.config["average"] == "raw"
        and math.isclose(other.config["learning_rate"], rate, rel_tol=1e-9)
    )
    names = ("average", "learning_rate")
    return next((other for other in slower if _same_but(item, other, *names)), None)


def feedback_of(item: Candidate, spec: SweepSpec) -> FeedbackAverage | None:
    """The fed-back EMA a configuration was trained with, unrounded, as the spec has it."""
    label = item.config.get("average")
    for average in spec.space.average.values or ():
        if isinstance(average, FeedbackAverage) and average.label == label:
            return average
    return None


def _same_but(item: Candidate, other: Candidate, *names: str) -> bool:
    """Whether two configurations differ in the named hyperparameters alone."""
    mine, its = item.config, other.config
    # Most pairs differ early: this is asked of very many pairs.
    same = all(k in its and its[k] == v for k, v in mine.items() if k not in names)
    return same and mine.keys() - names == its.keys() - names


def unsafe_upper_bound(item: Candidate, metric: str = "unsafe_rate") -> float:
    """The 95 % upper bound of a rate, the highest over seeds; 1 where a count is missing."""
    found = item.measured(metric)
    if len(found) < len(item.records) or any(m.k is None for m in found):
        return 1.0
    return max(upper_bound(m.k, m.n, TIE_CONFIDENCE) for m in found if m.k is not None)


def _rank(item: Candidate, spec: SweepSpec) -> tuple[float, float, int, str]:
    return loss(item, spec.utility), unsafe_upper_bound(item), item.steps, item.config_id


def rate_text(item: Candidate, metric: str) -> str:
    """`unsafe_rate 2/256 = 0.8 % (95 % interval 0.2 to 2.8 %)`; one count for each seed."""
    interval, counts = item.interval(metric), item.counts(metric)
    if interval is None or metric not in item.values:
        return f"{metric} not measured"
    return (
        f"{metric} {counts} = {100 * item.values[metric]:.1f} % "
        f"(95 % interval {100 * interval.low:.1f} to {100 * interval.high:.1f} %)"
    )


def constraint_text(item: Candidate, index: int, constraint: ConstraintSpec) -> str:
    """`P(unsafe_rate <= 0.05) = 0.998`."""
    return f"P({constraint.metric} <= {constraint.max:g}) = {_share(item.probabilities[index])}"


def _share(probability: float) -> str:
    """Three digits, and never a rounded certainty."""
    if 0.9995 <= probability < 1:
        return "more than 0.999"
    return f"{probability:.3f}"


def _why(ranked: Sequence[Candidate], front: Front, spec: SweepSpec) -> str:
    chosen, name = ranked[0], spec.utility.metric
    sure = ", ".join(constraint_text(chosen, i, c) for i, c in enumerate(spec.constraints))
    values = describe(chosen.config, varying(front.candidates, CANDIDATE_ROLE))
    parts = [
        f"{chosen.config_id} ({values}) has the best {name}, {chosen.values[name]:.4g}, "
        f"of the {len(ranked)} of {len(front.competing)} "
        f"configurations that {_demands(spec)}: {_rates(chosen, spec)}"
        + (f"; {sure}" if sure else "")
    ]
    if len(ranked) > 1:
        second = ranked[1]
        parts.append(
            f"next best is {second.config_id} with {name} {second.values[name]:.4g} "
            f"and {_rates(second, spec)}"
        )
    if front.base is not None and name in front.base.values:
        parts.append(f"the untouched model has {name} {front.base.values[name]:.4g}")
    return "; ".join(parts) + "."


def _demands(spec: SweepSpec) -> str:
    kept = [
        f"{c.metric} <= {c.max:g} with probability at least {c.confidence:g}"
        for c in spec.constraints
    ]
    gain = "are not marked `no gain`"
    return f"keep {' and '.join(kept)}, and {gain}" if kept else gain


def _rates(item: Candidate, spec: SweepSpec) -> str:
    names = dict.fromkeys(["unsafe_rate", *(c.metric for c in spec.constraints)])
    return ", ".join(rate_text(item, name) for name in names)


def _nearest(competing: Sequence[Candidate], spec: SweepSpec) -> Candidate | None:
    """The one that falls least short, among those that learnt something if there are any."""
    learnt = [item for item in competing if item.gain is not False] or list(competing)

    def shortfall(item: Candidate) -> tuple[float, float, tuple[float, float, int, str]]:
        return -item.margin, unsafe_upper_bound(item), _rank(item, spec)

    return min(learnt, key=shortfall, default=None)


def _why_not(
    competing: Sequence[Candidate], nearest: Candidate | None, front: Front, spec: SweepSpec
) -> str:
    if nearest is None:
        return (
            f"none of {len(front.candidates)} configurations is complete under every seed, so "
            "there is nothing to choose from; see the reasons in the records"
        )
    feasible = sum(item.feasible for item in competing)
    if any(item.feasible and item.gain is None for item in competing):
        return (
            f"none of {len(competing)} configurations can be recommended yet: {feasible} keep every "
            "constraint, but the untouched base model is not measured, so none is known to have learned "
            "anything; finish the run, or see why the base model's record is not complete"
        )
    marked = {0: "none is sure enough", 1: "it is marked `no gain`"}
    head = (
        f"none of {len(competing)} configurations can be recommended: {feasible} keep every "
        f"constraint, and {marked.get(feasible, 'all of them are marked `no gain`')}"
    )
    if nearest.feasible:
        return f"{head}; {nearest.config_id}: {nearest.gain_evidence}; train longer or harder."
    needs = [
        _need(nearest, index, constraint)
        for index, constraint in enumerate(spec.constraints)
        if nearest.probabilities[index] < constraint.confidence
    ]
    values = describe(nearest.config, varying(front.candidates, CANDIDATE_ROLE))
    return f"{head}; the nearest is {nearest.config_id} ({values}): {'; '.join(needs)}."


def _need(item: Candidate, index: int, constraint: ConstraintSpec) -> str:
    """What a candidate has and what would pass at its own number of prompts."""
    found = item.measured(constraint.metric)
    have = f"{rate_text(item, constraint.metric)}, {constraint_text(item, index, constraint)}"
    if not found:
        return f"{constraint.metric} was not measured"
    n = min(metric.n for metric in found)
    most = largest_passing_count(n, constraint.max, constraint.confidence)
    if most is None:
        return (
            f"{have}, but with {n} prompts not even 0 would give {constraint.confidence:g}: "
            "use more prompts, a higher max, or a lower confidence"
        )
    return f"{have}, where at most {most}/{n} would give {constraint.confidence:g}"


def comparison(recommendation: Recommendation) -> tuple[tuple[str, Candidate], ...]:
    """What a reader wants side by side, in order, with the name of each; each candidate once."""
    named: list[tuple[str, Any]] = [
        ("untouched model", recommendation.base),
        ("trainers' defaults", recommendation.default),
        ("recommended, without averaging", recommendation.twin),
        ("recommended", recommendation.chosen),
        ("nearest", recommendation.nearest),
    ]
    return tuple((name, item) for name, item in named if item is not None)
