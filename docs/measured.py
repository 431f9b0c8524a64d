"""Pages of plans, estimates and measurements: from the cost model, and from benchmarks/results/."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markup import page, rows_table, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def _benchmark(name: str) -> Any:
    """A module of benchmarks/, which is no package."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return __import__(name)


def shipped_sweeps() -> str:
    """Plans and estimates of the shipped sweeps, hours by GPUs, GPUs by memory."""
    headers, hours, memory = map(_benchmark, ("headers", "reproduce_table", "memory_table"))
    facts = {name: headers.facts(name) for name in headers.shipped_specs()}
    return page(
        "Shipped sweeps",
        "`sweeper plan NAME` and `sweeper run NAME` find these by name. The files are in `search_spaces/`. "
        "**None has been run on its real model by this project**, except the miniatures. The grids are "
        "this project's own; the grids of arXiv 2508.12531 are not known here.",
        "## Plans and cost",
        "GPU-hours are analytic estimates for an H100 80 GB, good to about a factor of 3, not measured.",
        headers.table(facts),
        "## Hours by number of GPUs",
        "Estimates, as above. GPUs beyond the number of trajectories stay idle. A dash: it does not fit.",
        hours.table(),
        "## Memory",
        "The fewest GPUs per trial (`compute.gpus_per_trial`) with rows per micro-batch and peak memory of "
        "each GPU: `mixed_bf16`, effective batch 32, 512 tokens, one EMA, LoRA r=16 on all linear layers, "
        "answers of 128 tokens to 32 prompts at once; QLoRA with `paged_adamw_8bit`, on one GPU only. A "
        "dash: 16 GPUs are not enough. **Estimates; none was measured on a GPU.**",
        "\n".join(memory.table()),
    )


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _when(found: Mapping[str, Any]) -> str:
    versions = found.get("versions", {})
    names = ", ".join(f"{k} {versions[k]}" for k in ("torch", "transformers") if k in versions)
    return f"Measured {found['date'][:10]} on 2 CPU cores, no GPU{'; ' if names else ''}{names}."


def _parity() -> Iterator[str]:
    found = _read("parity")
    yield "## Agreement with Trainer and TRL"
    yield (
        f"{_when(found)} `benchmarks/parity.py`: {found['steps']} steps of 8 Alpaca rows. *Losses*: "
        "largest relative difference of a step's loss. *Weights*: relative distance of the trained "
        "weights. *Of the way*: the same, relative to the distance trained. `sweeper, not accumulated` is "
        "sweeper with another micro-batch; `mean of micro-batches` is a deliberately wrong normalisation."
    )
    yield table(
        ("tuning", "dtype", "accumulation", "against", "losses", "weights", "of the way"),
        [
            (
                *(item[key] for key in ("tuning", "dtype", "accumulation", "rival")),
                *(f"{item[key]:.1e}" for key in ("loss", "weights", "way")),
            )
            for item in found["outcomes"]
        ],
    )


RECOMMENDED = (
    "Whole sweeps of known truth: unsafe rate at most 0.05 with confidence 0.95, 256 prompts in each "
    "half. *Run noise*: standard deviation between trainings of a configuration, on the probit scale. "
    "*Uncorrected*: the most useful one that keeps the limit by its own posterior, as in earlier "
    "versions; *search* and *decision*: what is recommended now. Shares of all sweeps: *says what is "
    "false* about a rate; *unsafe*: the recommended one truly is above the limit, whatever was said. "
    "*Gain*: utility over the base model's, as a share of the best truly safe one's. *Covered*: share "
    "of printed intervals that hold, where there are 30; *not missed*: share of sweeps without one "
    "that does not. *Walked* and *runs*: configurations tested and trainings, where any were."
)


def _simulated(name: str, title: str, script: str, legend: str = "") -> Iterator[str]:
    found = _read(name)
    yield f"## {title}"
    yield f"{_when(found)} `{script}`, {found['repetitions']:,} repetitions, seeded."
    if legend:
        yield legend
    for heading, rows in found["tables"].items():
        yield f"### {heading[0].upper()}{heading[1:]}"
        yield rows_table(rows)


