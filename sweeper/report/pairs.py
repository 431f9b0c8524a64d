"""The packed samples with which the compare tray tests two configurations in the page."""

import base64
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from sweeper.analysis import (
    BASE_ROLE,
    CANDIDATE_ROLE,
    ENOUGH_SEEDS,
    FEWEST_POOLED_DF,
    UNTRAINED,
    Candidate,
    Front,
    has_verdicts,
    own_part,
    pooled_part,
    pooled_runs,
    rows_of,
    runs_key,
)
from sweeper.spec import ResultsSpec
from sweeper.stats import RunPart
from sweeper.stats.runs import RunVariance

CONFIDENCE = 0.95
BUDGET = 2_500_000
"""Characters of packed samples in a page. Samples that do not fit are left out, and the page says so."""


def pair_block(
    front: Front, spec: ResultsSpec, ordered: Sequence[str], chosen: Candidate | None
) -> dict[str, Any]:
    """The samples behind `paired_difference`, for the page's script to compute the same in any pair.

    Args:
        front: The front.
        spec: The spec: its objectives, constraints and utility are tested.
        ordered: All ids, the most wanted first; after the chosen one and the controls.
        chosen: The recommended configuration.

    Returns:
        `metrics` by name, `confidence`, `z` its normal quantile, `enough_seeds` as in
        `runs_of_difference`, `of` the packed samples by id, `left_out` how many
        configurations have samples that did not fit.
    """
    wanted = [item.metric for item in spec.objectives]
    wanted += [item.metric for item in spec.constraints]
    measured = {name for item in front.candidates for name in item.values}
    metrics = [
        name
        for name in dict.fromkeys([*wanted, spec.utility.metric, spec.safety.metric])
        if name in measured
    ]
    items = {item.config_id: item for item in front.candidates}
    order = {name: index for index, name in enumerate(ordered)}

    def rank(candidate: Candidate) -> tuple[bool, bool, int]:
        return candidate is not chosen, candidate.role == CANDIDATE_ROLE, order[candidate.config_id]

    packed: dict[str, Any] = {}
    pools = {name: pooled_runs(front.candidates, name) for name in metrics}
    spent = left_out = 0
    for item in sorted((items[name] for name in ordered), key=rank):
        found = {name: _packed(item, name, pools[name]) for name in metrics if name in item.values}
        size = sum(len(text) for values in found.values() for text in values.get("samples", ()))
        if spent + size > BUDGET:
            left_out += 1
            continue
        spent += size
        packed[item.config_id] = {
            "runs": [] if item.role == BASE_ROLE else [f"{t} {seed}" for t, seed in runs_key(item)],
            "trained": item.role != BASE_ROLE,
            "metrics": found,
        }
    return {
        "metrics": metrics,
        "confidence": CONFIDENCE,
        "z": NormalDist().inv_cdf(0.5 + CONFIDENCE / 2),
        "enough_seeds": ENOUGH_SEEDS,
        "of": packed,
        "left_out": left_out,
    }


def _packed(candidate: Candidate, metric: str, pool: RunVariance) -> dict[str, Any]:
    """A metric of a candidate: verdicts as bits of each seed, else rows averaged over seeds, in base64.

    `own` and `pooled` are what runs add to its variance, as [variance, single, df], from its own seeds and
    from all; null where they are not known.
    """
    found: dict[str, Any] = {"value": candidate.values[metric], "n": candidate.size(metric)}
    found["sampled"] = candidate.is_sampled(metric)
    found["each"] = [item.value for item in candidate.measured(metric)]
    found["own"], found["pooled"] = _run_parts(candidate, metric, pool)
    rows = rows_of(candidate, metric)
    if rows is None or len(rows) < 2:
        return found
    found["n"] = len(rows)
    if has_verdicts(candidate, metric):
        bits = [
            np.frombuffer(str(r.samples[metric]).encode(), np.uint8) - 48 for r in candidate.records
        ]
        return {
            **found,
            "verdicts": True,
            "samples": [_text(np.packbits(b).tobytes()) for b in bits],
        }
    return {**found, "verdicts": False, "samples": [_text(rows.astype("<f8").tobytes())]}


def _run_parts(
    candidate: Candidate, metric: str, pool: RunVariance
) -> tuple[RunPart | None, RunPart | None]:
    if candidate.role == BASE_ROLE:
        return UNTRAINED, UNTRAINED
    if len(candidate.records) < 2:
        return None, None
    known = pool.df >= FEWEST_POOLED_DF and has_verdicts(candidate, metric)
    return own_part(candidate, metric), pooled_part(candidate, metric, pool) if known else None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
