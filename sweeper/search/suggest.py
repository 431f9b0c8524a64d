"""Which optimizer settings to train next, given what every readout so far has measured.

The first settings are spread over the space by a Sobol sequence, because there is nothing to model yet.
Later ones come from an Optuna sampler. Its study is made anew each time: every readout of every trained
path is a finished trial with its constraints, every setting that is still trained a running one, so that
the sampler spreads out what runs at once (`constant_liar`). Same spec and records, same suggestions.
"""

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.samplers._ga import BaseGASampler
from optuna.trial import TrialState, create_trial
from scipy.stats import qmc

from sweeper.analysis import Candidate
from sweeper.planning import Point, readout_axes, trajectory_axes
from sweeper.search.study import outcome
from sweeper.spec import Axis, SweepSpec

MAX_ENUMERATED_POINTS = 4096
"""A space with more points than this is treated as if no point could be suggested twice."""

DIGITS = 4
"""Significant digits of a value that a sampler sees: training in another pack changes the last ones."""


class Observation(NamedTuple):
    """What one configuration has measured: the full point, the round that suggested it, the result."""

    point: Point
    round: int
    candidate: Candidate


def next_points(
    spec: SweepSpec,
    observations: Sequence[Observation],
    already_suggested: Sequence[Point],
    count: int,
    index: int,
    running: Sequence[Point] = (),
) -> list[Point]:
    """The optimizer settings to train next.

    Args:
        spec: Gives the axes, the sampler, the objectives and the constraints.
        observations: Every configuration that has ended, earlier runs included, in an order that does not
            depend on which worker was first.
        already_suggested: The settings suggested so far; none is suggested twice.
        count: How many are wanted.
        index: How often settings were suggested before.
        running: Those of the settings already suggested that have no observation yet.

    Returns:
        At most `count` settings: fewer where the space holds no others.
    """
    axes = {name: _Scale(axis) for name, axis in trajectory_axes(spec).items()}
    seen = {_key(point) for point in already_suggested}
    if spec.search.sampler in ("random", "qmc") or not observations:
        return _spread_points(spec, axes, seen, count)
    return _sampled_points(spec, axes, observations, seen, count, index, running)


class _Scale:
    """One axis as the samplers see it.

    Numbers that are listed become their place in the sorted list: their order is known, their distances
    are a matter of choice. Ranges stay ranges; what has no order is a choice.
    """

    def __init__(self, axis: Axis[Any]) -> None:
        self.axis = axis
        values = axis.values
        self.listed = None
        self.ordered = False
        if values is not None:
            numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            self.listed = sorted(values) if numeric else list(values)
            self.ordered = numeric

    @property
    def varies(self) -> bool:
        """Whether there is anything to choose."""
        return self.listed is None or len(self.listed) > 1

    def distribution(self) -> BaseDistribution:
        """Of `inner` values."""
        if self.listed is not None:
            last = len(self.listed) - 1
            return (
                IntDistribution(0, last)
                if self.ordered
                else CategoricalDistribution(tuple(range(last + 1)))
            )
        low, high, log = self.axis.low, self.axis.high, self.axis.log
        assert isinstance(low, int | float) and isinstance(high, int | float)
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(float(low), float(high), log=log)

    def inner(self, value: Any) -> Any:
        """A value of the axis as its distribution has it, or None where the axis does not hold it."""
        if self.listed is not None:
            return self.listed.index(value) if value in self.listed else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return value if number and self.axis.low <= value <= self.axis.high else None

    def outer(self, inner: Any) -> Any:
        """The value that an `inner` value stands for."""
        if self.listed is not None:
            return self.listed[int(inner)]
        return inner if isinstance(inner, int) else float(f"{inner:.12g}")

    def fraction(self, value: Any) -> float:
        """Where a value lies on the axis, in [0, 1]: for distances."""
        if self.listed is not None:
            return self.listed.index(value) / max(len(self.listed) - 1, 1)
        low, high = self.axis.low, self.axis.high
        assert isinstance(low, int | float) and isinstance(high, int | float)
        if high == low:
            return 0.0
        if self.axis.log:
            return math.log(value / low) / math.log(high / low)
        return (float(value) - low) / (high - low)


Scales = Mapping[str, _Scale]


def varying_axes(spec: SweepSpec) -> Scales:
    """The axes of a space with more than one value, of optimizer paths first."""
    axes = {**trajectory_axes(spec), **readout_axes(spec)}
    return {name: scale for name, axis in axes.items() if (scale := _Scale(axis)).varies}


def lies_in(point: Point, spec: SweepSpec) -> bool:
    """Whether a point has a value on every axis that varies; others may be anything."""
    varying = varying_axes(spec)
    return all(scale.inner(point.get(name)) is not None for name, scale in varying.items())


def _key(point: Point) -> str:
    return repr(sorted(point.items()))