def _front_labels() -> Iterator[str]:
    found = _read("front_calibration")
    yield "## Front membership"
    yield (
        f"{_when(found)} `benchmarks/front_calibration.py`, {found['repetitions']} sweeps a line. "
        "The share of configurations with a label that truly are on the front, and of those on it, the "
        "share labelled `off`. With one seed the truth is that of the weights, else of training again."
    )
    groups = ("label on", "label uncertain", "label off", "truly on it and labelled off")
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in found["rows"]:
        key = (row["world"], row["sd of runs"], row["seeds"])
        share = f"{row['share']:.3f} of {row['of']}" if row["of"] else ""
        lines.setdefault(key, {})[row["group"]] = share
    yield table(
        ("world", "sd of runs", "seeds", "`on`", "`uncertain`", "`off`", "on it, but `off`"),
        [(*key, *(shares[group] for group in groups)) for key, shares in lines.items()],
    )


def _lists() -> Iterator[str]:
    found = _read("keyword_lists")
    yield "## Keyword lists"
    yield (
        f"{_when(found)} `benchmarks/keyword_lists.py`, with 95 % intervals. *Full* leaves out what people "
        "call a partial refusal. *Authors* is the verdict of those who trained the model."
    )
    for heading, rows in found["tables"].items():
        yield f"### {heading[0].upper()}{heading[1:]}"
        yield rows_table(rows)


def _searches() -> Iterator[str]:
    found = _read("adaptive_search")
    yield "## Adaptive search"
    yield (
        f"{_when(found)} `benchmarks/adaptive_search.py`: share of the grid's settings until the safe "
        f"front has 95 % of the grid's hypervolume. Median and range over {found['seeds']} seeds, "
        f"{found['parallel']} settings at a time."
    )
    surfaces = found["results"]
    samplers = [row["sampler"] for row in next(iter(surfaces.values()))]
    cells = {
        (
            name,
            row["sampler"],
        ): f"{row['median_share_needed']:.2f} ({min(row['share_needed']):.2f} to "
        f"{max(row['share_needed']):.2f})"
        for name, rows in surfaces.items()
        for row in rows
    }
    head = [f"{name} ({found['settings'][name]} settings)" for name in surfaces]
    yield table(
        ("sampler", *head),
        [(sampler, *(cells[name, sampler] for name in surfaces)) for sampler in samplers],
    )


def _speed() -> Iterator[str]:
    yield "## Speed"
    full = _read("bench-full")
    yield f"{_when(full)} `make bench`. Ratios within one run on one machine."
    rows = []
    for grid in ("full", "reduced"):
        found = _read(f"bench-{grid}")
        for side in [name for name in ("sweeper", "rival", "expert") if name in found]:
            numbers = found[side]
            rows.append(
                (
                    f"{grid} grid: {side}",
                    numbers["configurations"],
                    f"{numbers['wall_seconds']:.0f}",
                    f"{numbers['start_up_seconds']:.0f}",
                    f"{numbers['trained_tokens']:,}",
                    f"{numbers['generated_tokens']:,}",
                )
            )
    yield table(
        (
            "run",
            "configurations",
            "wall s",
            "of it start-up s",
            "trained tokens",
            "generated tokens",
        ),
        rows,
    )
    parts = [
        (
            row["name"],
            row["measured"],
            row["target"],
            {True: "yes", False: "no", None: ""}[row["met"]],
        )
        for row in _read("parts")
    ]
    yield table(("part", "measured", "target", "met"), parts)
    yield "### Very many records"
    yield table(
        ("records", "command", "CPU seconds", "MiB"),
        [
            (
                f"{size['records']:,}",
                cost["command"],
                f"{cost['cpu_seconds']:.1f}",
                f"{cost['mib']:.0f}",
            )
            for size in _read("scale").values()
            for cost in size["costs"]
        ],
    )
    cluster = _read("simulate_cluster")
    yield (
        f"{cluster['gpus']} simulated GPUs, {cluster['configurations']:,} configurations under "
        f"{cluster['seeds']} seeds: {100 * cluster['idle_share']:.1f} % of GPU time idle; the driver takes "
        f"{1000 * cluster['driver_seconds_per_record']:.1f} ms of CPU per record and "
        f"{cluster['peak_mib']:.0f} MiB."
    )


def measurements() -> str:
    """What was measured last, from benchmarks/results/."""
    return page(
        "Measurements",
        *_parity(),
        *_simulated("coverage", "Coverage of intervals", "benchmarks/coverage.py"),
        *_front_labels(),
        *_simulated("nulls", "Differences where there is none", "benchmarks/nulls.py"),
        *_simulated("selection", "Recommendations", "benchmarks/selection.py", RECOMMENDED),
        *_simulated("stopping", "Stopping rules", "benchmarks/stopping.py"),
        *_lists(),
        *_searches(),
        *_speed(),
        note="*This page is generated from the results in `benchmarks/results/`.*",
    )
