"""The comment lines of every export: three at its head, the others at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.analysis import Candidate, rate_text
from sweeper.export.job import ExportJob, has_adapter, is_quantized, loaded_dtype
from sweeper.keywords.lists import load_keyword_list
from sweeper.metrics import SAFETY_METRICS, UTILITY_METRICS, is_harness

BY_CALLBACK = (
    "WITHOUT ema_callback.py BESIDE THIS FILE THE NUMBERS DO NOT HOLD. "
    "Pass callbacks=[WeightAveraging()] to the trainer."
)
"""How weights are averaged where the target is a transformers trainer."""


def header(
    job: ExportJob, target: str, averaging: str = BY_CALLBACK, notes: Sequence[str] = ()
) -> str:
    """Three comment lines: what reads the file, what was measured, and what would void the numbers.

    `details` are the lines that such a file ends with.

    Args:
        job: What is exported.
        target: What reads the file.
        averaging: How the target averages the weights, or that it does not.
        notes: Other differences between the target and the sweep.
    """
    item, config = job.candidate, job.config
    warnings = [*notes, "Origin and conditions stand at the end of this file."]
    if config.get("safety_share"):
        warnings.insert(
            0,
            f"Of the training rows, {config['safety_share']:.3g} of all were mixed in from "
            f"{config['safety']['path']}: WITHOUT THEM THE NUMBERS DO NOT HOLD. `sweeper export` "
            "writes all rows.",
        )
    if job.averaging is not None:
        warnings.insert(0, f"The weights are averaged, {config['average']}: {averaging}")
    if job.unaveraged:
        warnings.insert(0, f"{unaveraged_text(config)}.")
    if item.excluded is not None:
        warnings.insert(0, f"NOT COMPLETE: {item.excluded}.")
    first, *_ = provenance(job)
    return _comments([f"For {target}.", f"{first} {_measured_over(job)}", " ".join(warnings)])


def details(job: ExportJob) -> str:
    """Comment lines for the end of a file: origin, claims, versions, and the conditions of the numbers."""
    config, split = job.config, job.split
    revision = f" (revision {config['revision']})" if config.get("revision") else ""
    _, *origin = [line for line in provenance(job) if line != _measured_over(job)]
    lines = [
        *origin,
        *(f"In the search, {claim}." for claim in job.origin.claims),
        *job.origin.decision,
        f"Model {config['model']}{revision}; {precision_text(config)}.",
        f"{templates_text(config['template'])}; loss on completions.",
        f"Effective batch {config['batch_size']} = {split.per_device} per device x "
        f"{split.accumulation} accumulated x {split.world_size} device(s). On another number of "
        "devices, export again.",
        "Row order and dropout differ between trainers: expect the numbers within their intervals, "
        "not digit for digit. `sweeper export` writes the rows in the order of the sweep.",
    ]
    if job.averaging is not None and has_adapter(config):
        lines.append("The factors of the adapter are averaged, not their product.")
    return _comments([*lines, *base_notes(job)])


def _comments(lines: Sequence[str]) -> str:
    return "".join(f"# {one_line(line)}\n" for line in lines)


def base_notes(job: ExportJob) -> list[str]:
    """What the adapter of a base in 4 bits was measured on, and what may change the numbers."""
    if not is_quantized(job.config):
        return []
    if job.spec.evaluation.base_weights == "unquantized":
        return [
            "Trained over a base in 4 bits; the readouts were scored on the checkpoint's own weights: "
            "load or merge the adapter there. On the base in 4 bits THE NUMBERS MAY NOT HOLD."
        ]
    return [
        "The readouts were scored on the base in 4 bits. On the checkpoint's own weights, merged or not, "
        "THE NUMBERS MAY NOT HOLD: `evaluation.base_weights: unquantized` measures them there. Do not "
        "merge into weights in 4 bits: the sum is rounded again."
    ]


def unaveraged_text(config: Mapping[str, Any]) -> str:
    """That files train a configuration without its averaging."""
    return (
        f"NOT AVERAGED: the sweep measured weights averaged by {config['average']}, and these files train "
        "without that, so THE MEASURED NUMBERS DO NOT HOLD"
    )


def provenance(job: ExportJob) -> list[str]:
    """Run, configuration, metrics with intervals, seeds, verdicts, and versions, as sentences."""
    item, origin = job.candidate, job.origin
    run = "" if origin.run is None else f", run {origin.run}"
    lines = [f"Configuration {item.config_id} of sweep {job.spec.name}{run}."]
    if origin.compared is not None:
        lines.append(
            f"{compared_text(origin.compared)} The intervals of the metrics are not corrected for that."
        )
    lines.append(_measured_over(job))
    lines.append(f"{verdicts_text(job)}.")
    lines.append(f"Measured with {versions_text(item)}.")
    return lines


def _measured_over(job: ExportJob) -> str:
    item = job.candidate
    seeds = f"seed {item.seeds[0]}" if len(item.seeds) == 1 else f"seeds {listed(item.seeds)}"
    return f"Measured over {seeds}: {measured(item)}."


def compared_text(count: int) -> str:
    """How many configurations were compared, as a sentence."""
    return (
        f"{count} configuration{' was' if count == 1 else 's were'} compared on the same prompts."
    )


def listed(values: Sequence[object]) -> str:
    """`1, 2, 3`."""
    return ", ".join(map(str, values))


def verdicts_text(job: ExportJob) -> str:
    """The source of unsafe verdicts: a keyword list by name and hash, or a judge."""
    if job.origin.judge is not None:
        return job.origin.judge
    name = job.spec.evaluation.keyword_lists[0]
    return f"Verdicts by the keyword list {name} ({list_digest(job.candidate, name)})"


def list_digest(candidate: Candidate, name: str) -> str:
    """The hash of a keyword list as it was when the responses were judged."""
    recorded = candidate.records[0].provenance.get("keyword_lists", {})
    return str(recorded.get(name) or load_keyword_list(name).digest)


def versions_text(candidate: Candidate) -> str:
    """`torch 2.13.0, transformers 5.23.0, ...; git commit ...`."""
    found = candidate.records[0].provenance
    packages = found.get("versions", {})
    text = listed([f"{name} {version}" for name, version in packages.items()])
    commit = found.get("git_commit")
    return (text or "unknown versions") + (f"; git commit {commit}" if commit else "")


def precision_text(config: Mapping[str, Any]) -> str:
    """The dtypes of weights and arithmetic, and how to reproduce them in another trainer."""
    attention = f", attn_implementation={config['attention']}" if "attention" in config else ""
    autocast = "under bf16 autocast" if config["dtype"] == "mixed_bf16" else "without autocast"
    held = f"loaded with dtype={loaded_dtype(config)}{attention}, trained {autocast}"
    adapter = "; the adapter in fp32" if has_adapter(config) else ""
    if is_quantized(config):
        adapter = f"; the linear layers in 4 bits (NF4, double quantisation){adapter}"
    return f"{held}{adapter} ({config['dtype']})"


def templates_text(template: Any) -> str:
    """The templates for training and for scoring."""
    if not isinstance(template, Mapping):
        return f"Training template {template}, test template {template}"
    sides = []
    for side, name in (("train", "Training"), ("test", "test")):
        system = template[side].get("system")
        said = "" if system is None else f" with the system prompt {system!r}"
        sides.append(f"{name} template {template[side]['name']}{said}")
    return ", ".join(sides)


def measured(candidate: Candidate) -> str:
    """All metrics of the spec that were measured, with counts or n, and 95 % intervals."""
    parts = [
        f"{name} {candidate.values[name]:.4g} ({interval_text(candidate, name)}n={n_of(candidate, name)})"
        for name in (*UTILITY_METRICS, *filter(is_harness, candidate.values))
        if name in candidate.values
    ]
    parts += [rate_text(candidate, name) for name in SAFETY_METRICS if name in candidate.values]
    return "; ".join(parts) or "nothing"


def n_of(candidate: Candidate, name: str) -> int | None:
    """The smallest n of a metric over the seeds."""
    return candidate.size(name)


def interval_text(candidate: Candidate, name: str) -> str:
    """`95 % interval 0.77 to 0.91, `; empty for a metric that has none."""
    interval = candidate.interval(name)
    if interval is None:
        return ""
    return f"95 % interval {interval.low:.4g} to {interval.high:.4g}, "


def one_line(text: str) -> str:
    """Text on one line, with line breaks and control characters replaced."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
