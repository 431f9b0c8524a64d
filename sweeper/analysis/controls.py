"""The controls of a configuration among all candidates, and how it differs from them."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sweeper.analysis.candidate import Candidate
from sweeper.analysis.front import Front
from sweeper.analysis.paired_tests import PairedDifference, paired_difference
from sweeper.planning import default_control
from sweeper.spec import FeedbackAverage, ResultsSpec, SweepSpec


def trainers_default(front: Front, spec: ResultsSpec) -> Candidate | None:
    """The trainers' defaults among the candidates, also where they are a point of the space."""
    same = default_control(spec).config_id if isinstance(spec, SweepSpec) else None
    found = (i for i in front.candidates if i.role == "default" or i.config_id == same)
    return next(found, None)


def unaveraged_control(candidate: Candidate, candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate that differs in `average` alone, without averaging; None where there is none."""
    if candidate.config.get("average", "raw") == "raw":
        return None
    raw = (other for other in candidates if other.config.get("average") == "raw")
    return next((other for other in raw if _same_but(candidate, other, "average")), None)


def interpolation_control(
    candidate: Candidate, candidates: Iterable[Candidate]
) -> Candidate | None:
    """The candidate that mixes theta_0 in with the weight that an EMA leaves on it, decay^steps."""
    if candidate.readout["kind"] != "ema":
        return None
    weight = candidate.readout["decay"] ** candidate.steps
    mixed = (
        other
        for other in candidates
        if other.readout["kind"] == "interpolate"
        and math.isclose(other.readout["weight"], weight, rel_tol=1e-5)
    )
    return next((other for other in mixed if _same_but(candidate, other, "average")), None)


def learning_rate_control(
    candidate: Candidate, candidates: Iterable[Candidate], spec: ResultsSpec
) -> Candidate | None:
    """Plain training at learning_rate * (1 - decay), which equals feedback at every step."""
    feedback = feedback_of(candidate, spec)
    if feedback is None:
        return None
    rate = candidate.config["learning_rate"] * (1 - feedback.decay)
    slower = (
        other
        for other in candidates
        if other.config.get("average") == "raw"
        and math.isclose(other.config["learning_rate"], rate, rel_tol=1e-9)
    )
    names = ("average", "learning_rate")
    return next((other for other in slower if _same_but(candidate, other, *names)), None)


def feedback_of(candidate: Candidate, spec: ResultsSpec) -> FeedbackAverage | None:
    """The feedback EMA of a configuration, unrounded, as in the spec."""
    label = candidate.config.get("average")
    return next((average for average in spec.feedbacks if average.label == label), None)


def _same_but(candidate: Candidate, other: Candidate, *names: str) -> bool:
    """Whether two configurations differ in the named hyperparameters alone."""
    mine, its = candidate.config, other.config
    # Called for very many pairs, most of which differ early.
    same = all(k in its and its[k] == v for k, v in mine.items() if k not in names)
    return same and mine.keys() - names == its.keys() - names


class Contrast(NamedTuple):
    """A configuration minus another one, on the same prompts and rows; None where one was not measured."""

    name: str
    other: Candidate
    unsafe: PairedDifference | None
    utility: PairedDifference | None


def controls(
    candidate: Candidate, front: Front, spec: ResultsSpec
) -> tuple[tuple[str, Candidate], ...]:
    """The controls of a configuration that the records hold, with the name of each."""
    named = {
        "without averaging": unaveraged_control(candidate, front.candidates),
        "interpolation with the same weight": interpolation_control(candidate, front.candidates),
        "matched learning rate": learning_rate_control(candidate, front.candidates, spec),
        "trainers' defaults": trainers_default(front, spec),
        "untouched model": front.base,
    }
    return tuple(
        (name, other)
        for name, other in named.items()
        if other is not None and other is not candidate
    )


def contrasts(candidate: Candidate, front: Front, spec: ResultsSpec) -> tuple[Contrast, ...]:
    """A configuration minus each of its controls, in safety and utility."""
    return contrasts_with(candidate, controls(candidate, front, spec), spec, front.candidates)


def contrasts_with(
    candidate: Candidate,
    others: Iterable[tuple[str, Candidate | None]],
    spec: ResultsSpec,
    among: Sequence[Candidate] = (),
) -> tuple[Contrast, ...]:
    """A configuration minus each of the named others that exist and are not the same one.

    `among` are all candidates of the sweep, see `paired_difference`.
    """
    return tuple(
        Contrast(
            name,
            other,
            paired_difference(candidate, other, spec.safety.metric, among=among),
            paired_difference(candidate, other, spec.utility.metric, among=among),
        )
        for name, other in others
        if other is not None and other is not candidate
    )
