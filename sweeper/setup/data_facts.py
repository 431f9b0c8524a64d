"""What a new sweep has to know about its rows: their format, columns, lengths, and how many there are."""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.data.encode import Encoder
from sweeper.data.files import READERS
from sweeper.data.formats import FORMATS, Example
from sweeper.data.hub import is_hub_id
from sweeper.data.load import read_examples
from sweeper.data.rows import read_rows
from sweeper.data.split import load_safety_filter
from sweeper.data.suites import PUBLISHED
from sweeper.errors import DataError
from sweeper.task import DataSource

PROMPT = ("prompt", "instruction", "question", "query", "problem", "user", "human", "request")
COMPLETION = (
    "completion",
    "output",
    "response",
    "answer",
    "reply",
    "solution",
    "assistant",
    "target",
)
CONTEXT = ("input", "context", "passage")
SYSTEM = ("system", "system_prompt", "system_message")
SUITE_PROMPT = (*PROMPT[:1], "goal", "behavior", *PROMPT[1:], "forbidden_prompt", "text")
"""Column names people use, best first; compared without case."""

ROWS_LOOKED_AT = 50
MOST_MEASURED = 2000
"""Rows whose tokens are counted, spread over the file."""

LEAST_ROWS = 20
STEP = 64
"""`max_length` is a multiple of this many tokens."""


class DataFacts(NamedTuple):
    """Training rows as a sweep reads them.

    `rows` is how many have a prompt and an answer, `examples` are those that the filter of safety rows
    keeps, if it leaves enough (`filtered`).
    """

    source: DataSource
    rows: int
    columns: tuple[str, ...]
    examples: list[Example]
    filtered: bool

    def describe(self) -> str:
        """`1000 rows as alpaca (instruction, input, output)`."""
        return f"{self.rows} rows as {self.source.format} ({', '.join(self.columns)})"


class Lengths(NamedTuple):
    """Tokens of rows in a chat format, shortest first."""

    totals: tuple[int, ...]

    def quantile(self, share: float) -> int:
        """The length that this share of the rows, in [0, 1], does not exceed."""
        return self.totals[min(int(share * len(self.totals)), len(self.totals) - 1)]

    def longer_than(self, limit: int) -> float:
        """The share of rows with more tokens than `limit`."""
        return sum(total > limit for total in self.totals) / len(self.totals)


def data_facts(path: str, columns: Mapping[str, str]) -> DataFacts:
    """Look at training rows: a file, a folder, or a hub data set.

    Args:
        path: As `data.train.path`.
        columns: Names of columns that the user gave: `prompt`, `completion`, ...; {} to recognise them.

    Raises:
        DataError: unreadable or empty; columns that are not recognised; or too few rows to split.
        MissingExtraError: a package that the source needs is not installed.
    """
    if Path(path).suffix in READERS and not Path(path).exists():
        raise DataError(
            f"{path}: no such data file; check the path", code="data.not_found", path=path
        )
    raw = read_rows(DataSource(path=path, rows=ROWS_LOOKED_AT))
    cells = [row.cells for row in raw]
    names = tuple(dict.fromkeys(name for row in cells for name in row))
    found = _given(path, columns, names) if columns else recognise(path, cells)
    kept, rows = read_examples(found)
    examples = list(kept.values())
    if len(examples) < LEAST_ROWS:
        raise DataError(
            f"{path}: only {len(examples)} of {rows} rows have a prompt and an answer; at least "
            f"{LEAST_ROWS} are needed to train on some and hold others out",
            code="data.empty",
            path=path,
        )
    phrases = load_safety_filter()
    left = [row for row in examples if phrases.phrase_in(row.completion) is None]
    filtered = len(left) >= LEAST_ROWS
    return DataFacts(found, len(examples), names, left if filtered else examples, filtered)


def _given(path: str, columns: Mapping[str, str], names: Sequence[str]) -> DataSource:
    missing = [name for name in columns.values() if name not in names]
    if missing:
        raise DataError(
            f"{path}: no column `{missing[0]}`; it has {', '.join(names)}",
            code="data.missing_column",
            path=path,
            column=missing[0],
        )
    return DataSource(path=path, columns=dict(columns))


