"""A configuration over its seeds, its values as losses, and its texts for people."""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeper.errors import RunFolderError
from sweeper.metrics import is_sampled, metric_text, range_text
from sweeper.spec import Constraint, Objective
from sweeper.stats import Interval, wilson_interval
from sweeper.store.records import Metric, TrialRecord
from sweeper.task import configuration_name

BASE_ROLE = "base"
CANDIDATE_ROLE = "candidate"

ABSENT = "not measured"
"""What stands for a metric without a value."""

MOST_NAMED = 5
"""How many of several matches a message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One configuration over its seeds.

    `values` maps every metric measured and finite under all seeds to its mean over them. `excluded`
    says why the candidate cannot be on the front. `probabilities` holds P(rate <= max) of the measured
    weights, the smallest over seeds, for each of the spec's constraints in order, `probability` the one
    with the smallest margin over its confidence. `gain` is False where the utility is not above the base
    model's, None where there is no base model to compare with.
    """

    config_id: str
    role: str
    config: Mapping[str, Any]
    readout: Mapping[str, Any]
    records: tuple[TrialRecord, ...]
    values: Mapping[str, float]
    seeds: tuple[int, ...]
    excluded: str | None
    probabilities: tuple[float, ...]
    probability: float
    margin: float
    feasible: bool
    gain: bool | None = None
    gain_evidence: str = ""

    def __repr__(self) -> str:
        """One line, without the records."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in list(self.values.items())[:3])
        return f"<Candidate {self.config_id}: {self.role}, {self.status}{values and f', {values}'}>"

    @property
    def status(self) -> str:
        """`complete` when every record is, else the first status that is not."""
        return next((r.status for r in self.records if r.status != "complete"), "complete")

    @property
    def steps(self) -> int:
        """Optimizer steps before the readout."""
        return int(self.readout["step"])

    def measured(self, metric: str) -> tuple[Metric, ...]:
        """The metric under each seed that has it, in the order of `seeds`."""
        return tuple(r.metrics[metric] for r in self.records if metric in r.metrics)

    def interval(self, metric: str, confidence: float = 0.95) -> Interval | None:
        """Envelope over seeds of the Wilson intervals of a metric that has them, two-sided.

        For a rate this is its score interval; for a mean of [0, 1] scores (`rouge_l`) the interval
        of the largest variance such scores can have. None for what is no mean over independent
        prompts or rows: losses, and the token accuracy, because tokens of one row depend on each other.
        """
        found = self.measured(metric)
        if not found or not self.is_sampled(metric):
            return None
        each = [wilson_interval(*_count(item), confidence) for item in found]
        return Interval(min(item.low for item in each), max(item.high for item in each))

    def is_sampled(self, metric: str) -> bool:
        """Whether a metric is a mean over independent prompts or rows, of a known number of them."""
        found = self.measured(metric)
        known = all(m.n is not None for m in found)
        return known and is_sampled(metric, counted=all(m.k is not None for m in found))

    def size(self, metric: str) -> int | None:
        """The fewest prompts, rows or tokens of any seed that has the metric; None where one is unknown."""
        sizes = [m.n for m in self.measured(metric)]
        known = [n for n in sizes if n is not None]
        return min(known) if known and len(known) == len(sizes) else None

    def counts(self, metric: str) -> str:
        """`k/n` under each seed, with how many a judge left unanswered; empty for what is no rate."""
        rates = [(record.metrics.get(metric), record.unanswered(metric)) for record in self.records]
        return ", ".join(
            f"{rate.k}/{rate.n}" + (f" ({unanswered} unanswered)" if unanswered else "")
            for rate, unanswered in rates
            if rate is not None and rate.k is not None
        )


def _count(metric: Metric) -> tuple[float, int]:
    """The k of a rate, or n times the mean of any other [0, 1] score; and n, which is known."""
    assert metric.n is not None
    return metric.value * metric.n if metric.k is None else metric.k, metric.n


def losses(items: Sequence[Candidate], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Objective values of shape (items, objectives), all to be minimised."""
    return np.array([[loss(item, objective) for objective in objectives] for item in items])


def loss(candidate: Candidate, objective: Objective) -> float:
    """One objective of a complete candidate, to be minimised."""
    value = candidate.values[objective.metric]
    return value if objective.direction == "minimize" else -value


def varying(candidates: Iterable[Candidate], role: str | None = None) -> tuple[str, ...]:
    """The hyperparameters with more than one value, in config order, among trained candidates.

    `role="candidate"` looks at the points of the space only: controls may vary in other hyperparameters.
    """
    return _varying(tuple(candidates), role)


