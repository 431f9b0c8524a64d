"""Adds seeds for undecided configurations, the most informative paths first.

A configuration is undecided if its front membership is `uncertain`, or if a constraint is neither met nor
violated with the required confidence. The variance p (1 - p) of such a probability bounds what a further
training run can gain. Configurations of one path share its cost, so paths are ranked by the sum of these
variances per optimizer step. A new seed trains a path up to its last undecided readout.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import BASE_ROLE, Candidate, Certainty, find_front, front_certainty
from sweeper.errors import RunFolderError
from sweeper.planning import Plan, Point, Trajectory, make_plan
from sweeper.search.rounds import append_decision, read_decisions
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records


class Part(NamedTuple):
    """Configurations of one path, trained again under one new seed, and its optimizer steps."""

    seed: int
    config_ids: tuple[str, ...]
    steps: int


class State(NamedTuple):
    """The certainty of a front: membership counts, undecided ones, hypervolume with 95 % interval."""

    on: int
    uncertain: int
    off: int
    undecided: int
    hypervolume: tuple[float, float, float] | None


class Refinement(NamedTuple):
    """One round of further seeds, and the state that led to it."""

    parts: tuple[Part, ...]
    before: State


def refined_plans(
    spec: SweepSpec, folder: RunFolder, points: Sequence[Point] | None
) -> Iterator[list[Plan]]:
    """Yield the plans of all refinements so far, once after each round, based on the records so far.

    Args:
        spec: A spec with `search.refine`.
        folder: The run folder; its first pass must have finished.
        points: The optimizer settings of an adaptive search; None for a grid.

    Raises:
        RunFolderError, RecordError: the files in the folder are damaged.
    """
    rounds = list(read_refinements(folder))
    if rounds:
        yield _plans(spec, points, rounds)
    while (refinement := _next(spec, folder, points, rounds)) is not None:
        rounds.append(refinement)
        append_decision(folder.refinements, _to_data(refinement))
        yield _plans(spec, points, rounds)


def read_refinements(folder: RunFolder) -> tuple[Refinement, ...]:
    """The rounds of further seeds so far.

    Raises:
        RunFolderError: the file is damaged or cannot be read.
    """
    try:
        return tuple(map(_from_data, read_decisions(folder.refinements)))
    except (KeyError, TypeError, ValueError):
        raise RunFolderError(
            f"{folder.refinements} is damaged: expected refinements; start over with --overwrite",
            code="run.damaged",
            path=folder.refinements,
        ) from None


class RefinementRow(NamedTuple):
    """The state after a round, with the paths and optimizer steps used so far."""

    paths: int
    spent: int
    state: State


def refinement_rows(
    folder: RunFolder, spec: SweepSpec, records: Sequence[TrialRecord]
) -> tuple[RefinementRow, ...]:
    """The state before the first round, after each round, and now; empty without refinements.

    Raises:
        RunFolderError: see `read_refinements`.
    """
    rounds = read_refinements(folder)
    if not rounds:
        return ()
    front = find_front(records, spec)
    states = [item.before for item in rounds]
    states.append(state_of(front_certainty(front, spec), front.competing, spec))
    parts = [0, *itertools.accumulate(len(item.parts) for item in rounds)]
    steps = [0, *itertools.accumulate(sum(p.steps for p in item.parts) for item in rounds)]
    return tuple(map(RefinementRow, parts, steps, states))


def state_of(certainty: Certainty, front_items: Sequence[Candidate], spec: SweepSpec) -> State:
    """The current state of a front."""
    volume = certainty.hypervolume
    return State(
        certainty.count("on"),
        certainty.count("uncertain"),
        certainty.count("off"),
        len(undecided(certainty, front_items, spec)),
        None if volume is None else (volume.value, volume.interval.low, volume.interval.high),
    )


def undecided(
    certainty: Certainty, items: Sequence[Candidate], spec: SweepSpec
) -> dict[str, float]:
    """The uncertainty of each undecided configuration: the sum of p (1 - p) of its open questions.

    Args:
        certainty: The certainty of the front.
        items: Its complete candidates.
        spec: Gives the constraints and their confidences.
    """
    found = {}
    for item in items:
        membership = certainty.memberships.get(item.config_id)
        if item.role == BASE_ROLE or membership is None:
            continue
        doubts = [membership.p_front] if membership.label == "uncertain" else []
        doubts += [
            p
            for p, constraint in zip(item.probabilities, spec.constraints, strict=True)
            if 1 - constraint.confidence < p < constraint.confidence
        ]
        if doubts:
            found[item.config_id] = sum(p * (1 - p) for p in doubts)
    return found


def _next(
    spec: SweepSpec,
    folder: RunFolder,
    points: Sequence[Point] | None,
    rounds: Sequence[Refinement],
) -> Refinement | None:
    """The next round, or None if everything is decided or the budget is exhausted."""
    refine = spec.search.refine
    assert refine is not None
    front = find_front(read_records(folder.records).records, spec)
    certainty = front_certainty(front, spec)
    open_questions = undecided(certainty, front.competing, spec)
    left = refine.budget - sum(part.steps for item in rounds for part in item.parts)
    used = Counter(config_id for r in rounds for part in r.parts for config_id in part.config_ids)
    first = spec.model_copy(update={"seeds": spec.seeds[:1]})
    wanted = []
    for trajectory in make_plan(first, points).trajectories:
        part = _part(trajectory, open_questions, used, spec)
        if part is not None:
            worth = sum(open_questions[config_id] for config_id in part.config_ids)
            wanted.append((-worth / part.steps, part))
    parts: list[Part] = []
    for _, part in sorted(wanted):
        if part.steps <= left and len(parts) < refine.batch_size:
            parts.append(part)
            left -= part.steps
    if not parts:
        return None
    return Refinement(tuple(parts), state_of(certainty, front.competing, spec))


def _part(
    trajectory: Trajectory, doubts: Mapping[str, float], used: Mapping[str, int], spec: SweepSpec
) -> Part | None:
    """The undecided readouts of a path with its next seed, or None if there are none."""
    assert spec.search.refine is not None
    most = spec.search.refine.max_seeds - len(spec.seeds)
    times = max((used.get(item.config_id, 0) for item in trajectory.configurations), default=0)
    chosen = [item for item in trajectory.configurations if item.config_id in doubts]
    if not chosen or times >= most:
        return None
    ids = tuple(item.config_id for item in chosen)
    tails = len(trajectory.segments) > 1
    steps = trajectory.steps if tails else max(item.step for item in chosen)
    return Part(max(spec.seeds) + 1 + times, ids, steps)


def _plans(
    spec: SweepSpec, points: Sequence[Point] | None, rounds: Sequence[Refinement]
) -> list[Plan]:
    return [
        make_plan(spec.model_copy(update={"seeds": (part.seed,)}), points, part.config_ids)
        for item in rounds
        for part in item.parts
    ]


def _to_data(item: Refinement) -> dict[str, Any]:
    return {"parts": [part._asdict() for part in item.parts], "before": item.before._asdict()}


def _from_data(raw: Any) -> Refinement:
    parts = (Part(int(p["seed"]), tuple(p["config_ids"]), int(p["steps"])) for p in raw["parts"])
    before = dict(raw["before"])
    volume = before.pop("hypervolume")
    return Refinement(tuple(parts), State(**before, hypervolume=volume and tuple(volume)))
