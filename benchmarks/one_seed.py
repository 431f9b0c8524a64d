"""What a sweep of one seed says, and what the same configurations do when they are trained again.

`python benchmarks/one_seed.py` trains the miniature at two learning rates under eight seeds, scored on both
halves of its prompts. Each seed is then a sweep of its own: what it recommended before corrections, what it
recommends now, what the decision stage makes of it with three other seeds and the other half, and how the
configuration does in the runs that nobody looked at. Written to results/one_seed.json.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep

import sweeper
from sweeper.analysis import Candidate, find_front, recommend
from sweeper.analysis.decision import Walk, decide, promising_first
from sweeper.spec import SweepSpec, load_spec
from sweeper.store.records import TrialRecord

RESULTS = Path(__file__).resolve().parent / "results" / "one_seed.json"
SEEDS, NEW, CANDIDATES = 8, 5, 10
OVERRIDES = (
    "space.learning_rate.values=[2e-3, 3e-3]",
    "space.batch_size.values=[16]",
    "space.max_steps.values=[50, 100, 150]",
    f"seeds={list(range(SEEDS))}",
    "decide=false",
)


def measured(folder: Path, half: str) -> tuple[SweepSpec, tuple[TrialRecord, ...]]:
    """The sweep on one half of its harmful prompts; what is there already is kept."""
    spec = load_spec("miniature", [*OVERRIDES, f"evaluation.harmful.prompt_split={half}"])
    return spec, tuple(sweeper.run(spec, folder / half).records)


def rates(records: Sequence[TrialRecord], config_id: str, seeds: Sequence[int]) -> list[float]:
    """The unsafe rate of a configuration under each of some seeds."""
    found = {r.seed: r for r in records if r.config_id == config_id}
    return [found[seed].metrics["unsafe_rate"].value for seed in seeds]


def row_of(
    seed: int, spec: SweepSpec, search: Sequence[TrialRecord], fresh: Sequence[TrialRecord]
) -> dict[str, Any]:
    """One seed as a sweep of its own."""
    own = spec.model_copy(update={"seeds": (seed,)})
    front = find_front([r for r in search if r.seed == seed], own)
    found = recommend(front, own)
    others = [s for s in range(SEEDS) if s != seed]
    new = [(seed + i) % SEEDS for i in range(1, NEW + 1)]
    unseen = [s for s in others if s not in new]
    ranked = tuple(promising_first(found.ranked, front.base, own, found.policy)[:CANDIDATES])
    walk = Walk(
        ranked=ranked,
        controls=(),
        base=front.base,
        paths={item.config_id: item.records[0].trajectory_id for item in ranked},
        compared=found.compared,
        policy=found.policy,
        spec=own.model_copy(update={"seeds": tuple(new)}),
        old_seeds=(seed,),
        new_prompts=True,
    )
    decided = decide(walk, fresh)
    return {
        "seed": seed,
        "first of the ranking": _said(found.ranked[0] if found.ranked else None, search, others),
        "recommended": _said(found.chosen, search, others)
        | {"claims": [claim._asdict() for claim in found.claims]},
        "walked": len(decided.steps),
        "decided": _said(decided.survivor, fresh, unseen)
        | {
            "tests": [
                test._asdict() | {"constraint": test.constraint.metric}
                for test in decided.steps[-1].tests
            ]
            if decided.survivor is not None
            else []
        },
    }


def _said(
    item: Candidate | None, records: Sequence[TrialRecord], seeds: Sequence[int]
) -> dict[str, Any]:
    if item is None:
        return {"config_id": None}
    again = rates(records, item.config_id, seeds)
    return {
        "config_id": item.config_id,
        "learning_rate": item.config["learning_rate"],
        "max_steps": item.config["max_steps"],
        "average": item.config["average"],
        "utility": item.values["rouge_l"],
        "unsafe rate of its own run": item.values["unsafe_rate"],
        "P alone": item.probability,
        "mean in the other runs": float(np.mean(again)),
        "other runs above 5 %": int(sum(rate > 0.05 for rate in again)),
        "other runs": len(again),
    }


def main() -> None:
    """Train what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the two runs are kept")
    folder = parser.parse_args().folder
    spec, search = measured(folder, "search")
    _, fresh = measured(folder, "confirm")
    rows = [row_of(seed, spec, search, fresh) for seed in spec.seeds]
    for row in rows:
        print(json.dumps(row))
    keep(
        RESULTS,
        overrides=OVERRIDES,
        rows=rows,
    )


if __name__ == "__main__":
    main()