def recognise(path: str, rows: Sequence[Mapping[str, Any]]) -> DataSource:
    """The format of rows, and the columns that have other names than its own.

    Raises:
        DataError: no known columns; the message lists them and says how to name them.
    """
    names = {name.strip().lower(): name for row in rows for name in row}
    for column in ("messages", "conversations", "conversation", "dialogue"):
        if column in names and (kind := _turns(rows, names[column])) is not None:
            own = {"messages": "messages", "orca": "conversations"}[kind]
            renamed = {} if names[column] == own else {own: names[column]}
            return DataSource(path=path, format=kind, columns=renamed)
    prompt, completion = _first(names, PROMPT), _first(names, COMPLETION)
    if prompt is None or completion is None:
        raise DataError(_unrecognised(path, rows), code="data.missing_column", path=path)
    context, system = _first(names, CONTEXT), _first(names, SYSTEM)
    if context is None:
        format_, given = "prompt_completion", {"prompt": prompt, "completion": completion}
        if system is not None:
            given["system"] = system
    else:
        format_ = "dolly" if (context, completion) == ("context", "response") else "alpaca"
        given = {"instruction": prompt, "input": context, "output": completion}
    return DataSource(path=path, format=format_, columns=_renamed(format_, given))


def _renamed(format_: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The columns whose names are not those that the format has by itself."""
    return {ours: theirs for ours, theirs in columns.items() if FORMATS[format_][ours] != theirs}


def _first(names: Mapping[str, str], known: Sequence[str]) -> str | None:
    return next((names[name] for name in known if name in names), None)


def _turns(rows: Sequence[Mapping[str, Any]], column: str) -> str | None:
    """`messages` for a list of {role, content}, `orca` for one of {from, value}; None for other cells."""
    turns = rows[0].get(column)
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(first, dict):
        return None
    keys = {"messages": {"role", "content"}, "orca": {"from", "value"}}
    return next((kind for kind, needed in keys.items() if needed <= first.keys()), None)


def _unrecognised(path: str, rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if len(names) == 1:
        return f"{path}: a row needs a prompt and an answer, but its only column is `{names[0]}`"
    sizes = {name: sum(len(str(row.get(name) or "")) for row in rows) for name in names}
    longest = sorted(names, key=lambda name: -sizes[name])[:2]
    one, other = [name for name in names if name in longest]
    example = shlex.join(["--column", f"prompt={one}", "--column", f"completion={other}"])
    return (
        f"{path}: no columns that are known to hold a prompt and an answer among {', '.join(names)}; name "
        f"them, for example `{example}`"
    )


def suite_source(path: str, label: str) -> dict[str, Any] | str:
    """A suite of prompts as a sweep file states it: a published name, or a path with its prompt column.

    Where a file marks its rows as `safe` and `unsafe`, only those with `label` are taken.

    Raises:
        DataError: unreadable, empty, or no column that is known to hold prompts.
    """
    if path in PUBLISHED:
        return path
    if is_hub_id(path) and Path(path).suffix == "" and "/" not in path:
        known = ", ".join(PUBLISHED)
        raise DataError(
            f"`{path}` is neither a file nor a published suite; suites: {known}",
            code="data.not_found",
            path=path,
        )
    rows = [row.cells for row in read_rows(DataSource(path=path, rows=ROWS_LOOKED_AT))]
    names = {name.strip().lower(): name for row in rows for name in row}
    prompt = _first(names, SUITE_PROMPT)
    if prompt is None:
        raise DataError(
            f"{path}: no column of prompts among {', '.join(names.values())}; rename it to `prompt`",
            code="data.missing_column",
            path=path,
        )
    marks = [name for name in names.values() if _marked({str(row.get(name)) for row in rows})]
    return {
        "path": path,
        **({} if prompt == "prompt" else {"columns": {"prompt": prompt}}),
        **({"where": {marks[0]: label}} if marks else {}),
    }


def _marked(values: set[str]) -> bool:
    """Whether the values of a column say that rows are safe or not."""
    return "" not in values and values <= {"safe", "unsafe"}


def lengths(encoder: Encoder, examples: Sequence[Example]) -> Lengths:
    """Measure rows in tokens; of more than `MOST_MEASURED`, as many spread evenly.

    Raises:
        DataError: the chat format does not support a row.
    """
    every = math.ceil(len(examples) / MOST_MEASURED)
    rows = [encoder.encode_untruncated(example) for example in examples[::every]]
    return Lengths(tuple(sorted(len(row.prompt) + len(row.completion) for row in rows)))


def suggested_length(found: Lengths, prompts: int, room: int | None) -> int:
    """`max_length`: a multiple of 64 tokens that 99 % of the rows fit in, and every prompt of a suite.

    At least 256, and at most `room`.
    """
    wanted = STEP * math.ceil(max(256, prompts + 1, found.quantile(0.99)) / STEP)
    return wanted if room is None else min(wanted, room)