def _spread_points(spec: SweepSpec, axes: Scales, seen: set[str], count: int) -> list[Point]:
    """The next points of a sequence that looks at no result: Sobol's, or uniform draws."""
    free = _free(axes, seen)
    wanted = count if free is None else min(count, len(free))
    points: list[Point] = []
    if spec.search.sampler == "random":
        rng = np.random.default_rng(spec.search.seed)
        draws = (rng.random(len(axes)) for _ in itertools.count())
    else:
        sobol = qmc.Sobol(len(axes), scramble=True, rng=spec.search.seed)
        draws = (sobol.random(1)[0] for _ in itertools.count())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Its balance needs powers of two.
        while len(points) < wanted:
            draw = next(draws)
            point = {n: s.axis.at(float(u)) for (n, s), u in zip(axes.items(), draw, strict=True)}
            if _key(point) not in seen:
                seen.add(_key(point))
                points.append(point)
    return points


def _sampled_points(
    spec: SweepSpec,
    axes: Scales,
    observations: Sequence[Observation],
    seen: set[str],
    count: int,
    index: int,
    running: Sequence[Point],
) -> list[Point]:
    """Suggestions of the sampler; the nearest free setting where one was suggested before."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = _sampler(spec, index, count)
    readouts = {name: _Scale(axis) for name, axis in readout_axes(spec).items()}
    varying = varying_axes(spec)
    study = optuna.create_study(
        directions=[objective.direction for objective in spec.objectives], sampler=sampler
    )
    study.add_trials(
        [trial for item in observations if (trial := _trial(item, varying, spec, sampler))]
    )
    fixed = {name: axes[name].axis.at(0.0) for name in axes if name not in varying}
    space = {name: scale.distribution() for name, scale in varying.items()}
    rng = np.random.default_rng([spec.search.seed, index])
    for other in running:  # As if one readout of each was asked for.
        drawn = {name: scale.axis.at(rng.random()) for name, scale in readouts.items()}
        params = {n: s.inner({**drawn, **other}[n]) for n, s in varying.items()}
        study.add_trial(create_trial(state=TrialState.RUNNING, params=params, distributions=space))
    points: list[Point] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for _ in range(count):
            free = _free(axes, seen)
            if free == []:
                break
            suggested = study.ask(space)
            chosen = {n: varying[n].outer(suggested.params[n]) for n in axes if n in varying}
            point: Point = {name: {**fixed, **chosen}[name] for name in axes}
            if _key(point) in seen and free is not None:
                study.tell(suggested, state=TrialState.FAIL)
                point = min(free, key=lambda other: _distance(axes, point, other))
                inner = {n: varying[n].inner(point[n]) for n in axes if n in varying}
                params = {**suggested.params, **inner}
                study.add_trial(
                    create_trial(state=TrialState.RUNNING, params=params, distributions=space)
                )
            seen.add(_key(point))
            points.append(point)
    return points


def _free(axes: Scales, seen: set[str]) -> list[Point] | None:
    """The settings not suggested yet, or None where they are too many to run out of."""
    listed = [scale.listed for scale in axes.values()]
    if any(values is None for values in listed):
        return None
    if math.prod(len(values or ()) for values in listed) > MAX_ENUMERATED_POINTS:
        return None
    combined = itertools.product(*(values or () for values in listed))
    points = (dict(zip(axes, values, strict=True)) for values in combined)
    return [point for point in points if _key(point) not in seen]


def _distance(axes: Scales, one: Point, other: Point) -> float:
    """Squared distance over the axes, each of length 1; without an order, values differ by 1."""
    return sum(
        (scale.fraction(one[name]) - scale.fraction(other[name])) ** 2
        if scale.ordered or scale.listed is None
        else float(one[name] != other[name])
        for name, scale in axes.items()
    )


def _sampler(spec: SweepSpec, index: int, count: int) -> BaseSampler:
    seed = int(np.random.SeedSequence([spec.search.seed, index]).generate_state(1)[0])
    kind = spec.search.sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "nsga2":
            return NSGAIISampler(population_size=max(2, count), seed=seed)
        if kind == "nsga3":
            return NSGAIIISampler(population_size=max(2, count), seed=seed)
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1)
        return TPESampler(seed=seed, n_startup_trials=1, multivariate=True, constant_liar=True)


def _trial(
    item: Observation, varying: Scales, spec: SweepSpec, sampler: BaseSampler
) -> optuna.trial.FrozenTrial | None:
    """A configuration as a finished trial, or None where it lies outside the space (of a warm start)."""
    params = {name: scale.inner(item.point[name]) for name, scale in varying.items()}
    if any(value is None for value in params.values()):
        return None
    result = outcome(item.candidate, spec)
    return create_trial(
        state=result.state,
        values=result.values and [float(f"{value:.{DIGITS}g}") for value in result.values],
        params=params,
        distributions={name: scale.distribution() for name, scale in varying.items()},
        constraints=result.violations,
        # What a genetic sampler writes down itself, in a study of one process.
        system_attrs={sampler._get_generation_key(): item.round}
        if isinstance(sampler, BaseGASampler)
        else None,
    )
