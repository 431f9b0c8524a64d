"""Rows of responses: judged by the product's refusal list, and one row for each group of equal settings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from sweeper.errors import ImportMapError
from sweeper.importing.build import Imported, is_base_row
from sweeper.importing.mapping import ImportMap, ResponsesMap
from sweeper.importing.table import ForeignRow, ForeignTable, columns_of, printable
from sweeper.keywords.lists import load_keyword_list
from sweeper.scoring.verdicts import HARMFUL, HARMLESS, judge_response, safety_samples
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import TrialRecord, metrics_from_samples

LISTS = ("sweeper",)
"""The refusal lists that judge, as `evaluation.keyword_lists` has them where a sweep names none."""


class Answers(NamedTuple):
    """The verdicts and the texts of one group, in the order of the prompts of the table.

    `samples` are as in records; `lines` are those of a file of responses of a run.
    """

    samples: Mapping[str, str]
    lines: tuple[Mapping[str, Any], ...]


class Judged(NamedTuple):
    """A table with one row per group, what was answered by the `where` of its row, and two counts.

    `read` counts the responses of the source, `notes` say what was counted how.
    """

    table: ForeignTable
    answers: Mapping[str, Answers]
    read: int
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    """Rows of equal settings: their responses by prompt with their places, and what all of them share."""

    first: str
    shared: dict[str, object]
    texts: dict[str, tuple[str, str]] = field(default_factory=dict)
    problem: str | None = None


def judge(table: ForeignTable, mapping: ImportMap, values: ForeignTable | None) -> Judged:
    """Judge the responses of a table, group by group.

    All groups answer the same prompts: one that lacks a prompt of another is refused, because its rate
    would be of other prompts. So is one with two different responses to a prompt; of equal ones the second
    is left out. A blank response is no refusal, as in a sweep; to a harmless prompt, where that would be
    good, it is refused.

    Args:
        table: A row per prompt; the columns of prompts and responses are texts.
        mapping: Has `responses`.
        values: Further metrics, a row per group, with the columns of settings, seed and step.

    Raises:
        ImportMapError: a column is missing, or no group can be used.
    """
    responses = mapping.responses
    assert responses is not None
    used = mapping.of_groups()
    keys = _keys(table, used, responses, values)
    refused = list(table.refused)
    prompts: dict[str, int] = {}
    groups = _groups(table, responses, keys, prompts, refused)
    values_of = _Values(values, keys, used)
    rows: list[ForeignRow] = []
    answers: dict[str, Answers] = {}
    for key, group in groups.items():
        more, missing = values_of.take(key)
        varied = _varied(group, table, used, more)
        problem = group.problem or _incomplete(group, prompts) or varied or missing
        where = f"{group.first} and {len(group.texts) - 1} more"
        if problem is not None:
            refused.append((where, f"{problem} ({len(group.texts)} responses)"))
            continue
        answers[where] = found = _answers(group, prompts, responses)
        n, k = len(group.texts), found.samples[responses.metric].count("1")
        name = responses.judged
        counted = {name: k / n, f"{name}.n": n, f"{name}.k": k}
        own = dict(zip(keys, key, strict=True))
        rows.append(ForeignRow(where, {**counted, **group.shared, **own, **more}))
    base, others = values_of.left(mapping)
    if not answers:
        first = "; ".join(f"{where}: {why}" for where, why in refused[:3])
        raise ImportMapError(
            f"{printable(table.source.name)}: no group of {len(groups)} can be used; {first}",
            code="import.no_rows",
            path=table.source,
        )
    return Judged(
        table._replace(rows=(*rows, *base), refused=(*refused, *others)),
        answers,
        len(table.rows) * len(responses.columns),
        _blank(groups.values()),
    )


def _keys(
    table: ForeignTable, used: ImportMap, responses: ResponsesMap, values: ForeignTable | None
) -> tuple[str, ...]:
    """The columns that tell groups apart: those of the map, and what both tables have and is no metric.

    Settings that only the file of values has are none.
    """
    there = {*columns_of(table.rows), *([responses.by] if responses.is_wide else [])}
    missing = [name for name in (responses.prompt, *responses.columns) if name not in there]
    if missing:
        raise ImportMapError(
            f"{printable(table.source.name)} has no column `{missing[0]}`, which `responses` of the map "
            f"names; it has {', '.join(sorted(there)[:12])}{', ...' if len(there) > 12 else ''}",
            code="import.no_column",
            column=missing[0],
        )
    names = [*used.parameters.values(), *(used.base or {})]
    names += [name for name in (used.seed, used.step) if name is not None]
    if values is not None:
        measured = {metric.column for metric in used.metrics.values()}
        names += [name for name in columns_of(values.rows) if name not in measured]
    return tuple(name for name in dict.fromkeys(names) if name in there)


def _groups(
    table: ForeignTable,
    responses: ResponsesMap,
    keys: Sequence[str],
    prompts: dict[str, int],
    refused: list[tuple[str, str]],
) -> dict[tuple[object, ...], _Group]:
    """The groups in the order of their first rows. Numbers `prompts` from 1, and extends `refused`."""
    groups: dict[tuple[object, ...], _Group] = {}
    texts = {responses.prompt, *responses.columns}
    for row in table.rows:
        for column, value in responses.columns.items():
            where = row.where if value is None else f"{row.where} ({column})"
            problem = _no_text(row, responses.prompt, blank=False) or _no_text(
                row, column, blank=responses.metric == "unsafe_rate"
            )
            prompt = row.values.get(responses.prompt)
            if isinstance(prompt, str) and prompt.strip():
                prompts.setdefault(prompt, len(prompts) + 1)
            if problem is not None:
                refused.append((where, problem))
                continue
            by = {} if value is None else {responses.by: value}
            cells = {**{c: v for c, v in row.values.items() if c not in texts}, **by}
            group = groups.setdefault(tuple(map(cells.get, keys)), _Group(where, cells))
            for name in [n for n, v in group.shared.items() if v != cells.get(n)]:
                del group.shared[name]
            assert isinstance(prompt, str)
            if (twice := _add(group, prompt, str(row.values[column]), where)) is not None:
                refused.append((where, twice))
    return groups


def _no_text(row: ForeignRow, column: str, *, blank: bool) -> str | None:
    """Why a cell is no text to use, or None."""
    cell = row.values.get(column)
    if cell is None:
        return f"`{column}`: missing"
    if not isinstance(cell, str):
        return f"`{column}`: found {type(cell).__name__}; a text in quotation marks is expected"
    return None if blank or cell.strip() else f"`{column}`: blank"


def _add(group: _Group, prompt: str, text: str, where: str) -> str | None:
    """Add a response; or why it is left out."""
    known, first = group.texts.setdefault(prompt, (text, where))
    if first == where:
        return None
    if known == text:
        return f"the prompt and response of {first} again"
    group.problem = group.problem or (
        f"two responses to one prompt, {first} and {where}; name the column that tells them apart under "
        "`parameters`, or as `seed` or `step`"
    )
    return None


def _incomplete(group: _Group, prompts: Mapping[str, int]) -> str | None:
    if len(group.texts) == len(prompts):
        return None
    lacking = [number for prompt, number in prompts.items() if prompt not in group.texts]
    return (
        f"responses to {len(group.texts)} of {len(prompts)} prompts, not to number {lacking[0]}; all "
        "groups must answer the same prompts: complete it, or remove the prompt everywhere"
    )


def _varied(
    group: _Group, table: ForeignTable, used: ImportMap, more: Mapping[str, object]
) -> str | None:
    """Which metric is not the same in all rows of a group, and does not come from the file of values."""
    there = set(columns_of(table.rows[:1])) - more.keys() - group.shared.keys()
    for metric in used.metrics.values():
        for column in (metric.column, metric.n, metric.k):
            if column in there:
                return f"`{column}` differs within a group; give one value for each group with --values"
    return None


class _Values:
    """Rows of further metrics by the key of their group, each of which is taken once."""

    def __init__(self, table: ForeignTable | None, keys: Sequence[str], used: ImportMap) -> None:
        self._table = table
        self._rows: dict[tuple[object, ...], list[ForeignRow]] = {}
        if table is None:
            return
        there = columns_of(table.rows)
        optional = set(used.base or {}) - {*used.parameters.values(), used.seed, used.step}
        missing = [name for name in keys if name not in there and name not in optional]
        if missing:
            raise ImportMapError(
                f"{printable(table.source.name)} has no column `{missing[0]}`, by which its rows belong to "
                f"groups of responses; it has {', '.join(there[:12])}",
                code="import.no_column",
                column=missing[0],
            )
        self._keys = [i for i, name in enumerate(keys) if name in there]
        names = [keys[i] for i in self._keys]
        for row in table.rows:
            self._rows.setdefault(tuple(map(row.values.get, names)), []).append(row)

    def take(self, key: tuple[object, ...]) -> tuple[Mapping[str, object], str | None]:
        """The cells of a group, or why there are none."""
        if self._table is None:
            return {}, None
        found = self._rows.pop(tuple(key[i] for i in self._keys), [])
        if len(found) != 1:
            name = printable(self._table.source.name)
            return {}, f"{len(found)} rows of {name} are of this group; expected one"
        return found[0].values, None

    def left(
        self, mapping: ImportMap
    ) -> tuple[tuple[ForeignRow, ...], tuple[tuple[str, str], ...]]:
        """Rows of the untouched model, which may lack responses; and the others, which are refused."""
        rows = [row for found in self._rows.values() for row in found]
        base = tuple(row for row in rows if is_base_row(row, mapping))
        refused = [(row.where, "values without responses") for row in rows if row not in base]
        return base, (*(self._table.refused if self._table else ()), *refused)


def _answers(group: _Group, prompts: Mapping[str, int], responses: ResponsesMap) -> Answers:
    lists = tuple(map(load_keyword_list, LISTS))
    suite = HARMFUL if responses.metric == "unsafe_rate" else HARMLESS
    texts = [group.texts[prompt][0] for prompt in prompts]
    lines = tuple(
        {
            "suite": suite,
            "id": str(number),
            "prompt": prompt,
            "response": text,
            "verdicts": judge_response(text, lists),
        }
        for (prompt, number), text in zip(prompts.items(), texts, strict=True)
    )
    return Answers(safety_samples(suite, texts, lists), lines)


def _blank(groups: Iterable[_Group]) -> tuple[str, ...]:
    blank = sum(not text.strip() for group in groups for text, _ in group.texts.values())
    return (f"{blank} blank responses count as unsafe and degenerate",) if blank else ()


def with_answers(found: Imported, judged: Judged) -> Imported:
    """The records with their verdicts per prompt, and the spec with the lists that judged."""
    digests = {name: load_keyword_list(name).digest for name in LISTS}

    def judged_record(record: TrialRecord) -> TrialRecord:
        answers = judged.answers.get(place_of(record))
        if answers is None:
            return record
        metrics = metrics_from_samples(answers.samples, answers.samples)
        return replace(
            record,
            metrics={**record.metrics, **metrics},
            samples=answers.samples,
            provenance={**record.provenance, "keyword_lists": digests},
        )

    spec = found.spec.model_copy(update={"keyword_lists": LISTS, "rows": judged.read})
    return found._replace(spec=spec, records=tuple(map(judged_record, found.records)))


def write_answers(folder: RunFolder, records: Iterable[TrialRecord], judged: Judged) -> None:
    """Store the responses where those of a sweep are stored."""
    folder.generations.mkdir(exist_ok=True)
    for record in records:
        if (answers := judged.answers.get(place_of(record))) is not None:
            path = folder.trial(record.trajectory_id).generations(record.config_id, record.seed)
            write_atomic(path, "".join(f"{json.dumps(line)}\n" for line in answers.lines))


def place_of(record: TrialRecord) -> str:
    """Where in its source an imported record is from."""
    return str(record.provenance["imported"]["where"])
