"""Rows and prompts from local files."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import DataError
from sweeper.task import DataSource

_COLUMNS: dict[str, dict[str, str]] = {
    "prompt_completion": {"prompt": "prompt", "completion": "completion"},
    "alpaca": {"instruction": "instruction", "input": "input", "output": "output"},
    "dolly": {"instruction": "instruction", "input": "context", "output": "response"},
    "prompts": {"prompt": "prompt"},
}
"""For each format: our name of a column -> its published name."""

_OPTIONAL = ("input",)


class Example(NamedTuple):
    """One training or held-out row as text."""

    prompt: str
    completion: str


class Prompt(NamedTuple):
    """One prompt of a suite."""

    id: str
    text: str


def read_rows(source: DataSource) -> list[dict[str, Any]]:
    """Read a .json (a list), .jsonl or .csv file, keep the rows `where` asks for, the first `rows` of them.

    Raises:
        DataError: missing, empty, not UTF-8, malformed (with the line), or a missing column.
    """
    path = Path(source.path)
    readers: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
        ".json": _json_rows,
        ".jsonl": _jsonl_rows,
        ".csv": _csv_rows,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: expected a .json, .jsonl or .csv file")
    try:
        rows = list(reader(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such data file; check the path in the sweep file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert the file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not rows:
        raise DataError(f"{path}: the file has no rows")
    for column in source.where:
        for number, row in enumerate(rows, start=1):
            _need_column(path, number, row, column)
    kept = [row for row in rows if all(str(row[c]) == v for c, v in source.where.items())]
    if not kept:
        raise DataError(f"{path}: none of {len(rows)} rows has {source.where}")
    return kept[: source.rows]


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: malformed JSON: {error.msg}") from None
    if not isinstance(raw, list):
        raise DataError(f"{path}: expected a list of rows, found {type(raw).__name__}")
    for number, row in enumerate(raw, start=1):
        yield _mapping(path, number, row)


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: malformed JSON: {error.msg}") from None
            yield _mapping(path, number, row)


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}:{reader.line_num}: expected {len(reader.fieldnames or ())} columns"
                    )
                yield dict(row)
        except csv.Error as error:
            line = reader.line_num + 1
            raise DataError(f"{path}:{line}: malformed CSV: {error}") from None


def _mapping(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{path}: row {number} is not an object but {type(row).__name__}")
    return row


def _need_column(path: Path, number: int, row: Mapping[str, Any], column: str) -> None:
    if column not in row:
        raise DataError(
            f"{path}: no column `{column}` in row {number}; it has {', '.join(row)}; "
            "map names with `columns`"
        )


def _text(path: Path, number: int, row: Mapping[str, Any], column: str) -> str:
    """A cell as text: null is blank, a number is what it reads as, a nested value is refused."""
    value = row.get(column)
    if isinstance(value, dict | list):
        found = type(value).__name__
        raise DataError(f"{path}: row {number}: `{column}` is not text but a {found}")
    return "" if value is None else str(value)


def _columns(source: DataSource) -> list[dict[str, str]]:
    """The rows of a source under our own column names, as text."""
    names = {**_COLUMNS[source.format], **source.columns}
    unknown = sorted(set(source.columns) - set(_COLUMNS[source.format]))
    if unknown:
        allowed = ", ".join(_COLUMNS[source.format])
        raise DataError(f"{source.name}: `columns` may map {allowed}, found {', '.join(unknown)}")
    path = Path(source.path)
    out = []
    for number, row in enumerate(read_rows(source), start=1):
        for ours, theirs in names.items():
            if ours not in _OPTIONAL:
                _need_column(path, number, row, theirs)
        out.append({ours: _text(path, number, row, theirs) for ours, theirs in names.items()})
    return out


def load_examples(source: DataSource) -> list[Example]:
    """Rows with a prompt and a completion.

    Raises:
        DataError: see `read_rows`; or a format without completions; or a blank prompt or completion.
    """
    if source.format == "prompts":
        raise DataError(f"{source.name}: format `prompts` has no completions to train on")
    examples = []
    for number, row in enumerate(_columns(source), start=1):
        prompt = row.get("prompt") or _instruction(row)
        completion = row.get("completion") or row.get("output", "")
        if not prompt.strip() or not completion.strip():
            blank = "completion" if prompt.strip() else "prompt"
            raise DataError(f"{source.path}: row {number} has a blank {blank}; remove the row")
        examples.append(Example(prompt, completion))
    return examples


def _instruction(row: Mapping[str, str]) -> str:
    instruction, context = row.get("instruction", ""), row.get("input", "")
    return f"{instruction}\n\n{context}" if context.strip() else instruction


def load_suite(sources: Sequence[DataSource]) -> list[Prompt]:
    """The prompts of several sources as one suite; of several, each id begins with its source's name.

    Raises:
        DataError: see `load_prompts`; or two sources of one name.
    """
    if len(sources) == 1:
        return load_prompts(sources[0])
    names = [source.suite or Path(source.name).stem for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise DataError(
                f"two sources of one suite are named `{name}`; give one of them another name"
            )
    return [
        Prompt(f"{name}/{prompt.id}", prompt.text)
        for name, source in zip(names, sources, strict=True)
        for prompt in load_prompts(source)
    ]


def load_prompts(source: DataSource) -> list[Prompt]:
    """The prompts of a suite. Ids are the file's `id` column, else the row number from 1.

    Raises:
        DataError: see `read_rows`; or a blank prompt; or two prompts with one id.
    """
    if source.format == "prompts":
        texts = [row["prompt"] for row in _columns(source)]
    else:
        texts = [example.prompt for example in load_examples(source)]
    rows = read_rows(source)
    prompts = [
        Prompt(str(row.get("id", number)), text)
        for number, (row, text) in enumerate(zip(rows, texts, strict=True), start=1)
    ]
    seen: set[str] = set()
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.text.strip():
            raise DataError(f"{source.path}: row {number} has a blank prompt; remove the row")
        if prompt.id in seen:
            raise DataError(f"{source.path}: the id {prompt.id!r} stands twice")
        seen.add(prompt.id)
    return prompts
