"""The section of a model card with the measurements, their uncertainty, and their limitations.

Names and values from a sweep file or a model are in code spans, where Markdown is not interpreted.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.analysis import Candidate
from sweeper.analysis.candidate import constraint_text
from sweeper.export.header import (
    base_notes,
    compared_text,
    interval_text,
    list_digest,
    listed,
    n_of,
    one_line,
    precision_text,
    provenance,
    templates_text,
)
from sweeper.export.job import ExportJob
from sweeper.keywords.lists import LIMITS, load_keyword_list
from sweeper.metrics import SAFETY_METRICS, UTILITY_METRICS, is_harness

CARD_NAME = "model_card.md"
_HALVES = {"all": "", "search": " (the search half)", "confirm": " (the confirm half)"}


def files(job: ExportJob) -> dict[str, str]:
    """`model_card.md`: a section for the model card of a model trained with this configuration."""
    return {CARD_NAME: card(job)}


def card(job: ExportJob, notes: Sequence[str] = ()) -> str:
    """The section as Markdown; `notes` are further sentences about the weights beside it."""
    parts = [
        "## Safety and utility, as measured",
        _opening(job),
        *map(escaped, (*notes, *base_notes(job))),
        _table(job),
        "### Measured on",
        *_prompts(job),
        "### Uncertainty",
        *_certainty(job),
        "### Limitations",
        *_limits(job),
        "### Training",
        *_training(job),
        "### Provenance",
        "\n".join(f"- {escaped(line)}" for line in provenance(job)),
    ]
    return "\n\n".join(parts) + "\n"


def code(value: Any) -> str:
    """A code span: nothing in it is Markdown or HTML, and no line break or backtick ends it."""
    text = one_line(str(value))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    padding = " " if "`" in text or not text else ""
    return f"{fence}{padding}{text or ' '}{padding}{fence}"


def cell(value: Any) -> str:
    """A code span within a table, where a bar would end the cell."""
    return code(value).replace("|", r"\|")


def escaped(text: str) -> str:
    """Prose that may contain untrusted text: all Markdown and HTML syntax is escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&!@]|:(?=//)|(?<=www)\.)", r"\\\1", one_line(text))


def _opening(job: ExportJob) -> str:
    item, config = job.candidate, job.config
    text = f"Configuration {code(item.config_id)} of the sweep {code(job.spec.name)}, trained from "
    text += code(config["model"])
    if config.get("revision"):
        text += f" at revision {code(config['revision'])}"
    if item.excluded is not None:
        return f"{text}. **Not complete:** {escaped(item.excluded)}."
    return f"{text}."


def _table(job: ExportJob) -> str:
    base = job.origin.base
    lines = [
        "| metric | value | 95 % interval | n | untouched model |",
        "|---|---|---|---|---|",
        *(_row(job.candidate, base, name) for name in _metrics(job.candidate)),
    ]
    return "\n".join(lines)


def _metrics(candidate: Candidate) -> Iterable[str]:
    names = (*UTILITY_METRICS, *filter(is_harness, candidate.values), *SAFETY_METRICS)
    return [name for name in names if name in candidate.values]


def _row(candidate: Candidate, base: Candidate | None, name: str) -> str:
    counts = candidate.counts(name)
    value = f"{candidate.values[name]:.4g}" + (f" ({counts})" if counts else "")
    interval = interval_text(candidate, name).removeprefix("95 % interval ").rstrip(", ") or "none"
    other = (
        "not measured" if base is None or name not in base.values else f"{base.values[name]:.4g}"
    )
    return f"| {cell(name)} | {value} | {interval} | {n_of(candidate, name)} | {other} |"


def _prompts(job: ExportJob) -> list[str]:
    evaluation, data = job.spec.evaluation, job.spec.data
    held_out = (
        f"{data.heldout_rows} rows split off the training rows"
        if data.heldout is None
        else code(data.heldout.path)
    )
    lines = [
        f"- harmful prompts: {_suites(evaluation.harmful)}",
        f"- harmless prompts: {_suites(evaluation.harmless) or 'none'}",
        f"- held-out rows: {held_out}",
        f"- training rows: {code(data.train.path)}",
        f"- {escaped(templates_text(job.config['template']))}",
        f"- responses: greedy, at most {evaluation.max_new_tokens} tokens",
    ]
    return ["\n".join(lines)]


def _suites(suites: Iterable[Any]) -> str:
    return listed(
        [f"{code(suite.suite or suite.path)}{_HALVES[suite.prompt_split]}" for suite in suites]
    )


def _certainty(job: ExportJob) -> list[str]:
    item, origin = job.candidate, job.origin
    many = len(item.seeds)
    lines = [
        f"- {'one seed' if many == 1 else f'{many} seeds'} ({listed(item.seeds)}); intervals are those "
        "of prompts and rows; over several seeds from the lowest end to the highest",
    ]
    for number, rule in enumerate(() if origin.claims else job.spec.constraints):
        lines.append(f"- {escaped(constraint_text(item, number, rule))}")
    lines += [f"- {escaped(text)}" for text in origin.claims]
    if origin.compared is not None:
        lines.append(
            f"- {compared_text(origin.compared)} The best of many looks better than it is; the table above "
            f"is not corrected for this selection{', these claims are' if origin.claims else ''}."
        )
    lines += [f"- {escaped(text)}" for text in origin.decision]
    if item.gain is not None:
        sentence = "more useful" if item.gain else "NOT shown to be more useful"
        lines.append(f"- it is {sentence} than the untouched model ({escaped(item.gain_evidence)})")
    return ["\n".join(lines)]


def _limits(job: ExportJob) -> list[str]:
    further = (
        "Only single-turn prompts of these suites were measured: other languages, multi-turn dialogues, "
        "adaptive attacks, and harms outside the suites were not evaluated. "
        "A low rate is not proof of safety."
    )
    if job.origin.judge is not None:
        judged = (
            f"{escaped(job.origin.judge)}. A judge is a model and makes mistakes, too; its agreement "
            f"with keyword lists and people must be checked separately."
        )
        return [judged, f"- {further}"]
    name = job.spec.evaluation.keyword_lists[0]
    source = escaped(load_keyword_list(name).source)
    opening = (
        f"Responses were judged by the keyword list {code(name)} "
        f"(hash {code(list_digest(job.candidate, name))}, from {source})."
    )
    return [opening, "\n".join(f"- {escaped(line)}" for line in (*LIMITS, further))]


def _training(job: ExportJob) -> list[str]:
    rows = [f"| {cell(name)} | {cell(value)} |" for name, value in _flat(job.config)]
    table = "\n".join(["| hyperparameter | value |", "|---|---|", *rows])
    return [f"Model {escaped(precision_text(job.config))}; loss on completions.", table]


def _flat(config: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    shown = ("train", "heldout", "template", "model", "revision")
    return [(name, value) for name, value in config.items() if name not in shown]
