"""Adds seeds: for the configuration that would be recommended now, then for undecided ones.

The would-be choice is trained again before anything else, and so is whatever takes its place when the new
seeds speak against it, until it has `max_seeds`: the best of many, known from one training, is the one most
likely to disappoint.

Then come undecided configurations, the most informative paths first. One is undecided if its front
membership is `uncertain`, or if a constraint is neither met nor violated with the required confidence. The
variance p (1 - p) of such a probability bounds what a further training run can gain. Configurations of one
path share its cost, so paths are ranked by the sum of these variances per optimizer step. A new seed trains
a path up to its last undecided readout.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import (
    BASE_ROLE,
    Candidate,
    Certainty,
    Front,
    find_front,
    front_certainty,
    recommend,
)
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
    """One round of further seeds, and the state that led to it.

    `choice` is the would-be recommendation that the round is for; None in a round for the undecided.
    """

    parts: tuple[Part, ...]
    before: State
    choice: str | None = None


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
    plans = [plan for item in rounds for plan in _plans(spec, points, item)]
    if rounds:
        yield list(plans)
    while (refinement := _next(spec, folder, points, rounds)) is not None:
        rounds.append(refinement)
        append_decision(folder.refinements, _to_data(refinement))
        plans += _plans(spec, points, refinement)
        yield list(plans)


def has_refinement_left(spec: SweepSpec, folder: RunFolder, points: Sequence[Point] | None) -> bool:
    """Whether `refined_plans` has more to measure or to decide; nothing is written.

    Args and errors: see `refined_plans`.
    """
    rounds = read_refinements(folder)
    parts = [part for item in rounds for part in item.parts]
    wanted = {(config_id, part.seed) for part in parts for config_id in part.config_ids}
    known = {record.key for record in read_records(folder.records).records}
    return not wanted <= known or _next(spec, folder, points, rounds) is not None


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

    P(on front) is taken in the middle of its bounds.

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
        middle = (membership.p_front + membership.p_front_upper) / 2
        doubts = [middle] if membership.label == "uncertain" else []
        doubts += [
            p
            for p, constraint in zip(item.probabilities, spec.constraints, strict=True)
            if 1 - constraint.confidence < p < constraint.confidence
        ]
        if doubts:
            found[item.config_id] = sum(p * (1 - p) for p in doubts)
    return found


def would_be_choice(front: Front, spec: SweepSpec) -> Candidate | None:
    """What would be recommended now: with all comparisons accounted for, else alone, else the nearest one.

    The nearest one only while no constraint is violated with the required confidence.
    """
    found = recommend(front, spec)
    if found.chosen is not None or found.ranked:
        return found.chosen or found.ranked[0]
    nearest = found.nearest
    if nearest is None or nearest.role == BASE_ROLE:
        return None
    chances = zip(nearest.probabilities, spec.constraints, strict=True)
    is_open = all(p > 1 - constraint.confidence for p, constraint in chances)
    return nearest if is_open else None


def _next(
    spec: SweepSpec,
    folder: RunFolder,
    points: Sequence[Point] | None,
    rounds: Sequence[Refinement],
) -> Refinement | None:
    """The next round, or None if everything is decided or the budget is exhausted."""
    assert spec.search.refine is not None
    front = find_front(read_records(folder.records).records, spec)
    certainty = front_certainty(front, spec)
    doubts = undecided(certainty, front.competing, spec)
    first = spec.model_copy(update={"seeds": spec.seeds[:1]})
    paths = make_plan(first, points).trajectories
    earlier = [part for item in rounds for part in item.parts]
    left = spec.search.refine.budget - sum(part.steps for part in earlier)
    choice = would_be_choice(front, spec)
    before = state_of(certainty, front.competing, spec)
    if choice is not None:
        parts = _parts_of_choice(choice.config_id, paths, doubts, earlier, spec, left)
        if parts:
            return Refinement(parts, before, choice.config_id)
    parts = _parts_of_doubts(paths, doubts, earlier, spec, left)
    return Refinement(parts, before) if parts else None


def _parts_of_choice(
    config_id: str,
    paths: Sequence[Trajectory],
    doubts: Mapping[str, float],
    earlier: Sequence[Part],
    spec: SweepSpec,
    left: int,
) -> tuple[Part, ...]:
    """The path of the choice under seeds it lacks, as many as a round takes and the budget allows.

    After a single training one more comes first: many choices do not survive it. Undecided readouts before
    it come with it, since they cost nothing.
    """
    refine = spec.search.refine
    assert refine is not None
    holders = (t for t in paths if any(item.config_id == config_id for item in t.configurations))
    path = next(holders, None)
    if path is None:
        return ()
    last = next(item.step for item in path.configurations if item.config_id == config_id)
    steps = _steps(path, last)
    read = [i for i in path.configurations if i.step <= last or steps == path.steps]
    wanted = [i.config_id for i in read if i.config_id == config_id or i.config_id in doubts]
    seeds = _seeds_left(config_id, earlier, spec)
    alone = len(seeds) == refine.max_seeds - 1
    count = min(1 if alone else refine.batch_size, left // steps if steps else 0)
    return tuple(
        Part(seed, tuple(i for i in wanted if seed in _seeds_left(i, earlier, spec)), steps)
        for seed in seeds[:count]
    )


def _parts_of_doubts(
    paths: Sequence[Trajectory],
    doubts: Mapping[str, float],
    earlier: Sequence[Part],
    spec: SweepSpec,
    left: int,
) -> tuple[Part, ...]:
    """Undecided readouts of paths under one more seed each, most of p (1 - p) per step first."""
    assert spec.search.refine is not None
    wanted = []
    for path in paths:
        open_ones = [item for item in path.configurations if item.config_id in doubts]
        lacking = {i.config_id: _seeds_left(i.config_id, earlier, spec) for i in open_ones}
        if any(lacking.values()):
            seed = min(seeds[0] for seeds in lacking.values() if seeds)
            chosen = [item for item in open_ones if seed in lacking[item.config_id]]
            steps = _steps(path, max(item.step for item in chosen))
            part = Part(seed, tuple(item.config_id for item in chosen), steps)
            wanted.append((-sum(doubts[name] for name in part.config_ids) / steps, part))
    parts: list[Part] = []
    for _, part in sorted(wanted):
        if part.steps <= left and len(parts) < spec.search.refine.batch_size:
            parts.append(part)
            left -= part.steps
    return tuple(parts)


def _steps(path: Trajectory, last: int) -> int:
    """What training a path up to a readout costs; with decay tails, the whole of it."""
    return path.steps if len(path.segments) > 1 else last


def _seeds_left(config_id: str, earlier: Sequence[Part], spec: SweepSpec) -> list[int]:
    """The further seeds that a configuration may have and does not.

    Readouts of one path get the same ones, also where it is trained again for the second of them. A
    decision stage uses seeds beyond these.
    """
    assert spec.search.refine is not None
    first = max(spec.seeds) + 1
    used = {part.seed for part in earlier if config_id in part.config_ids}
    further = range(first, first + spec.search.refine.max_seeds - len(spec.seeds))
    return [seed for seed in further if seed not in used]


def _plans(spec: SweepSpec, points: Sequence[Point] | None, item: Refinement) -> list[Plan]:
    return [
        make_plan(spec.model_copy(update={"seeds": (part.seed,)}), points, part.config_ids)
        for part in item.parts
    ]


def _to_data(item: Refinement) -> dict[str, Any]:
    parts = [part._asdict() for part in item.parts]
    return {"parts": parts, "before": item.before._asdict(), "choice": item.choice}


def _from_data(raw: Any) -> Refinement:
    parts = (Part(int(p["seed"]), tuple(p["config_ids"]), int(p["steps"])) for p in raw["parts"])
    before = dict(raw["before"])
    volume = before.pop("hypervolume")
    state = State(**before, hypervolume=volume and tuple(volume))
    return Refinement(tuple(parts), state, raw.get("choice"))
