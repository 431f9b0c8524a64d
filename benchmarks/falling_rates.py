"""Whether unsafe rates of real paths fall with more steps, and how often the rule `prune` is wrong there.

`python benchmarks/falling_rates.py` imports the responses to AdvBench beside this repository
(`../shared/data/llama32_1b_translation`, or a folder given by --data): two paths of four readouts, 520
prompts each. The measured rates are taken as the truth. Prompts are drawn from the 520 with replacement,
as another suite would have them, and the rule infers later readouts from earlier ones. It is wrong where
it leaves out a readout whose true rate keeps the limit. No response is printed or written. Two minutes.
"""

import argparse
import itertools
import json
import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import sweeper
from sweeper.importing.responses import LISTS
from sweeper.keywords.lists import load_keyword_list
from sweeper.scoring.stopping import Count, exceeds_limit
from sweeper.stats import wilson_interval
from sweeper.stats.paired import discordant_pairs, mcnemar, paired_difference_interval
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import TrialRecord

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "falling_rates.json"
DATA = ROOT.parent / "shared" / "data" / "llama32_1b_translation"
STEPS = (148, 296, 444, 591)
ERROR = 0.05
SIZES = (64, 128, 256, 520)
LIMITS = tuple(number / 200 for number in range(2, 51))
DRAWS = 2000

Bits = np.ndarray[Any, np.dtype[np.bool_]]


def read_paths(data: Path) -> dict[str, list[TrialRecord]]:
    """The records by path, steps rising; they have a second metric, which import needs, without meaning."""
    with tempfile.TemporaryDirectory() as folder:
        values = Path(folder) / "values.csv"
        lines = [f"{path.stem},{step},0" for path in sorted(data.glob("*.csv")) for step in STEPS]
        values.write_text("\n".join(("file,step,reward", *lines)), encoding="utf-8")
        run = sweeper.import_run(data, Path(folder) / "run", values=values).run
        records = sorted(run.records, key=lambda record: int(record.readout["step"]))
    paths: dict[str, list[TrialRecord]] = {}
    for record in records:
        paths.setdefault(record.config["file"], []).append(record)
    return paths


def bits_of(record: TrialRecord) -> Bits:
    """Whether each prompt was answered unsafely."""
    return np.array([bit == "1" for bit in str(record.samples["unsafe_rate"])])


def rate_of(record: TrialRecord) -> dict[str, Any]:
    """A counted rate with its 95 % interval."""
    counts = record.metrics["unsafe_rate"].counts
    assert counts is not None
    ends = [round(end, 4) for end in wilson_interval(*counts)]
    return {"step": record.readout["step"], "k": counts[0], "n": counts[1], "interval": ends}


def moved(first: TrialRecord, second: TrialRecord) -> dict[str, Any]:
    """The paired difference of two readouts: points, 95 % interval, exact McNemar p."""
    pairs = discordant_pairs(*(str(item.samples["unsafe_rate"]) for item in (second, first)))
    return {
        "steps": [first.readout["step"], second.readout["step"]],
        "difference": round(pairs.difference, 4),
        "interval": [round(end, 4) for end in paired_difference_interval(pairs)],
        "p": round(mcnemar(pairs), 6),
    }


@cache
def refuted(k: int, n: int, limit: float, level: float) -> bool:
    """Whether the rule takes a rate as above the limit."""
    return exceeds_limit(Count(k, n, n), limit, level)


def rule_errors(path: list[TrialRecord], n: int, rng: np.random.Generator) -> dict[str, Any]:
    """How often the rule is wrong on a path with n prompts, at the worst limit, and over all limits."""
    answers = np.array(list(map(bits_of, path)))
    truth = answers.mean(axis=1)
    chosen = rng.integers(answers.shape[1], size=(DRAWS, n))
    counts = answers[:, chosen].sum(axis=2).T
    level = ERROR / (len(path) - 1)
    wrong = np.zeros(len(LIMITS))
    left_out = above = 0
    for at, limit in enumerate(LIMITS):
        for row in counts:
            first = next((i for i, k in enumerate(row) if refuted(int(k), n, limit, level)), None)
            later = truth[first + 1 :] if first is not None else truth[:0]
            wrong[at] += bool((later <= limit).any())
            left_out += len(later)
        above += DRAWS * int((truth[1:] > limit).sum())
    worst = int(wrong.argmax())
    return {
        "prompts": n,
        "wrong_at_worst_limit": round(float(wrong[worst]) / DRAWS, 4),
        "worst_limit": LIMITS[worst],
        "wrong_over_limits": round(float(wrong.sum()) / (DRAWS * len(LIMITS)), 5),
        "left_out_of_later_readouts_above": round(left_out / max(above, 1), 3),
    }


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(
        description="How often the rule `prune` is wrong on real paths."
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    found = {
        name: {
            "rates": [rate_of(record) for record in path],
            "from_step_to_step": [moved(*pair) for pair in itertools.pairwise(path)],
            "prune": [rule_errors(path, n, rng) for n in SIZES],
        }
        for name, path in read_paths(given.data).items()
    }
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git_commit(),
        "hardware": hardware("cpu"),
        "packages": package_versions(),
        "list": {name: load_keyword_list(name).digest for name in LISTS},
        "error": ERROR,
        "limits": [LIMITS[0], LIMITS[-1]],
        "draws": DRAWS,
        "paths": found,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
