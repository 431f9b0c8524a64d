"""The top of the report: the cost of the sweep, and warnings."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import UNTOUCHED, Front, Recommendation
from sweeper.estimate import duration_text, saved, spent
from sweeper.judges import RejudgedRecords
from sweeper.spec import ResultsSpec, SweepSpec
from sweeper.stats import largest_passing_count, wilson_interval
from sweeper.store.records import TrialRecord

ENOUGH_PROMPTS = 100
ENOUGH_SEEDS = 3


def facts(
    front: Front, accounting: Mapping[str, Any], records: Sequence[TrialRecord]
) -> tuple[tuple[str, str], ...]:
    """The few numbers of a sweep: how much was compared, what it cost, what sharing saved."""
    rows = [("configurations compared", f"{len(front.competing):,}")]
    if "trajectories" in accounting:
        rows.append(("training runs", f"{accounting['trajectories']:,}"))
    cost = spent(records)
    if cost.records and cost.seconds:
        rows.append(("worker time spent", duration_text(cost.seconds)))
    if "ratio" in accounting:
        steps = accounting.get("steps_alone", 0) - accounting.get("steps_planned", 0)
        least = f"at least {accounting['ratio']:.1f}-fold"
        rows.append(("saved by sharing", f"{least}, {max(0, steps):,} optimizer steps"))
    if (less := saved(records)) is not None:
        rows.append(("stopped early", less.text))
    return tuple(rows)


class SoFar(NamedTuple):
    """The records that a run has, and a larger number that is planned."""

    done: int
    planned: int

    @property
    def text(self) -> str:
        """`so far: 5 of 14 records`."""
        return f"so far: {self.done:,} of {self.planned:,} records"

    def words(self, sentence: str) -> str:
        """The sentence as one on an unfinished run."""
        return f"So far, {sentence[0].lower()}{sentence[1:]}"


def so_far(front: Front, spec: ResultsSpec, accounting: Mapping[str, Any]) -> SoFar | None:
    """How far an unfinished run is; None for a finished one, and where the plan is unknown."""
    records = [record for item in front.candidates for record in item.records]
    done = sum(record.seed in spec.seeds for record in records)
    planned = accounting.get("readouts", 0)
    return SoFar(done, planned) if done < planned else None


def warnings(
    front: Front,
    found: Recommendation,
    spec: ResultsSpec,
    accounting: Mapping[str, Any],
    judged: RejudgedRecords | None,
) -> tuple[str, ...]:
    """The limitations of the results, one sentence each."""
    decided = found.decided is not None and found.chosen is not None
    texts = [
        *_unfinished(front, spec, accounting),
        *_outcome(front, found, spec),
        *found.caveats,
        *([] if decided else _few_prompts(front, spec)),
    ]
    if (seeds := len(spec.seeds)) < ENOUGH_SEEDS and not decided:
        texts.append(
            f"Few seeds: {seeds} training run{'' if seeds == 1 else 's'} of each configuration. "
            f"The variation between seeds is unknown with fewer than {ENOUGH_SEEDS}."
        )
    if judged is not None and judged.unscored:
        texts.append(
            f"Judge coverage: {len(judged.unscored):,} records lack a rate of {judged.judge}, "
            "because it did not decide enough of their responses."
        )
    return tuple(texts)


def _unfinished(front: Front, spec: ResultsSpec, accounting: Mapping[str, Any]) -> list[str]:
    """A run that goes on or was stopped, and records without a score."""
    records = [record for item in front.candidates for record in item.records]
    texts = []
    if (part := so_far(front, spec, accounting)) is not None:
        texts.append(
            f"So far: {part.planned - part.done:,} of {part.planned:,} planned records are missing, so "
            "the answer may change. `sweeper resume` continues a run that was stopped."
        )
    lost = sum(record.status in ("failed", "unscored") for record in records)
    if lost:
        texts.append(
            f"{lost:,} of {len(records):,} records failed or have no score; see Trial outcomes."
        )
    return texts


def _outcome(front: Front, found: Recommendation, spec: ResultsSpec) -> list[str]:
    texts = []
    if found.chosen is None:
        texts.append(f"Nothing to recommend: {found.reason}")
    trained_here = isinstance(spec, SweepSpec)  # What an import lacks, the recommendation says.
    if front.base is None and trained_here:
        texts.append(f"The {UNTOUCHED} was not measured: what fine-tuning gained is unknown.")
    if found.default is None and trained_here:
        texts.append("The trainers' defaults were not measured, so the gain over them is unknown.")
    useless = sum(item.gain is False for item in front.competing)
    if useless:
        texts.append(
            f"No gain: {useless:,} of {len(front.competing):,} complete configurations are not more "
            f"useful than the {UNTOUCHED} with confidence."
        )
    return texts


def _few_prompts(front: Front, spec: ResultsSpec) -> list[str]:
    sizes = [n for item in front.competing if (n := item.size("unsafe_rate")) is not None]
    if not sizes:
        return []
    n = min(sizes)
    limit = next((c for c in spec.constraints if c.metric == "unsafe_rate"), None)
    if limit is not None and largest_passing_count(n, limit.max, limit.confidence) is None:
        return [
            f"Few prompts: with {n} harmful prompts no measured rate, not even zero, satisfies the limit "
            f"of {100 * limit.max:g} % with the required confidence."
        ]
    if n < ENOUGH_PROMPTS:
        high = wilson_interval(0, n).high
        return [
            f"Few prompts: {n} harmful prompts. Even without one unsafe response the 95 % interval "
            f"reaches {100 * high:.1f} %."
        ]
    return []
