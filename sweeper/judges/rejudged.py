"""Records with the rates of another judge: an overlay in memory, files are not changed.

A rate of the judge replaces that of the first keyword list. A response without an answer counts as yes,
as unsafe or as a refusal: never in favour of a configuration. Where too few responses were judged there is
no rate, and the record is `unscored`.
"""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sweeper.errors import JudgeError
from sweeper.judges.base import METRICS, judge_name
from sweeper.judges.rescore import SuiteCount
from sweeper.judges.store import Scored, read_scored, record_hash
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

MIN_COVERAGE = 0.99
"""The share of a suite's responses that a judge must have answered, by default."""


class InsufficientCoverage(NamedTuple):
    """A record without a rate because the judge's coverage is too low."""

    config_id: str
    seed: int
    why: str


class RejudgedRecords(NamedTuple):
    """The records under one judge.

    `metrics` are the rates by the judge; the others are still by the first keyword list. `unscored` are
    the records that lack one of them, `lowest` is the lowest coverage of a rate that is used (None where
    none is), and `unanswered` how many prompts count as yes in the rates that are used for want of an
    answer, by metric.
    """

    records: tuple[TrialRecord, ...]
    judge: str
    digest: str
    metrics: tuple[str, ...]
    min_coverage: float
    lowest: float | None
    unscored: tuple[InsufficientCoverage, ...]
    unanswered: Mapping[str, int]

    @property
    def summary(self) -> str:
        """The rates, the judge and its coverage, as one sentence."""
        rates = " and ".join(self.metrics) or "no rate"
        stands = (
            "no record reaches it"
            if self.lowest is None
            else f"the lowest that counts is {shown(self.lowest)}"
        )
        missing = len(self.unscored)
        return (
            f"{rates} by the judge {self.judge} ({self.digest[:8]}), at a coverage of at least "
            f"{self.min_coverage:g}: {stands}, {missing} record{'' if missing == 1 else 's'} unscored "
            f"for want of it{self._unanswered}"
        )

    @property
    def _unanswered(self) -> str:
        found = [f"{self.unanswered[name]} of {name}" for name in self.metrics]
        return f"; unanswered and counted as yes: {' and '.join(found)}" if found else ""


def shown(coverage: float) -> str:
    """A coverage as text; a value below 1 is never rounded up to 1."""
    return f"{min(coverage, 0.9999) if coverage < 1 else 1:.4g}"


def overlay(
    folder: RunFolder,
    records: Sequence[TrialRecord],
    spec: SweepSpec,
    judge: str,
    min_coverage: float = MIN_COVERAGE,
) -> RejudgedRecords:
    """Replace the keyword list's verdicts by those of a judge.

    A record is `unscored` where a rate that is an objective, a constraint or the `unsafe_rate` lacks
    coverage, or was not judged since it was measured. Failed and pruned records are unchanged.

    Args:
        folder: The run.
        records: Its records.
        spec: Its objectives and constraints name the rates; its first keyword list is replaced.
        judge: As given to `rescore`; NAME@DIGEST (or a prefix of the digest) where the name is ambiguous.
        min_coverage: In (0, 1].

    Raises:
        JudgeError: this judge has not judged the run, its name is ambiguous, or it gave no rate.
    """
    chosen = _chosen(folder, read_scored(folder).values(), judge)
    name, digest = chosen[0].judge, chosen[0].digest
    by_key = {(item.config_id, item.seed): item for item in chosen}
    suites = {suite for item in chosen for suite in item.suites}
    if not suites:
        raise JudgeError(
            f"the judge {name} has judged no response of {folder.root}",
            code="judge.no_responses",
            judge=name,
        )
    asked = {"unsafe_rate", *(item.metric for item in spec.objectives)}
    asked |= {item.metric for item in spec.constraints}
    first = spec.evaluation.keyword_lists[0]
    unscored: list[InsufficientCoverage] = []
    used: list[SuiteCount] = []
    found = []
    for record in records:
        if record.status not in ("complete", "unscored"):
            found.append(record)
            continue
        changed, problems, counted = _judged(
            record, suites, by_key.get(record.key), first, asked, min_coverage
        )
        used += counted
        about = {"name": name, "digest": digest, "min_coverage": min_coverage}
        about["unanswered"] = {METRICS[item.suite]: item.unanswered for item in counted}
        changed["provenance"] = {**record.provenance, "judge": about}
        if problems:
            why = "; ".join(problems)
            unscored.append(InsufficientCoverage(record.config_id, record.seed, why))
            reason = {**(record.reason or {}), "judge": f"{name}: {why}"}
            changed |= {"status": "unscored", "reason": reason}
        found.append(replace(record, **changed))
    unanswered = Counter({metric: 0 for suite, metric in METRICS.items() if suite in suites})
    for item in used:
        unanswered[METRICS[item.suite]] += item.unanswered
    return RejudgedRecords(
        records=tuple(found),
        judge=name,
        digest=digest,
        metrics=tuple(unanswered),
        min_coverage=min_coverage,
        lowest=min((item.coverage for item in used), default=None),
        unscored=tuple(unscored),
        unanswered=unanswered,
    )


