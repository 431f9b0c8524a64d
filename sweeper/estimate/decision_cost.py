"""What the decision at the end of a sweep costs, before anything is known of its candidates."""

from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from sweeper.estimate.estimate import Estimate, makespan, trajectory_seconds
from sweeper.estimate.rates import Tokens
from sweeper.planning import Plan, Trajectory
from sweeper.spec import SweepSpec


class WalkCost(NamedTuple):
    """Optimizer steps and readouts of a walk, and its time; the times are None without an estimate.

    `seconds` pass on the clock, `worker_seconds` are the sum over its trials.
    """

    steps: int
    readouts: int
    seconds: float | None
    worker_seconds: float | None = None


class DecisionCost(NamedTuple):
    """What a decision costs: `first` if the best configuration holds, `longest` if only the last one does.

    The configuration that holds is trained under the seeds of the search, too. Which configurations are
    tested is not known before the search: counted are the paths with the most steps, each to its end, with
    one tested configuration and its control read from each.
    """

    first: WalkCost
    longest: WalkCost


def decision_cost(plan: Plan, spec: SweepSpec, cost: Estimate | None) -> DecisionCost | None:
    """The cost of the decision of a sweep; None where it has none.

    Args:
        plan: Of the search.
        spec: Of the sweep.
        cost: The estimate of the search, whose rates are used.
    """
    if not spec.decide or not spec.constraints:
        return None
    cost, seeds, old = _of_decision(spec, cost), spec.decide.seeds, len(spec.seeds)
    paths = _paths(plan, spec)
    each = [_walk([(path, seeds), (path, old)], cost) for path in paths]
    all_tested = [(path, seeds) for path in paths[: spec.decide.candidates]]
    longest = _walk([*all_tested, (paths[0], old)], cost)
    known = [walk.seconds for walk in each if walk.seconds is not None]
    sums = [walk.worker_seconds for walk in each if walk.worker_seconds is not None]
    first = WalkCost(
        round(fmean(walk.steps for walk in each)),
        round(fmean(walk.readouts for walk in each)),
        fmean(known) if known else None,
        fmean(sums) if sums else None,
    )
    return DecisionCost(first, longest)


def dearest_first(plan: Plan, spec: SweepSpec, cost: Estimate) -> WalkCost | None:
    """The `first` of `decision_cost` if it is on the path that takes longest; None without a decision."""
    if not spec.decide or not spec.constraints:
        return None
    rounds = [(_paths(plan, spec)[0], seeds) for seeds in (spec.decide.seeds, len(spec.seeds))]
    return _walk(rounds, _of_decision(spec, cost))


def _paths(plan: Plan, spec: SweepSpec) -> list[Trajectory]:
    """Those that candidates are read from, the longest first."""
    paths = [
        item
        for item in plan.trajectories
        if item.seed == spec.seeds[0] and any(c.role == "candidate" for c in item.configurations)
    ]
    return sorted(paths, key=lambda item: -item.steps * item.settings.batch_size)


def _of_decision(spec: SweepSpec, cost: Estimate | None) -> Estimate | None:
    """The estimate with the prompts of the decision."""
    if cost is None or not spec.decide:
        return None
    return replace(cost, tokens=_tokens(spec, spec.decide.rows, cost.tokens))


def _tokens(spec: SweepSpec, rows: int | None, tokens: Tokens) -> Tokens:
    """The tokens of a readout of the decision, which may answer more prompts than the search."""
    more = sum(
        rows - suite.rows
        for suite in spec.constrained_suites
        if rows is not None and suite.rows is not None
    )
    return tokens._replace(generated=tokens.generated * (1 + more / tokens.prompts))


def _walk(rounds: list[tuple[Trajectory, int]], cost: Estimate | None) -> WalkCost:
    """Rounds one after the other, each a path under some seeds."""
    seconds = worker_seconds = None
    if cost is not None:
        seconds = cost.rates.startup_seconds
        worker_seconds = seconds * cost.workers
        for path, seeds in rounds:
            train, evaluate, load = trajectory_seconds(path, cost.rates, cost.tokens)
            each = train + load + 2 * evaluate / len(path.configurations)
            seconds += makespan([each] * seeds, cost.workers)
            worker_seconds += each * seeds
    return WalkCost(
        sum(path.steps * seeds for path, seeds in rounds),
        sum(2 * seeds for _, seeds in rounds),
        seconds,
        worker_seconds,
    )