@lru_cache(maxsize=4)
def _varying(candidates: tuple[Candidate, ...], role: str | None) -> tuple[str, ...]:
    """Kept, because every part of a report asks for the same candidates."""
    first: dict[str, Any] = {}
    found: set[str] = set()
    for item in candidates:
        if item.role != BASE_ROLE and role in (None, item.role):
            for name, value in item.config.items():
                known = first.setdefault(name, value)
                if name not in found and known is not value and repr(known) != repr(value):
                    found.add(name)
    return tuple(name for name in first if name in found)


def name_of(candidate: Candidate, swept: Collection[str]) -> str:
    """`lr 4e-3, batch 16, 200 steps, 15 % original`; of a control also which it is.

    Args:
        candidate: Any configuration of a run.
        swept: The hyperparameters that vary: `varying(candidates, CANDIDATE_ROLE)`.
    """
    if candidate.role == BASE_ROLE:
        return "untouched model"
    name = configuration_name(candidate.config, swept) or "the only configuration"
    role = "trainers' defaults" if candidate.role == "default" else candidate.role.replace("_", " ")
    return name if candidate.role == CANDIDATE_ROLE else f"{name} ({role})"


def describe(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """`learning_rate 2e-05, max_steps 40, ...` for the hyperparameters named."""
    return ", ".join(f"{name} {shown(config[name])}" for name in names if name in config)


def shown(value: Any) -> str:
    """A hyperparameter as text, with at most six significant digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def reason_text(record: TrialRecord) -> str:
    """Why a record is not complete, in one line: the traceback stays in the record."""
    parts = [
        f"{name} {', '.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in (record.reason or {}).items()
        if name != "traceback"
    ]
    return "; ".join(parts) or "no reason given"


def measured_text(
    candidate: Candidate, metric: str, *, interval: bool = False, label: str = ""
) -> str:
    """A metric as every surface shows it: `1.2 % (3/240)`, one count for each seed; `0.833`.

    With `interval` also the 95 % interval, where there is one: `1.2 % (3/240, 0.4 to 3.6 %)`; `label`
    is written before it.
    """
    value = candidate.values.get(metric)
    if value is None:
        return ABSENT
    between = candidate.interval(metric) if interval else None
    bounds = "" if between is None else label + range_text(metric, *between)
    detail = ", ".join(filter(None, (candidate.counts(metric), bounds)))
    return metric_text(metric, value) + (f" ({detail})" if detail else "")


def rate_text(candidate: Candidate, metric: str) -> str:
    """`unsafe_rate 0.8 % (2/256, 95 % interval 0.2 to 2.8 %)`, for sentences."""
    return f"{metric} {measured_text(candidate, metric, interval=True, label='95 % interval ')}"


def constraint_text(candidate: Candidate, index: int, constraint: Constraint) -> str:
    """`P(unsafe_rate <= 0.05) = 0.998 for these weights`, or that a seed has no measured rate."""
    if constraint.metric not in candidate.values:
        return f"{constraint.metric} <= {constraint.max:g}: not measured"
    return f"P({constraint.metric} <= {constraint.max:g}) = {share_text(candidate.probabilities[index])}"


def share_text(probability: float) -> str:
    """Three digits, never rounded to 1."""
    if 0.9995 <= probability < 1:
        return "more than 0.999"
    return f"{probability:.3f}"


def valued(candidate: Candidate, candidates: Iterable[Candidate]) -> str:
    """`3f2a... (learning_rate 0.002, max_steps 40)`: the id, and the hyperparameters that vary."""
    values = describe(candidate.config, varying(candidates, CANDIDATE_ROLE))
    return f"{candidate.config_id} ({values})" if values else candidate.config_id


def find_candidate(candidates: Sequence[Candidate], text: str, where: str) -> Candidate:
    """A configuration by id or by an unambiguous prefix of it.

    Args:
        candidates: Of a run.
        text: The id or a prefix of it.
        where: The run, for the message.

    Raises:
        RunFolderError: none or several match; the nearest, or some of the several, are named.
    """
    found = [item for item in candidates if item.config_id.startswith(text)]
    exact = [item for item in found if item.config_id == text]
    if exact or (len(found) == 1 and text):
        return (exact or found)[0]
    if found:
        some = ", ".join(item.config_id for item in found[:MOST_NAMED])
        more = ", ..." if len(found) > MOST_NAMED else ""
        hint = f"give a longer prefix: {some}{more}"
    else:
        names = [item.config_id for item in candidates]
        # An id is short and random: a typo can be in any letter, not only in the last ones.
        near = difflib.get_close_matches(text, names, n=1, cutoff=0.0)
        hint = f"the nearest is `{near[0]}`" if near else "it has no records yet"
    count = f"{len(found)} configurations" if found else "no configuration"
    raise RunFolderError(
        f"{count} of {where} start{'' if found else 's'} with `{text}`; {hint}; "
        "`sweeper front` lists the best"
    )