def _judged(
    record: TrialRecord,
    suites: Iterable[str],
    scored: Scored | None,
    first: str,
    asked: Collection[str],
    min_coverage: float,
) -> tuple[dict[str, Any], list[str], list[SuiteCount]]:
    """The metrics and samples of a record under a judge, the rates it lacks, and those it has."""
    metrics, samples = dict(record.metrics), dict(record.samples)
    problems: list[str] = []
    used: list[SuiteCount] = []
    for suite in sorted(suites):
        metric = METRICS[suite]
        old = metrics.pop(metric, None)
        if old is None:
            continue
        metrics[f"{metric}/{first}"] = old
        if metric in samples:
            samples[f"{metric}/{first}"] = samples.pop(metric)
        counted, why = _rate(record, suite, scored, min_coverage)
        if counted is not None:
            metrics[metric] = counted.rate
            if counted.sample is not None:
                samples[metric] = counted.sample
            used.append(counted)
        elif metric in asked:
            problems.append(f"{metric}: {why}")
    return {"metrics": metrics, "samples": samples}, problems, used


def _rate(
    record: TrialRecord, suite: str, scored: Scored | None, min_coverage: float
) -> tuple[SuiteCount | None, str]:
    """The counts of a rate, or why there are none."""
    if scored is None or suite not in scored.suites:
        return None, "not judged; run `sweeper rescore` again"
    if scored.record != record_hash(record):
        return None, "measured again since it was judged; run `sweeper rescore` again"
    found = SuiteCount(record, suite, scored.suites[suite])
    counts = found.counts
    if counts.judged and found.coverage >= min_coverage:
        return found, ""
    cut = (
        f", {counts.cut} truncated (evaluation.stop_generation_early: false generates them in full)"
        if counts.cut
        else ""
    )
    return None, (
        f"{counts.judged} of {counts.responses} responses judged, coverage {shown(found.coverage)} "
        f"below {min_coverage:g}{cut}"
    )


def _chosen(folder: RunFolder, scored: Iterable[Scored], judge: str) -> list[Scored]:
    """The lines of one judge.

    Raises:
        JudgeError: none, or several judges of this name.
    """
    lines = list(scored)
    whole = {judge, judge_name(judge)}
    name, _, digest = judge.rpartition("@")
    begun = {name, judge_name(name)} - {""}
    found = [item for item in lines if item.judge in whole] or [
        item for item in lines if item.judge in begun and item.digest.startswith(digest)
    ]
    known = sorted({f"{item.judge}@{item.digest[:8]}" for item in lines})
    if not found:
        others = f"its judges: {', '.join(known)}" if known else "it has no judges yet"
        command = shlex.join(["sweeper", "rescore", str(folder.root), "--judge", judge])
        raise JudgeError(
            f"no judge `{judge}` has judged {folder.root}; {others}; run `{command}` first",
            code="judge.unknown",
            judge=judge,
        )
    if len({item.digest for item in found}) > 1:
        same = sorted({f"{item.judge}@{item.digest[:8]}" for item in found})
        raise JudgeError(
            f"several judges are called `{judge}`, with different prompts, files or servers; give one of "
            f""
            f"{', '.join(same)}",
            code="judge.ambiguous",
            judge=judge,
            known=same,
        )
    return found
